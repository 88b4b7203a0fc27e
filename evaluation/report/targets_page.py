"""One page and one table over the reports on several targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_prep.contracts.folders import atomic_path
from data_prep.contracts.tables import read_json
from evaluation.compare.intervals import find_interval
from evaluation.metrics.registry import metric_words, number
from evaluation.report.files import METRICS, METRICS_TABLE, PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_prep.store.dataset import Target

SHOWN = ("auroc", "average_precision", "brier")


@dataclass(frozen=True)
class TargetSection:
    """One target on the page.

    Args:
        title: Its name.
        link: Its own report, relative.
        count: On how many images and patients.
        systems: Columns.
        rows: A metric's title, then a figure with its interval per system.
        notes: What a reader must know.
    """

    title: str
    link: str
    count: str
    systems: list[str]
    rows: list[tuple[str, list[str]]]
    notes: list[str]


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
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("targets.html.jinja").render(
        data_name=data_name, sections=sections
    )
    with atomic_path(out / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / PAGE


def _section(target: Target, payload: dict[str, Any], table: pd.DataFrame) -> TargetSection:
    by_image = table[table["unit"] == "image"]
    systems = list(payload["systems"])
    rows = []
    for metric in SHOWN:
        figures = [find_interval(by_image, name, metric) for name in systems]
        told = [
            f"{number(figure.estimate)} ({figure.ends})" if figure.bounded
            else number(figure.estimate)
            for figure in figures
        ]  # fmt: skip
        rows.append((metric_words(metric).title, told))
    counted = by_image[(by_image["metric"] == "auroc") & (by_image["subgroup"] == "all")]
    count = ""
    if len(counted):
        first = counted.iloc[0]
        count = (
            f"{int(first['n_images']):,} test images of {int(first['n_patients']):,} patients, "
            f"{int(first['n_positive']):,} positive"
        )
    link = f"{target.name}/report.html"
    return TargetSection(target.display_name, link, count, systems, rows, list(payload["notes"]))
