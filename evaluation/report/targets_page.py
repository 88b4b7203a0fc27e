"""Page that joins the reports on several findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.metric_table import image_count
from cxr_compare.evaluation.report.result import Result
from cxr_compare.evaluation.report.results_by_target import ResultsByTarget
from cxr_compare.evaluation.report.table import text_table
from cxr_compare.evaluation.report.templates import render


def write_targets_page(out: Path, results: ResultsByTarget, data_name: str) -> Path:
    """Write the page on several findings: a row a finding, the means, and the links.

    Args:
        out: Folder with one report folder for each finding (disease sign), named after the finding.
        results: Results on the findings, which were written.
        data_name: Name of the data set as reports show it; empty if it has none.

    Returns:
        Path of the new ``report.html``.
    """
    systems = results.systems
    table = results.table
    rows = [(name, *values) for name, values in zip(table.index, table.to_numpy(), strict=True)]
    tables = [text_table("AUROC of each finding", ("Finding", *systems), rows)]
    means = results.mean_rows()
    if means:
        heads = ("Figure", "Findings", *systems)
        tables.append(text_table("Means over findings", heads, means))
    if len(systems) > 1:
        heads = ("Finding", "Difference of", "AUROC (95 % CI)", "p, corrected")
        tables.append(text_table("Differences", heads, results.test_rows()))
    page = render(
        "targets.html.jinja",
        headline=results.headline,
        systems=systems,
        tables=tables,
        data_name=data_name,
        sections=[
            _section(name, results.titles[name], each) for name, each in results.results.items()
        ],
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
