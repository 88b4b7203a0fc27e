"""Size and time of each system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

UNKNOWN = "unknown"


class Cost(NamedTuple):
    """Computing cost that the page shows: key of the record, divisor and unit."""

    title: str
    key: str
    divisor: float
    unit: str


PAGE_COSTS = (
    Cost("Made of", "made_of", 1.0, ""),
    Cost("Parameters", "parameters", 1e6, "million"),
    Cost("FLOPs per image", "flops", 1e9, "billion"),
    Cost("Time per image", "latency_ms", 1.0, "ms"),
    Cost("Size of the weights", "size_bytes", 1e6, "MB"),
)
"""Costs that the page shows; all others are in ``answer.json``."""


def cost_text(costs: Mapping[str, Any], cost: Cost) -> str:
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
