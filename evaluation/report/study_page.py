"""The frame of a page of a study.

It offers the content of a page (statements, charts, tables, sections), helpers that draw a chart in
our style with matplotlib, and functions that write the page with its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.evaluation.report.chart_style import (
    GUIDE,
    ShownChart,
    add_legend,
    draw_band,
    draw_line,
    line_style,
    marker_style,
    new_chart,
    share_axis,
)
from cxr_compare.evaluation.report.table import Table, figure_text, text_table
from cxr_compare.evaluation.report.templates import render

__all__ = [
    "GUIDE",
    "Section",
    "ShownChart",
    "Statement",
    "StudyPage",
    "Table",
    "add_legend",
    "draw_band",
    "draw_line",
    "figure_text",
    "line_style",
    "marker_style",
    "new_chart",
    "share_axis",
    "study_files",
    "text_table",
    "write_study",
]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Statement:
    """A sentence with a result of a study, for its HTML page.

    `shown` is True if it states a difference that is statistically shown. `about` is the kind of
    the sentence, such as ``difference``; empty if the page treats all sentences alike.
    """

    text: str
    shown: bool = False
    about: str = ""


@dataclass(frozen=True)
class Section:
    """A section of an HTML page: charts, with or without a table beside them, and tables below.

    Attributes:
        key: Id of the section in the HTML text, to which links lead, such as ``figures``.
        lead: Sentences below the heading; may be empty.
        beside: Table at the right of the charts; None if there is no such table.
        note: Sentence below the table `beside`; may be empty.
        tables: Tables below the charts. A table whose title equals that of the section is shown
            without its title.
        folded: Tables that are hidden until the user presses a button; the key is the text of the
            button.
    """

    key: str
    title: str
    lead: str = ""
    charts: Sequence[ShownChart] = ()
    beside: Table | None = None
    note: str = ""
    tables: Sequence[Table] = ()
    folded: Mapping[str, Sequence[Table]] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyPage:
    """Texts, charts and tables of the HTML page with the results of a study.

    Attributes:
        title: Title of the browser window.
        kicker: Short line above the heading, with the subject and size of the study.
        answer: Heading of the page: the main result of the study as a sentence.
        scope: Paragraphs that say for which patients, data and readers the main result holds.
        statements: Sentences with further results, shown below the heading.
        notes: Warnings, as sentences.
        methods: Sentences on the methods.
        details: Tables at the end of the methods, each with a note below it.
        provenance: Versions of programs and ids of data, by name.
        signs: True to show a sign before each sentence in `statements` that says whether it is
            statistically shown.
        skip_to: Id of the section to which the first link of the page leads, for users of a
            keyboard.
    """

    title: str
    kicker: str
    answer: str
    scope: Sequence[str] = ()
    statements: Sequence[Statement] = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    methods: Sequence[str] = ()
    details: Sequence[tuple[Table, str]] = ()
    provenance: Mapping[str, Any] = field(default_factory=provenance)
    signs: bool = True
    skip_to: str = "figures"

    def render(self, template: str | Path = "study.html.jinja", **values: Any) -> str:
        """Render the page as HTML.

        `template` is the path of a Jinja template that extends ``study.html.jinja``, which fits all
        studies, by the content of one study. `values` are further values that it uses, by name.
        """
        return render(_HERE / template, page=self, **values)


def study_files(kind: str) -> set[str]:
    """Return the names of the files that `write_study` writes.

    Example:
        >>> sorted(study_files("curve"))
        ['curve.csv', 'curve.html', 'curve.json']
    """
    return {f"{kind}.{ending}" for ending in ("html", "json", "csv")}


def write_study(
    out: Path,
    kind: str,
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    stored: Mapping[str, Any],
    html: str,
) -> Path:
    """Write the result files of a study and return the path of its page.

    The files are ``KIND.csv`` (a table of `rows`), ``KIND.json`` and, last, ``KIND.html``.
    """
    write_csv(pd.DataFrame(rows), out / f"{kind}.csv")
    write_json(out / f"{kind}.json", kind, dict(stored))
    return write_text(out / f"{kind}.html", html)
