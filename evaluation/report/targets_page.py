"""Page that joins the reports on several targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.metrics.registry import highlighted, metric_title
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.metric_table import image_count
from cxr_compare.evaluation.report.table import figure_text, text_table
from cxr_compare.evaluation.report.templates import render


def write_targets_page(out: Path, titles: Mapping[str, str], data_name: str) -> Path:
    """Join the reports on several findings in one ``metrics.csv`` and one ``report.html``.

    The page has a section for each finding, with its main metrics and a link to its report.

    Args:
        out: Folder with one report folder for each finding (disease sign), named after the finding.
        titles: Names of the findings for readers, by name, in the order of the page.
        data_name: Name of the data set as shown to readers.

    Returns:
        Path of the new ``report.html``.
    """
    read = {name: read_json(out / name / files.METRICS, "metrics") for name in titles}
    tables = {name: pd.DataFrame(payload["metrics"]) for name, payload in read.items()}
    inert = [
        pd.read_csv(out / name / files.METRICS_TABLE, dtype=str, na_filter=False) for name in read
    ]
    write_text(out / files.METRICS_TABLE, pd.concat(inert).to_csv(index=False))
    sections = [_section(name, title, read[name], tables[name]) for name, title in titles.items()]
    page = render("targets.html.jinja", data_name=data_name, sections=sections)
    return write_text(out / files.PAGE, page)


def _section(
    finding: str, title: str, payload: dict[str, Any], table: pd.DataFrame
) -> dict[str, Any]:
    """Return the content of the page's section on one target."""
    by_image = Figures.from_table(table[table["unit"] == "image"])
    systems = list(payload["systems"])
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
        "notes": list(dict.fromkeys([*payload["answer"]["cautions"], *payload["notes"]])),
    }
