"""Published figures on the same data or finding, beside the measured ones."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.table import Table, figure_words
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.statistics.figure_text import (
    number,
)


@cache
def _published_figures() -> list[dict[str, Any]]:
    """Every figure that a report may show, from ``published.toml``; each only with related data."""
    text = Path(__file__).with_name("published.toml").read_text(encoding="utf-8")
    figures: list[dict[str, Any]] = tomllib.loads(text)["figure"]
    return figures


def published_table(comparison: Comparison, sources: Collection[str], policy: str) -> Table | None:
    """Return published figures on the same data or finding beside the measured ones."""
    rows = []
    for each in _published_figures():
        of_data = set(each["sources"]) & set(sources)
        if not (of_data and set(each["findings"]) & set(comparison.findings)):
            continue
        here = []
        for name in comparison.systems:
            free, at = (comparison.estimates.get(name, each["metric"], p) for p in ("", policy))
            here.append(free if free.known else at)
        value = each["value"]
        about = each["data"]
        digits = 4 if round(value, 3) != value else 3
        figure = number(value, digits)
        if "interval" in each:
            low, high = (number(end, digits) for end in each["interval"])
            figure += f" ({low} to {high})"
        rows.append(
            (
                each["system"],
                metric_title(each["metric"]),
                figure,
                *map(figure_words, here),
                f"{about[0].upper()}{about[1:]}. {each['source']}",
                each["comparable"],
            )
        )
    if not rows:
        return None
    lead = sentence("published")
    columns = (
        "Published",
        "Figure",
        "There",
        *(f"{name}, here" for name in comparison.systems),
        "Data and source",
        "Comparable?",
    )
    return Table.of("Published figures", lead, columns, rows)
