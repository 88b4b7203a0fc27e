"""FROC: lesions found against false marks, on the field's logarithmic scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from evaluation.boxes.froc import FROC_RATES, RATE_WORDS, Hit
from evaluation.metrics.words import number
from evaluation.report.charts import HEIGHT, LEFT, TOP, WIDTH, Chart, Point, Series, curve_path

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison
    from evaluation.statistics.ranking import Floats

_LOW, _HIGH = math.log2(FROC_RATES[0]), math.log2(FROC_RATES[-1])
_TITLES: dict[Hit, str] = {
    "iou": "FROC curve, a mark hits by overlap",
    "centre": "FROC curve, a mark hits by its centre",
}
_HITS: dict[Hit, str] = {
    "iou": "A mark hits with an intersection over union of at least 0.2.",
    "centre": "A mark hits with its centre on the lesion, borders included.",
}


def froc_charts(comparison: Comparison) -> list[Chart]:
    """Return the FROC curves of all systems with boxes, one chart for each kind of hit."""
    return [froc_chart(comparison, hit) for hit in _TITLES]


def froc_chart(comparison: Comparison, hit: Hit) -> Chart:
    """Return the FROC curves for one kind of hit; no series where no system has boxes.

    Args:
        comparison: What ``cxr compare`` found.
        hit: What finds a lesion.
    """
    series, told = [], []
    for position, (name, result) in enumerate(comparison.systems.items()):
        curve = result.froc.get(hit)
        if curve is None or not len(curve["sensitivity"]):
            continue
        found = sensitivity_at(curve)
        points = tuple(
            Point(
                round(LEFT + _place(rate) * WIDTH, 1),
                round(TOP + (1 - y) * HEIGHT, 1),
                "dot",
                f"{name}: sensitivity {number(y)} at {words} false marks an image",
            )
            for rate, words, y in zip(FROC_RATES, RATE_WORDS, found, strict=True)
        )
        series.append(Series(name, _steps(curve), position, points))
        at = ", ".join(f"{number(y)} at {w}" for w, y in zip(RATE_WORDS, found, strict=True))
        told.append(f"{name}: sensitivity {at} false marks an image")
    return Chart(
        key=f"froc-{hit}",
        title=_TITLES[hit],
        x_title="False marks an image (logarithmic)",
        y_title="Lesions found",
        series=tuple(series),
        description=f"FROC curves. {_HITS[hit]} {'; '.join(told)}.",
        x_ticks=tuple(_place(rate) for rate in FROC_RATES),
        x_labels=RATE_WORDS,
        note=f"{_HITS[hit]} Points stand at the rates that the mean is taken over.",
    )


def sensitivity_at(curve: dict[str, Floats]) -> list[float]:
    """Return the sensitivity at each of `FROC_RATES`, by the step rule.

    Args:
        curve: From `evaluation.boxes.froc.froc_curve`.

    Example:
        >>> sensitivity_at({"false_marks": np.array([0, 0.5, 3]),
        ...                 "sensitivity": np.array([0, 0.4, 0.6])})
        [0.0, 0.0, 0.4, 0.4, 0.4, 0.6, 0.6]
    """
    last = np.searchsorted(curve["false_marks"], FROC_RATES, side="right") - 1
    return [float(each) for each in curve["sensitivity"][last]]


def _place(rate: float) -> float:
    """Where a rate lies on the axis, in [0, 1]."""
    return (math.log2(rate) - _LOW) / (_HIGH - _LOW)


def steps(curve: dict[str, Floats]) -> tuple[Floats, Floats]:
    """Return where each level of a curve begins, on the rates that figures are given at.

    Args:
        curve: From `evaluation.boxes.froc.froc_curve`.

    Returns:
        Rates from 1/8 to 8 and the sensitivity from each on; the last level ends at 8.

    Example:
        >>> rates, level = steps({"false_marks": np.array([0, 0.5, 9]),
        ...                       "sensitivity": np.array([0, 0.4, 0.6])})
        >>> rates.tolist(), level.tolist()
        ([0.125, 0.5, 8.0], [0.0, 0.4, 0.4])
    """
    marks, found = curve["false_marks"], curve["sensitivity"]
    inside = (marks > FROC_RATES[0]) & (marks <= FROC_RATES[-1])
    at = sensitivity_at(curve)
    rates = np.concatenate([[FROC_RATES[0]], marks[inside], [FROC_RATES[-1]]])
    return rates, np.concatenate([[at[0]], found[inside], [at[-1]]])


def _steps(curve: dict[str, Floats]) -> str:
    """The curve as steps: level up to the rate at which a further lesion is found."""
    rates, level = steps(curve)
    x = (np.log2(rates) - _LOW) / (_HIGH - _LOW)
    return curve_path(np.repeat(x, 2)[1:], np.repeat(level, 2)[:-1])
