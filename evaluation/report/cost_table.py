"""Size and time of each system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.table import Table, text_table

UNKNOWN = "unknown"


COST_KEYS = (
    "made_of",
    "parameters",
    "trainable_parameters",
    "flops",
    "size_bytes",
    "train_seconds",
    "train_device",
    "train_peak_memory_bytes",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "latency_device",
    "peak_memory_bytes",
    "batch_size",
    "precision",
    "image_size",
)
"""Keys of the costs that ``cxr predict`` records of a system; an unknown cost is null."""


_AT_THRESHOLD = ("accuracy", "recall", "specificity", "precision", "f1")


class _Cost(NamedTuple):
    """Computing cost that the page shows: key of the record, divisor and unit."""

    title: str
    key: str
    divisor: float
    unit: str


_PAGE_COSTS = (
    _Cost("Made of", "made_of", 1.0, ""),
    _Cost("Parameters", "parameters", 1e6, "million"),
    _Cost("FLOPs per image", "flops", 1e9, "billion"),
    _Cost("Time per image", "latency_ms", 1.0, "ms"),
    _Cost("Size of the weights", "size_bytes", 1e6, "MB"),
)
"""Costs that the page shows; all others are in ``costs.csv``."""


def _cost_text(costs: Mapping[str, Any], cost: _Cost) -> str:
    """Return a cost of a system with its unit, such as "12.5 ms", or "unknown".

    The cost of an ensemble is the sum over its members.
    """
    value = costs.get(cost.key)
    if cost.key == "made_of":
        return str(value or "one model")
    if value is None or value != value:
        return UNKNOWN
    scaled = float(value) / cost.divisor
    return (
        f"{scaled:,.1f} {cost.unit}" if scaled >= 1 or not scaled else f"{scaled:.2g} {cost.unit}"
    )


def cost_frame(comparison: Comparison) -> pd.DataFrame:
    """Return the content of ``costs.csv``: main metrics and computing costs of each system.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One row for each system: ``system``, ``policy`` (rule for the threshold), AUROC, accuracy,
        sensitivity, specificity, precision and F1 with the ends of their intervals (such as
        ``auroc``, ``auroc_low`` and ``auroc_high``), and costs such as ``parameters``, ``flops``
        and ``latency_ms``. A value is NaN or None where it is unknown.
    """
    policy = comparison.main_policy
    rows = []
    for name, result in comparison.systems.items():
        row: dict[str, Any] = {"system": name, "policy": policy}
        for metric, at in (("auroc", ""), *((metric, policy) for metric in _AT_THRESHOLD)):
            figure = comparison.figures.get(name, metric, at)
            row[metric] = figure.estimate
            row |= {f"{metric}_low": figure.ci_low, f"{metric}_high": figure.ci_high}
        cost = result.cost
        rows.append(row | {key: cost.get(key) for key in COST_KEYS})
    return pd.DataFrame(rows)


def cost_table(comparison: Comparison) -> Table | None:
    """Return parameters, FLOPs, times and sizes of each system; None if nothing is recorded."""
    costs = [result.cost for result in comparison.systems.values()]
    known = [cost for cost in _PAGE_COSTS if any(each.get(cost.key) is not None for each in costs)]
    if not known:
        return None
    rows = [
        (name, *(_cost_text(each, cost) for cost in known))
        for name, each in zip(comparison.names, costs, strict=True)
    ]
    devices = {str(each["latency_device"]) for each in costs if each.get("latency_device")}
    lead = f"Timed on {' and '.join(sorted(devices))}. " if devices else ""
    lead += "Training, memory and image size are in costs.csv."
    return text_table("Size and time", ("System", *(cost.title for cost in known)), rows, lead)
