"""What became on test of what validation promised: the sign that the two are of different kinds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from evaluation.compare.intervals import find_interval
from evaluation.metrics.image_metrics import classification_metrics
from evaluation.metrics.words import number, policy_words
from evaluation.report.charts import (
    HEIGHT,
    LEFT,
    MARKERS,
    TOP,
    WIDTH,
    Chart,
    Point,
    Series,
    curve_path,
    policies_of,
)
from evaluation.report.grids import Grid, figure_words
from evaluation.statistics.ranking import Floats

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison

_TICKS = (0.01, 0.1, 0.5, 0.9, 0.99)
_LAST = 0.999  # where the axis ends; it begins at 0.001
_REACH = math.log(_LAST / (1 - _LAST))
_STEPS = 400
_RATES = (("recall", "Sensitivity"), ("specificity", "Specificity"), ("accuracy", "Accuracy"))
_OUTSIDE = " ▲"


def transfer_table(comparison: Comparison) -> Grid | None:
    """Return the rates at each frozen threshold on validation and on test; None without any.

    Args:
        comparison: What ``cxr compare`` found.
    """
    rows = []
    for name, result in comparison.systems.items():
        known = result.validation
        if known.empty:
            continue
        for policy in policies_of(comparison):
            threshold = result.thresholds.get(policy)
            if threshold is None:
                continue
            then = classification_metrics(known["label"], known["score"], threshold)
            cells = []
            for metric, _ in _RATES:
                promised = then[metric]
                now = find_interval(comparison.metrics, name, metric, policy)
                held = promised is None or not now.bounded or now.low <= promised <= now.high
                cells += [number(promised), figure_words(now) + ("" if held else _OUTSIDE)]
            rows.append((f"{name}, threshold for {policy_words(policy)}", *cells))
    if not rows:
        return None
    return Grid(
        "From validation to test",
        "Thresholds were chosen on validation and held. ▲: the interval on test does not hold what "
        "validation gave. Some loss is usual, as thresholds fit the images that chose them; much "
        "of it, or loss on one side only, says that the test images are of another kind.",
        ("", *(f"{title} on {role}" for _, title in _RATES for role in ("validation", "test"))),
        tuple(rows),
    )


def transfer_charts(comparison: Comparison) -> list[Chart]:
    """Return, for negatives and for positives, the share called positive at every threshold.

    Args:
        comparison: What ``cxr compare`` found.
    """
    return [_chart(comparison, label) for label in (0.0, 1.0)]


def share_called(scores: Floats, thresholds: Floats) -> Floats:
    """Return the share of scores at or above each threshold.

    Args:
        scores: Shape ``(N,)``.
        thresholds: Shape ``(T,)``.

    Returns:
        Shape ``(T,)``; NaN without scores.

    Example:
        >>> share_called(np.array([0.2, 0.6]), np.array([0.1, 0.2, 0.5, 0.7])).tolist()
        [1.0, 1.0, 0.5, 0.0]
    """
    if not len(scores):
        return np.full(len(thresholds), np.nan)
    return 1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)


def _chart(comparison: Comparison, label: float) -> Chart:
    kind = "positive" if label else "negative"
    axis = np.linspace(0, 1, _STEPS)
    thresholds = 1 / (1 + np.exp(-(2 * axis - 1) * _REACH))
    series, told = [], []
    policies = policies_of(comparison)
    for position, (name, result) in enumerate(comparison.systems.items()):
        known = result.validation
        if known.empty:
            continue
        test = comparison.decisions[comparison.decisions["system"] == name]
        before, after = (
            each.loc[each["label"] == label, "score"].to_numpy(dtype=np.float64)
            for each in (known, test)
        )
        points = []
        for policy in policies:
            cut = result.thresholds.get(policy)
            if cut is None or not len(after):
                continue
            then, now = (float(share_called(s, np.array([cut]))[0]) for s in (before, after))
            words = f"{name}, threshold for {policy_words(policy)}: {number(then)} of the {kind} "
            words += f"images called positive on validation, {number(now)} on test"
            marker = MARKERS[policies.index(policy) % len(MARKERS)]
            place = LEFT + _place(cut) * WIDTH, TOP + (1 - now) * HEIGHT
            points.append(Point(*place, marker, words))
            told.append(words)
        path = curve_path(axis, share_called(before, thresholds))
        series.append(Series(name, path, position, faint=True))
        path = curve_path(axis, share_called(after, thresholds))
        series.append(Series(name, path, position, tuple(points)))
    return Chart(
        key=f"transfer-{kind}",
        title=f"{kind.capitalize()} images called positive, validation and test",
        x_title="Threshold (log-odds scale)",
        y_title="Called positive",
        series=tuple(series),
        description=f"Share of {kind} images called positive at each threshold. {'; '.join(told)}.",
        x_ticks=tuple(_place(tick) for tick in _TICKS),
        x_labels=tuple(f"{tick:g}" for tick in _TICKS),
        note="Thin: validation; thick: test. Where they part, a threshold does not carry over.",
    )


def _place(score: float) -> float:
    """Where a score lies on the axis, in [0, 1]; what is beyond its ends lies on them."""
    inside = min(max(score, 1 - _LAST), _LAST)
    return (math.log(inside / (1 - inside)) / _REACH + 1) / 2
