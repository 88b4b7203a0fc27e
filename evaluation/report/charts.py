"""Geometry of the report's charts: from figures to coordinates; `charts.html.jinja` draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evaluation.compare.intervals import Interval, find_interval
from evaluation.metrics.words import number, policy_words

if TYPE_CHECKING:
    import pandas as pd

    from evaluation.compare.comparison import Comparison, SystemResult

LEFT, TOP, WIDTH, HEIGHT = 44.0, 12.0, 284.0, 264.0
"""The plot area inside a view box of 340 x 320."""

MARKERS = ("circle", "triangle", "square", "diamond", "down", "plus")
_GRID = 1000  # curves are rounded to 1/1000 of the axis: finer than a screen shows


@dataclass(frozen=True)
class Point:
    """An operating point: where, of which system and policy."""

    x: float
    y: float
    marker: str
    label: str


@dataclass(frozen=True)
class Series:
    """One system's curve and its operating points, in view box units; faint: drawn thin."""

    name: str
    path: str
    position: int
    points: tuple[Point, ...] = ()
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A square chart with both axes from 0 to 1.

    Args:
        key: Short name for ids.
        title: Its name.
        x_title: Below the chart.
        y_title: At its left.
        series: One per system.
        description: The chart in words, for those who cannot see it.
        guide: Path of the line that guessing gives, where it says something.
        guide_label: What that line is.
        ticks: Where the grid lies, as a share of each axis.
        x_labels: What stands at the ticks, where that is not their share.
        y_labels: Likewise.
        x_ticks: Where the grid lies on the x axis, if elsewhere than `ticks`.
        note: Below the chart.
    """

    key: str
    title: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    description: str
    guide: str = ""
    guide_label: str = ""
    ticks: tuple[float, ...] = field(default=(0.0, 0.25, 0.5, 0.75, 1.0))
    x_labels: tuple[str, ...] = ()
    y_labels: tuple[str, ...] = ()
    x_ticks: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Whisker:
    """A dot with its interval on a shared axis, all in percent of the axis."""

    low: float
    dot: float
    high: float
    decided: bool = False


def operating_points(result: SystemResult) -> dict[str, dict[str, float]]:
    """Return the rates of a system at each policy, from its confusion matrix.

    Returns:
        By policy: ``fpr``, ``tpr`` and ``precision``; NaN where a denominator is 0.
    """
    points = {}
    for policy, counts in result.confusion.items():
        tp, fp, tn, fn = (counts[key] for key in ("tp", "fp", "tn", "fn"))
        points[policy] = {
            "fpr": _ratio(fp, fp + tn),
            "tpr": _ratio(tp, tp + fn),
            "precision": _ratio(tp, tp + fp),
        }
    return points


def policies_of(comparison: Comparison) -> list[str]:
    """Return every policy that any system has a confusion matrix for, in order."""
    return list(dict.fromkeys(p for each in comparison.systems.values() for p in each.confusion))


def roc_chart(comparison: Comparison) -> Chart:
    """Return the ROC curves with their operating points."""
    series = _series(comparison, "fpr", "tpr")
    figures = _in_words(comparison, "auroc", "AUROC")
    return Chart(
        key="roc",
        title="ROC curve",
        x_title="1 − specificity (false alarms among negatives)",
        y_title="Sensitivity",
        series=series,
        guide=f"M{LEFT:g} {TOP + HEIGHT:g}L{LEFT + WIDTH:g} {TOP:g}",
        guide_label="guessing",
        description=f"ROC curves. {figures}",
    )


def precision_recall_chart(comparison: Comparison) -> Chart:
    """Return the precision-recall curves with their operating points."""
    prevalence = _prevalence(comparison)
    series = _series(comparison, "recall", "precision")
    level = TOP + HEIGHT * (1 - (0.0 if math.isnan(prevalence) else prevalence))
    figures = _in_words(comparison, "average_precision", "Average precision")
    return Chart(
        key="pr",
        title="Precision-recall curve",
        x_title="Sensitivity (recall)",
        y_title="Precision",
        series=series,
        guide=f"M{LEFT:g} {level:.1f}H{LEFT + WIDTH:g}",
        guide_label=f"guessing (prevalence {number(prevalence)})",
        description=f"Precision-recall curves. {figures}",
    )


def whiskers(
    intervals: list[Interval], *, around_zero: bool = False
) -> tuple[list[Whisker | None], tuple[float, float]]:
    """Place intervals on one shared axis.

    Args:
        intervals: The figures.
        around_zero: A symmetric axis for differences; else the axis spans the intervals.

    Returns:
        One whisker per figure (None where it has no interval) and the axis' ends.

    Example:
        >>> placed, axis = whiskers([Interval(0.1, 0.0, 0.2)], around_zero=True)
        >>> placed[0].dot, axis
        (75.0, (-0.2, 0.2))
    """
    ends = [end for each in intervals if each.bounded for end in (each.low, each.high)]
    if not ends:
        return [None] * len(intervals), (0.0, 1.0)
    step = 0.05
    low, high = math.floor(min(ends) / step) * step, math.ceil(max(ends) / step - 1e-9) * step
    if around_zero:
        high = max(abs(low), abs(high), step)
        low = -high
    elif high <= low:
        low, high = low - step, low + step

    def place(value: float) -> float:
        return round((value - low) / (high - low) * 100, 2)

    placed = [
        Whisker(place(each.low), place(each.estimate), place(each.high), each.excludes_zero)
        if each.bounded
        else None
        for each in intervals
    ]
    return placed, (round(low, 4), round(high, 4))


def curve_path(x: npt.ArrayLike, y: npt.ArrayLike) -> str:
    """Return a curve as an SVG path, rounded to a grid so that its size is bounded.

    Args:
        x: In [0, 1], shape ``(N,)``.
        y: In [0, 1], shape ``(N,)``.

    Example:
        >>> curve_path([0, 0, 1], [0, 0.5, 1])
        'M44 276L44 144L328 12'
    """
    points = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    points = np.rint(points[np.isfinite(points).all(axis=1)] * _GRID)
    if not len(points):
        return ""
    keep = np.ones(len(points), dtype=bool)
    keep[1:] = (points[1:] != points[:-1]).any(axis=1)
    # In a row of equal x or equal y only the two ends bend the line.
    points = points[keep]
    same = points[1:] == points[:-1]
    inner = (same[1:] & same[:-1]).any(axis=1)
    points = points[np.concatenate([[True], ~inner, [True]])[: len(points)]] / _GRID
    columns, rows = LEFT + points[:, 0] * WIDTH, TOP + (1 - points[:, 1]) * HEIGHT
    return "M" + "L".join(
        f"{column:.1f} {row:.1f}".replace(".0", "")
        for column, row in zip(columns, rows, strict=True)
    )


def _series(comparison: Comparison, x: str, y: str) -> tuple[Series, ...]:
    policies = policies_of(comparison)
    rate_of = {"fpr": "fpr", "tpr": "tpr", "recall": "tpr", "precision": "precision"}
    series = []
    for position, (name, result) in enumerate(comparison.systems.items()):
        curve = result.curve
        if not curve:
            continue
        points = [
            Point(
                LEFT + rates[rate_of[x]] * WIDTH,
                TOP + (1 - rates[rate_of[y]]) * HEIGHT,
                MARKERS[policies.index(policy) % len(MARKERS)],
                f"{name}, threshold for {policy_words(policy)}",
            )
            for policy, rates in operating_points(result).items()
            if not (math.isnan(rates[rate_of[x]]) or math.isnan(rates[rate_of[y]]))
        ]
        series.append(Series(name, curve_path(curve[x], curve[y]), position, tuple(points)))
    return tuple(series)


def _in_words(comparison: Comparison, metric: str, title: str) -> str:
    parts = []
    for name in comparison.systems:
        figure = find_interval(comparison.metrics, name, metric)
        parts.append(f"{name}: {title} {number(figure.estimate)}")
    return "; ".join(parts) + "."


def _prevalence(comparison: Comparison) -> float:
    labels: pd.Series = comparison.decisions.drop_duplicates("image_id")["label"].dropna()
    return float(labels.mean()) if len(labels) else math.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
