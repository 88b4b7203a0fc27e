"""The frame that all studies share: the content of a page, and the files beside it."""

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
    """Sentence of a study.

    Attributes:
        text: The sentence.
        shown: True if the sentence states a difference that is statistically shown.
        about: Subject of the sentence, such as ``difference``; empty if the page does not need it.

    Example:
        >>> Statement("The AUROC of A is higher than that of B.", shown=True).shown
        True
    """

    text: str
    shown: bool = False
    about: str = ""


@dataclass(frozen=True)
class ShownChart:
    """Chart of a page with its legend.

    Attributes:
        chart: The chart.
        legend: Sample (SVG) and text of each entry of the legend.
    """

    chart: Chart
    legend: Sequence[tuple[str, str]] = ()

    @property
    def drawing(self) -> str:
        """Chart as SVG."""
        return to_svg(self.chart)


@dataclass(frozen=True)
class Section:
    """Part of a page: charts, with or without a table beside them, and tables below.

    Attributes:
        key: Anchor of the section.
        title: Heading of the section.
        lead: Sentences below the heading.
        charts: Charts of the section.
        beside: Table at the right of the charts; None without one.
        note: Sentence below this table.
        tables: Tables below the charts. A table that has the title of the section shows no title.
        folded: Tables that the user opens, by the text of the button.

    Example:
        >>> Section("figures", "All figures").lead
        ''
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
    """Content of a study's page, from its answer to its methods.

    Attributes:
        title: Title of the browser window.
        kicker: Short text above the answer: subject and size of the study.
        answer: Heading of the page.
        scope: Paragraphs that say how far the answer reaches.
        statements: Statements below the answer.
        notes: Cautions, as sentences.
        sections: Parts of the page.
        methods: Points on the methods.
        details: Tables at the end of the methods, each with a note below it.
        provenance: Versions and ids.
        signs: True if a sign beside each statement says whether it is shown.
        skip_to: Id of the part that the first link of the page leads to.

    Example:
        >>> StudyPage("Monitor", "Monitor", "Quiet.", provenance={}).skip_to
        'figures'
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

    def render(self, template: str = "study.html.jinja", **values: Any) -> str:
        """Render the page as HTML.

        Args:
            template: File name of a template of the studies, which fills blocks of the frame.
            **values: Further values of the template.

        Returns:
            The HTML text.

        Example:
            >>> page = StudyPage("Monitor", "Monitor", "Quiet.", provenance={})
            >>> "Quiet." in page.render()
            True
        """
        return render(_HERE / template, page=self, **values)


def write_study(
    out: Path,
    kind: str,
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    stored: Mapping[str, Any],
    html: str,
) -> Path:
    """Write the files of a study: the table, the results and, last, the page.

    Args:
        out: Folder of the files.
        kind: Kind of the study, such as ``monitor``; the files are ``KIND.csv``, ``KIND.json`` and
            ``KIND.html``.
        rows: Rows of the table.
        stored: Content of the JSON file.
        html: Text of the page.

    Returns:
        Path of the page.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_study(Path(folder), "monitor", [{"key": "a"}], {}, "<html></html>")
        >>> page.name
        'monitor.html'
    """
    write_csv(pd.DataFrame(rows), out / f"{kind}.csv")
    write_json(out / f"{kind}.json", kind, dict(stored))
    return write_text(out / f"{kind}.html", html)
