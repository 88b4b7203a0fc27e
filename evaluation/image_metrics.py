"""Figures of images as functions of arrays: the ranking, and decisions at a threshold.

An image is positive if ``score >= threshold``. A figure whose denominator is 0 is None, never 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.metrics import rates
from cxr_compare.evaluation.statistics.arrays import (
    Flags,
    Floats,
    check_truth_and_scores,
    require_one_order,
)
from cxr_compare.evaluation.statistics.ranking import RankedScores


def _checked(y_true: Any, y_score: Any) -> tuple[Flags, Floats]:
    """Return labels and scores as arrays; Series must be in one order."""
    require_one_order(y_true=y_true, y_score=y_score)
    return check_truth_and_scores(y_true, y_score)


def auroc(y_true: Any, y_score: Any) -> float | None:
    """Compute the area under the ROC curve; a pair of images with equal scores counts half.

    Args:
        y_true: Labels of the images, 0 or 1, shape ``(N,)`` or ``(N, 1)``.
        y_score: Scores of the images, higher for a more likely finding, shape ``(N,)`` or
            ``(N, 1)``.

    Returns:
        The area in [0, 1], or None where no image is positive or no image is negative.

    Source:
        Hanley and McNeil 1982.

    Examples:
        >>> from cxr_compare import metrics
        >>> metrics.auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
        0.875
    """
    return _defined(RankedScores(*_checked(y_true, y_score)).auroc()[0])


def average_precision(y_true: Any, y_score: Any) -> float | None:
    """Compute step-wise average precision over images; images with equal scores form one step.

    Args:
        y_true: Labels of the images, 0 or 1, shape ``(N,)`` or ``(N, 1)``.
        y_score: Scores of the images, shape ``(N,)`` or ``(N, 1)``.

    Returns:
        The average precision in [0, 1], or None where no image is positive.

    Examples:
        >>> from cxr_compare import metrics
        >>> round(metrics.average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 3)
        0.833
    """
    ranked = RankedScores(*_checked(y_true, y_score))
    return _defined(ranked.figures()["average_precision"][0])


def confusion_counts(y_true: Any, y_score: Any, threshold: float) -> dict[str, int]:
    """Count true and false positives and negatives of a classifier at a threshold.

    Args:
        y_true: Labels of the images, 0 or 1, shape ``(N,)`` or ``(N, 1)``.
        y_score: Scores of the images, shape ``(N,)`` or ``(N, 1)``.
        threshold: An image is called positive if its score is equal to this value or higher.

    Returns:
        Numbers of images: ``tp``, ``fp``, ``tn`` and ``fn``.

    Examples:
        >>> from cxr_compare import metrics
        >>> metrics.confusion_counts([0, 1, 1], [0.1, 0.5, 0.2], threshold=0.5)
        {'tp': 1, 'fp': 0, 'tn': 1, 'fn': 1}
    """
    truth, scores = _checked(y_true, y_score)
    if np.isnan(float(threshold)):
        raise InputError("threshold: nan is no score; give the score from which on is positive")
    called = scores >= float(threshold)
    return {
        "tp": int((called & truth).sum()),
        "fp": int((called & ~truth).sum()),
        "tn": int((~called & ~truth).sum()),
        "fn": int((~called & truth).sum()),
    }


def classification_metrics(y_true: Any, y_score: Any, threshold: float) -> dict[str, float | None]:
    """Compute accuracy, precision, recall, specificity and others at a threshold.

    Args:
        y_true: Labels of the images, 0 or 1, shape ``(N,)`` or ``(N, 1)``.
        y_score: Scores of the images, shape ``(N,)`` or ``(N, 1)``.
        threshold: An image is called positive if its score is equal to this value or higher.

    Returns:
        Each metric by its short name; None where its denominator is 0.

    Examples:
        >>> from cxr_compare import metrics
        >>> metrics.classification_metrics([0, 1, 1], [0.1, 0.5, 0.2], threshold=0.5)["recall"]
        0.5
    """
    counts = confusion_counts(y_true, y_score, threshold)
    figures = rates({name: np.array(count) for name, count in counts.items()})
    return {name: _defined(value) for name, value in figures.items()}


def _defined(value: np.floating[Any] | Floats) -> float | None:
    return None if np.isnan(value) else float(value)
