"""Image-level figures: what is counted at a threshold, ranking, and calibration error.

One definition throughout: ``score >= threshold`` is positive. A figure whose denominator is
empty is undefined: `None` in the results here, NaN in arrays of replicates, never 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.metrics.metric import Counts
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.arrays import Floats, check_truth_and_scores, is_positive
from cxr_compare.evaluation.statistics.ranking import RankedScores


def confusion_counts(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float
) -> dict[str, int]:
    """Count true and false decisions at a threshold.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Scores, shape ``(N,)``.
        threshold: A score equal to it is called positive.

    Returns:
        ``tp``, ``fp``, ``tn``, ``fn``.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Example:
        >>> from cxr_compare import metrics
        >>> metrics.confusion_counts([0, 1, 1], [0.1, 0.5, 0.2], threshold=0.5)
        {'tp': 1, 'fp': 0, 'tn': 1, 'fn': 1}
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    called = is_positive(scores, threshold)
    return {
        "tp": int((called & truth).sum()),
        "fp": int((called & ~truth).sum()),
        "tn": int((~called & ~truth).sum()),
        "fn": int((~called & truth).sum()),
    }


def rates(
    tp: npt.ArrayLike, fp: npt.ArrayLike, tn: npt.ArrayLike, fn: npt.ArrayLike
) -> dict[str, Floats]:
    """The figures of every metric with a formula from counts, any shape.

    Returns each figure in that shape; NaN where its denominator is 0, so also where a likelihood
    ratio would be infinite.

    Source:
        Matthews 1975 for ``mcc``; Deeks and Altman 2004 for the likelihood ratios.
    """
    counts = Counts(*(np.asarray(count, dtype=np.float64) for count in (tp, fp, tn, fn)))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            metric.name: np.asarray(metric.formula(counts))
            for metric in METRICS.values()
            if metric.formula is not None
        }
    return {name: np.where(np.isinf(value), np.nan, value) for name, value in values.items()}


def auroc(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> float | None:
    """Area under the ROC curve: how often a positive image outscores a negative one.

    A tie between the two counts half.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Scores, shape ``(N,)``.

    Returns:
        The area in [0, 1], or `None` where one of the classes is absent; `cxr_compare.metrics` then
        warns of it.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Example:
        >>> from cxr_compare import metrics
        >>> metrics.auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
        0.875
    """
    return _defined(RankedScores(y_true, y_score).auroc()[0])


def image_average_precision(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> float | None:
    """Step-wise average precision over images, tied scores together (no interpolation).

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Scores, shape ``(N,)``.

    Returns:
        The average precision in [0, 1], or `None` where there is no positive image.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Example:
        >>> from cxr_compare import metrics
        >>> round(metrics.average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 3)
        0.833
    """
    return _defined(RankedScores(y_true, y_score).figures()["average_precision"][0])


def classification_metrics(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float | None = None
) -> dict[str, float | None]:
    """All image-level figures of one system.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Scores, shape ``(N,)``.
        threshold: Where given, the figures that need one are there too.

    Returns:
        Figures by their short names, `None` where undefined; `cxr_compare.metrics` then warns with
        the reason.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Example:
        >>> from cxr_compare import metrics
        >>> truth, scores = [0, 0, 1, 1], [0.1, 0.6, 0.7, 0.2]
        >>> figures = metrics.classification_metrics(truth, scores, threshold=0.5)
        >>> figures["auroc"], figures["precision"], figures["recall"]
        (0.75, 0.5, 0.5)
    """
    of_ranking = RankedScores(y_true, y_score).figures()
    figures = {name: _defined(figure[0]) for name, figure in of_ranking.items()}
    if threshold is None:
        return figures
    at_threshold = rates(**confusion_counts(y_true, y_score, threshold))
    return figures | {name: _defined(rate) for name, rate in at_threshold.items()}


def _defined(figure: float | Floats) -> float | None:
    return None if np.isnan(figure) else float(figure)
