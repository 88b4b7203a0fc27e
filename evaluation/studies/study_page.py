"""The frame of every study: the content of its page, and the files written with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.report.chart import Chart
from cxr_compare.evaluation.report.inline_svg import to_svg
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.report.templates import render

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Statement:
    """Sentence of a study, with its subject, and True if it states something shown."""

    text: str
    shown: bool = False
    about: str = ""


@dataclass(frozen=True)
class ShownChart:
    """Chart of a page with its legend: samples and their texts."""

    chart: Chart
    legend: Sequence[tuple[str, str]] = ()

    @property
    def drawing(self) -> str:
        """Chart as SVG."""
        return to_svg(self.chart)


@dataclass(frozen=True)
class Section:
    """Part of a page: charts, with or without a table beside them, and tables below."""

    key: str  # its anchor
    title: str
    lead: str = ""  # sentences below the heading
    charts: Sequence[ShownChart] = ()
    beside: Table | None = None  # at the right of the charts
    note: str = ""  # below that table
    tables: Sequence[Table] = ()  # one with the section's title needs none of its own
    folded: Mapping[str, Sequence[Table]] = field(default_factory=dict)  # by words to open them


@dataclass(frozen=True)
class StudyPage:
    """Content of a study's page, from its answer to its methods."""

    title: str  # title of the window
    kicker: str  # short text above the title: subject and size of the study
    answer: str  # the heading
    scope: Sequence[str] = ()  # how far the answer reaches, a paragraph each
    statements: Sequence[Statement] = ()
    notes: Sequence[str] = ()  # cautions, a sentence each
    sections: Sequence[Section] = ()
    methods: Sequence[str] = ()  # a point each
    details: Sequence[tuple[Table, str]] = ()  # at the end of the methods, each with a note below
    provenance: Mapping[str, Any] = field(default_factory=provenance)
    signs: bool = True  # whether statements say that something is shown or not
    skip_to: str = "figures"  # id of the part that the first link leads to

    def render(self, template: str = "study.html.jinja", **values: Any) -> str:
        """Render the page as HTML.

        Args:
            template: File name of a template of the studies that fills blocks of the frame.
            **values: Further values of the template.
        """
        return render(_HERE / template, page=self, **values)


def write_study(
    out: Path,
    kind: str,
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    stored: Mapping[str, Any],
    html: str,
) -> Path:
    """Write ``KIND.csv``, ``KIND.json`` and, last, ``KIND.html``; return the page."""
    write_csv(pd.DataFrame(rows), out / f"{kind}.csv")
    write_json(out / f"{kind}.json", kind, dict(stored))
    return write_text(out / f"{kind}.html", html)
