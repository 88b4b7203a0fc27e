"""Page that joins the reports on several findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.metric_table import image_count
from cxr_compare.evaluation.report.result import Result
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.report.templates import render


def write_targets_page(
    out: Path,
    headline: str,
    tables: Sequence[Table],
    results: Mapping[str, Result],
    titles: Mapping[str, str],
    data_name: str,
) -> Path:
    """Write the page on several findings: the answer, the tables, and a link to each report.

    Args:
        out: Folder with one report folder for each finding (disease sign), named after the finding.
        headline: Answer in sentences.
        tables: Tables of all findings.
        results: Result on each finding, which was written, by name of the finding.
        titles: Names of the findings for readers, by name.
        data_name: Name of the data set as reports show it; empty if it has none.

    Returns:
        Path of the new ``report.html``.
    """
    sections = [_section(name, titles[name], each) for name, each in results.items()]
    first = next(iter(results.values()))
    page = render(
        "targets.html.jinja",
        headline=headline,
        systems=first.systems,
        tables=tables,
        data_name=data_name,
        sections=sections,
    )
    return write_text(out / files.PAGE, page)


def _section(finding: str, title: str, result: Result) -> dict[str, Any]:
    """Return the content of the page's section on one finding."""
    by_image = Figures.from_table(result.figures[result.figures["unit"] == "image"])
    return {
        "title": title,
        "link": f"{finding}/{files.PAGE}",
        "count": image_count(by_image),
        "headline": result.headline,
        "notes": list(dict.fromkeys([*result.cautions, *result.answer.notes])),
    }
