"""Published figures on the same data or finding, beside the measured figures."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.table import Table, figure_text
from cxr_compare.evaluation.report.templates import TABLES, sentence
from cxr_compare.evaluation.statistics.figure_text import number


@cache
def published_figures() -> list[dict[str, Any]]:
    """Return results of published studies, which a report shows beside its own.

    They are the entries of ``published.toml``.

    Returns:
        One dictionary for each entry, with ``system`` (name), ``metric``, ``value``, ``sources``
        (names of the image collections, such as ``rsna``), ``findings`` (names), ``data`` (the
        studied data in words), ``source`` (publication), ``comparable`` (how far it can be
        compared) and, if published, ``interval``.
    """
    text = Path(__file__).with_name("published.toml").read_text(encoding="utf-8")
    figures: list[dict[str, Any]] = tomllib.loads(text)["figure"]
    return figures


def published_table(comparison: Comparison, sources: Collection[str], policy: str) -> Table | None:
    """Return a table of published results on the same data and finding, beside those measured here.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        sources: Names of the image collections under evaluation, such as ``rsna``.
        policy: Rule by which the threshold was chosen for metrics that need one, such as
            ``max_f1``.

    Returns:
        The table, with one row for each published value: name of the published system, metric,
        published value, value of each system of the comparison, source, and how far the values can
        be compared. None if there is no published result on such data and finding.
    """
    rows = []
    for published in published_figures():
        same_data = set(published["sources"]) & set(sources)
        same_finding = set(published["findings"]) & set(comparison.findings)
        if not (same_data and same_finding):
            continue
        measured = []
        for name in comparison.systems:
            without_threshold = comparison.estimates.get(name, published["metric"], "")
            at_threshold = comparison.estimates.get(name, published["metric"], policy)
            measured.append(without_threshold if without_threshold.known else at_threshold)
        rows.append(
            (
                published["system"],
                metric_title(published["metric"]),
                _published_text(published),
                *map(figure_text, measured),
                sentence(
                    "published_source", published["data"], published["source"], template=TABLES
                ),
                published["comparable"],
            )
        )
    if not rows:
        return None
    columns = (
        "Published",
        "Figure",
        "There",
        *(f"{name}, here" for name in comparison.systems),
        "Data and source",
        "Comparable?",
    )
    return Table.from_rows(
        sentence("published_title", template=TABLES),
        sentence("published_lead", template=TABLES),
        columns,
        rows,
    )


def _published_text(published: dict[str, Any]) -> str:
    value = published["value"]
    digits = 4 if round(value, 3) != value else 3
    text = number(value, digits)
    if "interval" in published:
        low, high = (number(end, digits) for end in published["interval"])
        text += f" ({low} to {high})"
    return text
