"""Image-level figures at a threshold and of the ranking.

An image is positive if ``score >= threshold``. A figure whose denominator is 0 is undefined: it is
None in the results here and NaN in arrays of replicates, and never 0.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.evaluation.metrics.metric import Counts
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.arrays import Floats, check_truth_and_scores, is_positive
from cxr_compare.evaluation.statistics.ranking import RankedScores


@with_known_keywords
def confusion_counts(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float
) -> dict[str, int]:
    """Count true and false positives and negatives of a classifier at a threshold.

    Args:
        y_true: Labels of the images, 0 (finding absent) or 1 (present), shape ``(N,)``.
        y_score: Scores of the images, higher for a more likely finding, shape ``(N,)``.
        threshold: An image is called positive if its score is equal to this value or higher.

    Returns:
        Numbers of images: ``tp`` (label 1, called positive), ``fp`` (label 0, called positive),
        ``tn`` (label 0, called negative) and ``fn`` (label 1, called negative).

    Raises:
        InputError: Labels or scores are not one valid value per image, or the threshold is NaN.

    Example:
        >>> from cxr_compare import metrics
        >>> metrics.confusion_counts([0, 1, 1], [0.1, 0.5, 0.2], threshold=0.5)
        {'tp': 1, 'fp': 0, 'tn': 1, 'fn': 1}
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    threshold = float(threshold)
    if np.isnan(threshold):
        raise InputError("threshold: nan is no score; give the score from which on is positive")
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
    """Compute every metric that follows from the four counts of a confusion matrix.

    The counts are numbers or arrays of one shape. A value is NaN where its denominator is 0, and
    therefore also where a likelihood ratio would be infinite.

    Source:
        Matthews 1975 for ``mcc``; Deeks and Altman 2004 for the likelihood ratios.

    Example:
        >>> figures = rates(tp=8, fp=3, tn=27, fn=2)
        >>> float(figures["recall"]), float(figures["specificity"])
        (0.8, 0.9)
    """
    counts = Counts(*(np.asarray(count, dtype=np.float64) for count in (tp, fp, tn, fn)))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            metric.name: np.asarray(metric.formula(counts))
            for metric in METRICS.values()
            if metric.formula is not None
        }
    return {name: np.where(np.isinf(value), np.nan, value) for name, value in values.items()}


@with_known_keywords
def auroc(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> float | None:
    """Compute the area under the ROC curve: how often a positive image outscores a negative image.

    A pair of images with equal scores counts half.

    Args:
        y_true: Labels of the images, 0 (finding absent) or 1 (present), shape ``(N,)``.
        y_score: Scores of the images, higher for a more likely finding, shape ``(N,)``.

    Returns:
        The area in [0, 1], or None where no image is positive or no image is negative. Called as
        ``cxr_compare.metrics.auroc``, the function then also gives a warning.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Source:
        Hanley and McNeil 1982.

    Example:
        >>> from cxr_compare import metrics
        >>> metrics.auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
        0.875
    """
    return _defined(RankedScores(y_true, y_score).auroc()[0])


@partial(with_known_keywords, name="average_precision")
def image_average_precision(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> float | None:
    """Compute step-wise average precision over images; images with equal scores form one step.

    The precision-recall curve is not interpolated.

    Args:
        y_true: Labels of the images, 0 (finding absent) or 1 (present), shape ``(N,)``.
        y_score: Scores of the images, higher for a more likely finding, shape ``(N,)``.

    Returns:
        The average precision in [0, 1], or None where no image is positive.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Source:
        The definition of ``average_precision_score`` in scikit-learn.

    Example:
        >>> from cxr_compare import metrics
        >>> round(metrics.average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 3)
        0.833
    """
    return _defined(RankedScores(y_true, y_score).figures()["average_precision"][0])


@with_known_keywords
def classification_metrics(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float | None = None
) -> dict[str, float | None]:
    """Compute all image-level metrics of one classifier or detector from its image scores.

    Args:
        y_true: Labels of the images, 0 (finding absent) or 1 (present), shape ``(N,)``.
        y_score: Scores of the images, higher for a more likely finding, shape ``(N,)``.
        threshold: An image is called positive from this score on; used for sensitivity, precision
            and the other metrics of a decision. None: only the metrics without a threshold (AUROC
            and average precision) are computed.

    Returns:
        Values by short name of the metric, such as ``auroc`` or ``recall``; None where the metric
        is undefined. Called as ``cxr_compare.metrics.classification_metrics``, the function then
        also gives a warning with the reason.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Example:
        >>> from cxr_compare import metrics
        >>> truth, scores = [0, 0, 1, 1], [0.1, 0.6, 0.7, 0.2]
        >>> figures = metrics.classification_metrics(truth, scores, threshold=0.5)
        >>> figures["auroc"], figures["precision"], figures["recall"]
        (0.75, 0.5, 0.5)
    """
    ranking = RankedScores(y_true, y_score).figures()
    figures = {name: _defined(figure[0]) for name, figure in ranking.items()}
    if threshold is None:
        return figures
    at_threshold = rates(**confusion_counts(y_true, y_score, threshold))
    return figures | {name: _defined(rate) for name, rate in at_threshold.items()}


def _defined(figure: float | Floats) -> float | None:
    return None if np.isnan(figure) else float(figure)
