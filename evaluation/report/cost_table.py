"""Size and time of each system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.table import Table, text_table

UNKNOWN = "unknown"


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
"""Costs that the page shows; all others are in ``answer.json``."""


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
    lead += "Training, memory and image size are in answer.json."
    return text_table("Size and time", ("System", *(cost.title for cost in known)), rows, lead)
