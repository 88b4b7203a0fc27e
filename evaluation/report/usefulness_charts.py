"""Curves of what a system is worth to a user: net benefit and expected cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from evaluation.report.charts import HEIGHT, LEFT, TOP, WIDTH, Chart, Series, curve_path

if TYPE_CHECKING:
    import pandas as pd

    from evaluation.compare.comparison import Comparison


def net_benefit_chart(comparison: Comparison) -> Chart:
    """Return the decision curve of the calibrated probabilities, else of the scores."""
    table = comparison.where
    table = table if table.empty else table[table["topic"] == "decision_curve"]
    wanted = "net_benefit_calibrated"
    if not table.empty and not (table["metric"] == wanted).any():
        wanted = "net_benefit"
    curves = _curves(comparison, table, wanted)
    values = [y for _, ys in curves.values() for y in ys]
    low, high = -0.05, max([0.05, *(math.ceil(value * 20 - 1e-9) / 20 for value in values)])
    right = max([0.8, *(x for xs, _ in curves.values() for x in xs)])
    every = [] if table.empty else table[
        (table["metric"] == "net_benefit") & ~table["system"].isin(comparison.names)
        & ~table["system"].str.contains(" - ", regex=False)
    ].to_dict("records")  # fmt: skip
    guide = _path(
        [float(row["group"]) for row in every], [row["estimate"] for row in every],
        right, low, high,
    )  # fmt: skip
    zero = TOP + HEIGHT * high / (high - low)
    return Chart(
        key="net-benefit",
        title="Decision curve",
        x_title="Risk from which one would act",
        y_title="Net benefit",
        series=_series(comparison, curves, right, low, high),
        guide=f"{guide}M{LEFT:g} {zero:.1f}H{LEFT + WIDTH:g}",
        guide_label="calling every image positive, or none (0)",
        description="Decision curves: net benefit against the risk from which one would act.",
        x_labels=tuple(f"{right * t / 4:.2g}" for t in range(5)),
        y_labels=tuple(f"{low + (high - low) * t / 4:.2f}".replace("-", "−") for t in range(5)),
    )


def cost_chart(comparison: Comparison) -> Chart:
    """Return the cost curve of each system at the main threshold."""
    table = comparison.where
    table = table if table.empty else table[table["topic"] == "cost_curve"]
    curves = _curves(comparison, table, "expected_cost")
    guide = _path([0, 0.5, 1], [0, 0.5, 0], 1.0, 0.0, 0.6)
    return Chart(
        key="cost",
        title="Cost curve",
        x_title="Share of the cost that misses make",
        y_title="Expected cost",
        series=_series(comparison, curves, 1.0, 0.0, 0.6),
        guide=guide,
        guide_label="calling all images alike, whichever is cheaper",
        description="Cost curves: expected cost against the share that misses make of it.",
        y_labels=("0.0", "0.15", "0.3", "0.45", "0.6"),
    )


def _curves(
    comparison: Comparison, table: pd.DataFrame, metric: str
) -> dict[str, tuple[list[float], list[float]]]:
    curves = {}
    for name in comparison.systems if not table.empty else ():
        rows = table[(table["system"] == name) & (table["metric"] == metric)].dropna(
            subset=["estimate"]
        )
        if len(rows):
            curves[name] = rows["group"].astype(float).tolist(), rows["estimate"].tolist()
    return curves


def _series(
    comparison: Comparison,
    curves: dict[str, tuple[list[float], list[float]]],
    right: float,
    low: float,
    high: float,
) -> tuple[Series, ...]:
    return tuple(
        Series(name, _path(*curves[name], right, low, high), position)
        for position, name in enumerate(comparison.systems)
        if name in curves
    )


def _path(x: list[float], y: list[float], right: float, low: float, high: float) -> str:
    """A curve on axes from 0 to `right` and from `low` to `high`; what lies outside is clipped."""
    inside = [min(max((value - low) / (high - low), 0.0), 1.0) for value in y]
    return curve_path([value / right for value in x], inside)
