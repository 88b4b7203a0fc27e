"""Page that joins the reports on several targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.metrics.registry import highlighted, metric_title
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.metric_table import image_count
from cxr_compare.evaluation.report.result import Result
from cxr_compare.evaluation.report.table import figure_text, text_table
from cxr_compare.evaluation.report.templates import render


def write_targets_page(out: Path, titles: Mapping[str, str], data_name: str) -> Path:
    """Join the reports on several findings in one ``figures.csv`` and one ``report.html``.

    The page has a section for each finding, with its main metrics and a link to its report.

    Args:
        out: Folder with one report folder for each finding (disease sign), named after the finding.
        titles: Names of the findings for readers, by name, in the order of the page.
        data_name: Name of the data set as shown to readers.

    Returns:
        Path of the new ``report.html``.
    """
    results = {name: Result.open(out / name) for name in titles}
    figures = pd.concat([result.figures for result in results.values()], ignore_index=True)
    write_csv(figures, out / files.FIGURES_CSV)
    sections = [_section(name, title, results[name]) for name, title in titles.items()]
    page = render("targets.html.jinja", data_name=data_name, sections=sections)
    return write_text(out / files.PAGE, page)


def _section(finding: str, title: str, result: Result) -> dict[str, Any]:
    """Return the content of the page's section on one target."""
    by_image = Figures.from_table(result.figures[result.figures["unit"] == "image"])
    systems = result.systems
    rows = [
        (metric_title(metric), *(figure_text(by_image.get(name, metric)) for name in systems))
        for metric in highlighted("targets")
    ]
    caption = f"Figures for {title}"
    return {
        "title": title,
        "systems": systems,
        "link": f"{finding}/{files.PAGE}",
        "count": image_count(by_image),
        "table": text_table(caption, ("Figure", *systems), rows),
        "notes": list(dict.fromkeys([*result.cautions, *result.answer.notes])),
    }
