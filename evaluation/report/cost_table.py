"""Size and time of each system, for the main table."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.statistics.figure_text import DASH


class _Cost(NamedTuple):
    """Computing cost in the main table: title with the unit, key of the record and divisor."""

    title: str
    key: str
    divisor: float


_COSTS = (
    _Cost("Parameters (million)", "parameters", 1e6),
    _Cost("FLOPs per image (billion)", "flops", 1e9),
    _Cost("Time per image (ms)", "latency_ms", 1.0),
)
"""Costs in the main table; all others are in ``answer.json``."""


def cost_frame(comparison: Comparison) -> pd.DataFrame:
    """Return parameters, FLOPs and time of each system as texts: a row a system, a column a cost.

    A cost that no system records has no column. That of an ensemble is the sum over its members.
    """
    costs = [result.cost for result in comparison.systems.values()]
    columns = {
        cost.title: [_cost_text(each.get(cost.key), cost.divisor) for each in costs]
        for cost in _COSTS
        if any(each.get(cost.key) is not None for each in costs)
    }
    return pd.DataFrame(columns, index=comparison.names)


def _cost_text(value: float | None, divisor: float) -> str:
    """Return a cost in its unit, such as "12.5"; a dash if it is unknown."""
    if value is None or value != value:
        return DASH
    scaled = value / divisor
    return f"{scaled:.2g}" if 0 < scaled < 1 else f"{scaled:,.1f}"


def timing_note(comparison: Comparison) -> str:
    """Say on which devices the systems were timed; empty if none was."""
    costs = [result.cost for result in comparison.systems.values()]
    devices = {str(each["latency_device"]) for each in costs if each.get("latency_device")}
    return f"Timed on {' and '.join(sorted(devices))}." if devices else ""
