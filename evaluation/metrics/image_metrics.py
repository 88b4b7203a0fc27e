"""Image-level figures: what is counted at a threshold, and what needs none.

One definition throughout: ``score >= threshold`` is positive. A figure whose denominator is
empty is undefined: `None` in the results here, NaN in arrays of replicates, never 0.
"""

import numpy as np
import numpy.typing as npt

from evaluation.statistics.ranking import Floats, RankedScores, check_truth_and_scores

THRESHOLD_METRICS = (
    "accuracy", "precision", "recall", "specificity", "f1",
    "balanced_accuracy", "mcc", "npv", "lr_positive", "lr_negative",
)  # fmt: skip
RANKING_METRICS = ("auroc", "average_precision")
COUNT_METRICS = ("tp", "fp", "tn", "fn")
UNDEFINED = {
    "accuracy": "there is no image",
    "precision": "no image is called positive",
    "recall": "there is no positive image",
    "specificity": "there is no negative image",
    "f1": "there is no positive image and none is called positive",
    "balanced_accuracy": "there is no positive or no negative image",
    "mcc": "a class is absent, or all images are called alike",
    "npv": "no image is called negative",
    "lr_positive": "no negative image is called positive, or a class is absent",
    "lr_negative": "no negative image is called negative, or a class is absent",
    "auroc": "AUROC needs positive and negative images",
    "average_precision": "there is no positive image",
}
"""Why a figure can be undefined, by its name."""


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
        >>> confusion_counts([0, 1, 1], [0.1, 0.5, 0.2], threshold=0.5)
        {'tp': 1, 'fp': 0, 'tn': 1, 'fn': 1}
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    called = scores >= threshold
    return {
        "tp": int((called & truth).sum()),
        "fp": int((called & ~truth).sum()),
        "tn": int((~called & ~truth).sum()),
        "fn": int((~called & truth).sum()),
    }


def rates(
    tp: npt.ArrayLike, fp: npt.ArrayLike, tn: npt.ArrayLike, fn: npt.ArrayLike
) -> dict[str, Floats]:
    """The figures of `THRESHOLD_METRICS` from counts, any shape.

    Args:
        tp: True positives, whole or weighted counts.
        fp: False positives, same shape.
        tn: True negatives, same shape.
        fn: False negatives, same shape.

    Returns:
        Each figure in that shape; NaN where its denominator is 0, a likelihood ratio also where
        it would be infinite.

    Source:
        Matthews 1975 for ``mcc``; Deeks and Altman 2004 for the likelihood ratios.

    Example:
        >>> found = rates(tp=8, fp=10, tn=90, fn=2)
        >>> [round(float(found[name]), 3) for name in ("recall", "npv", "lr_positive", "mcc")]
        [0.8, 0.978, 8.0, 0.544]
    """
    tp, fp, tn, fn = (np.asarray(count, dtype=np.float64) for count in (tp, fp, tn, fn))
    positive, negative, called, left = tp + fn, tn + fp, tp + fp, tn + fn
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, specificity = tp / positive, tn / negative
        rises, falls = tp * negative / (fp * positive), fn * negative / (tn * positive)
        return {
            "accuracy": (tp + tn) / (positive + negative),
            "precision": tp / called,
            "recall": recall,
            "specificity": specificity,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "balanced_accuracy": (recall + specificity) / 2,
            # Roots before the product: four counts of a large set overflow nothing then.
            "mcc": (tp * tn - fp * fn)
            / (np.sqrt(positive) * np.sqrt(negative) * np.sqrt(called) * np.sqrt(left)),
            "npv": tn / left,
            "lr_positive": np.where(np.isinf(rises), np.nan, rises),
            "lr_negative": np.where(np.isinf(falls), np.nan, falls),
        }


def auroc(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> float | None:
    """Area under the ROC curve: how often a positive image outscores a negative one.

    A tie between the two counts half.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Scores, shape ``(N,)``.

    Returns:
        The area in [0, 1], or `None` where one of the classes is absent.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Example:
        >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
        0.875
        >>> auroc([1, 1], [0.1, 0.4]) is None
        True
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
        >>> round(image_average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 3)
        0.833
    """
    return _defined(RankedScores(y_true, y_score).average_precision()[0])


def classification_metrics(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float | None = None
) -> dict[str, float | None]:
    """All image-level figures of one system.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Scores, shape ``(N,)``.
        threshold: Where given, the figures that need one are there too.

    Returns:
        Figures by their short names, `None` where undefined (`UNDEFINED` says why).

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Example:
        >>> figures = classification_metrics([0, 1, 1], [0.1, 0.5, 0.2], threshold=0.5)
        >>> figures["auroc"], figures["precision"], figures["recall"]
        (1.0, 1.0, 0.5)
    """
    ranked = RankedScores(y_true, y_score)
    figures = {
        "auroc": _defined(ranked.auroc()[0]),
        "average_precision": _defined(ranked.average_precision()[0]),
    }
    if threshold is None:
        return figures
    at_threshold = rates(**confusion_counts(y_true, y_score, threshold))
    return figures | {name: _defined(rate) for name, rate in at_threshold.items()}


def _defined(figure: float | Floats) -> float | None:
    return None if np.isnan(figure) else float(figure)
