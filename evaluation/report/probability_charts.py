"""Charts beside ROC and precision-recall: what the probabilities promise and what came of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evaluation.compare.intervals import find_interval
from evaluation.metrics.words import number, policy_words
from evaluation.report.charts import (
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    Chart,
    Point,
    Series,
    curve_path,
    precision_recall_chart,
    roc_chart,
)
from evaluation.report.place_charts import froc_charts

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison


def all_charts(comparison: Comparison) -> list[Chart]:
    """Return every chart of the report, in reading order; one without a line has no series."""
    return [
        roc_chart(comparison),
        precision_recall_chart(comparison),
        *froc_charts(comparison),
        calibration_chart(comparison),
        coverage_chart(comparison),
    ]


def calibration_chart(comparison: Comparison) -> Chart:
    """Return what became of each tenth of the probabilities: expected against observed share."""
    series = []
    decisions = comparison.decisions
    for position, name in enumerate(comparison.systems):
        mine = decisions[decisions["system"] == name]
        if "probability" not in mine:
            continue
        known = mine.dropna(subset=["label", "probability"])
        expected, observed = observed_shares(
            known["label"], known["probability"], groups=min(10, max(2, len(known) // 25))
        )
        points = tuple(
            Point(
                round(LEFT + x * WIDTH, 1),
                round(TOP + (1 - y) * HEIGHT, 1),
                "dot",
                f"{name}: expected {number(x)}, observed {number(y)}",
            )
            for x, y in zip(expected, observed, strict=True)
        )
        if points:
            path = curve_path(expected, observed)
            series.append(Series(name, path, position, points))
    return Chart(
        key="calibration",
        title="Calibration",
        x_title="Expected share of positives",
        y_title="Observed share",
        series=tuple(series),
        guide=f"M{LEFT:g} {TOP + HEIGHT:g}L{LEFT + WIDTH:g} {TOP:g}",
        guide_label="probabilities that hold; each point is an equal share of the images",
        description="Calibration curves of the probabilities that validation gave the scores.",
    )


def coverage_chart(comparison: Comparison) -> Chart:
    """Return the accuracy of the surest images against how many of them are decided.

    Only where images are referred to a reader: see ``cxr tune --refer``.
    """
    policies = list(dict.fromkeys(p for each in comparison.systems.values() for p in each.coverage))
    policy = "max_f1" if "max_f1" in policies else next(iter(policies), "")
    series = []
    for position, (name, result) in enumerate(comparison.systems.items()):
        curve = result.coverage.get(policy)
        if curve is None:
            continue
        x, y = (
            find_interval(comparison.metrics, name, metric, policy).estimate
            for metric in ("coverage", "accuracy_covered")
        )
        chosen = Point(
            round(LEFT + x * WIDTH, 1),
            round(TOP + (1 - y) * HEIGHT, 1),
            "circle",
            f"{name}: {number(x)} decided, {number(y)} of them right",
        )
        known = not (math.isnan(x) or math.isnan(y))
        path = curve_path(curve["coverage"], curve["accuracy"])
        series.append(Series(name, path, position, (chosen,) if known else ()))
    labels = comparison.decisions.drop_duplicates("image_id")["label"].dropna()
    most = max(labels.mean(), 1 - labels.mean()) if len(labels) else 0.5
    return Chart(
        key="coverage",
        title=f"Accuracy and coverage, threshold for {policy_words(policy)}",
        x_title="Coverage (share of images not referred)",
        y_title="Accuracy of those",
        series=tuple(series),
        guide=f"M{LEFT:g} {TOP + HEIGHT * (1 - most):.1f}H{LEFT + WIDTH:g}",
        guide_label=f"calling all images alike ({number(most)})",
        description="Accuracy of the decided images as more of the doubtful ones are referred.",
    )


def observed_shares(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, groups: int = 10
) -> tuple[list[float], list[float]]:
    """Return mean probability and share of positives in groups of like probability.

    Args:
        labels: 1 or 0, shape ``(N,)``.
        probabilities: Of being positive, shape ``(N,)``; equal ones fall in one group.
        groups: At most; cut at the quantiles.

    Example:
        >>> observed_shares([0, 1, 1, 1], [0.1, 0.1, 0.8, 0.9], groups=2)
        ([0.1, 0.85], [0.5, 1.0])
    """
    truth, chance = np.asarray(labels, dtype=float), np.asarray(probabilities, dtype=float)
    if not len(chance):
        return [], []
    cuts = np.unique(np.quantile(chance, np.arange(1, groups) / groups, method="lower"))
    group = np.searchsorted(cuts, chance, side="left")
    sizes = np.bincount(group)
    used = sizes > 0
    expected = np.bincount(group, weights=chance)[used] / sizes[used]
    observed = np.bincount(group, weights=truth)[used] / sizes[used]
    return expected.round(4).tolist(), observed.round(4).tolist()
