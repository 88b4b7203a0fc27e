"""The page over several targets: a section and a link each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from data_prep.contracts.folders import atomic_path
from data_prep.contracts.json_files import read_json
from data_prep.contracts.pages import write_html
from evaluation.compare.estimates import Estimates
from evaluation.metrics.registry import highlighted, metric_title
from evaluation.report.files import METRICS, METRICS_TABLE, PAGE
from evaluation.report.table import Table, figure_words
from evaluation.report.tables import image_count
from evaluation.report.templates import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_prep.store.dataset import Target


def write_targets_page(out: Path, targets: Sequence[Target], data_name: str) -> Path:
    """Join the reports below a folder: ``metrics.csv`` over all, and ``report.html`` last.

    Args:
        out: Folder that holds a report per target, each in a folder of the target's name.
        targets: In the order to show them.
        data_name: Name of the data set.

    Returns:
        The page.

    Raises:
        InputError: A target's report is not complete.
    """
    read = {target.name: read_json(out / target.name / METRICS, "metrics") for target in targets}
    tables = {name: pd.DataFrame(payload["metrics"]) for name, payload in read.items()}
    with atomic_path(out / METRICS_TABLE) as temporary:
        pd.concat(list(tables.values()), ignore_index=True).to_csv(temporary, index=False)
    sections = [_section(target, read[target.name], tables[target.name]) for target in targets]
    page = render("targets.html.jinja", data_name=data_name, sections=sections)
    return write_html(out / PAGE, page)


def _section(target: Target, payload: dict[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """One target on the page."""
    by_image = Estimates.from_table(table[table["unit"] == "image"])
    systems = list(payload["systems"])
    rows = [
        (metric_title(metric), *(figure_words(by_image.of(name, metric)) for name in systems))
        for metric in highlighted("targets")
    ]
    title = f"Figures for {target.display_name}"
    return {
        "title": target.display_name,
        "link": f"{target.name}/{PAGE}",
        "count": image_count(by_image),
        "table": Table.of(title, "", ("Figure", *systems), rows, len(systems)),
        "notes": list(dict.fromkeys([*payload["answer"]["cautions"], *payload["notes"]])),
    }
