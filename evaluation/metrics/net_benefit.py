"""Net benefit of acting on every risk above a threshold (decision curve analysis)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.evaluation.statistics.arrays import Floats, check_truth_and_scores, is_positive

RISKS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Threshold risks of the decision curve: risks of disease from which a user would act."""


@with_known_keywords
def net_benefit(y_true: npt.ArrayLike, y_score: npt.ArrayLike, threshold: float) -> float:
    """Compute the net benefit per image: true positives minus weighted false positives.

    A false positive has as weight the odds of the threshold, ``threshold / (1 - threshold)``. An
    image is called positive if its probability is equal to the threshold or higher.

    Args:
        y_true: Labels of the images, 0 (finding absent) or 1 (present), shape ``(N,)``.
        y_score: Predicted probabilities that the finding is present, in [0, 1], shape ``(N,)``.
        threshold: Smallest risk at which a user would act, in (0, 1).

    Returns:
        The net benefit, at most the prevalence (the share of images with label 1); it may be
        negative.

    Raises:
        InputError: A label is neither 0 nor 1, a probability is outside [0, 1], or the threshold is
            outside (0, 1).

    Source:
        Vickers and Elkin 2006, on decision curve analysis.

    Example:
        >>> from cxr_compare import metrics
        >>> metrics.net_benefit([1, 0, 0, 1], [0.9, 0.6, 0.1, 0.2], 0.5)
        0.0
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold={threshold}: a risk lies between 0 and 1")
    truth, probability = check_truth_and_scores(y_true, y_score)
    is_wrong = ~((probability >= 0) & (probability <= 1))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise InputError(
            f"y_score: row {row}: {probability[row]} is no probability in [0, 1]; are these "
            "logits? Apply a sigmoid, 1 / (1 + exp(-score))"
        )
    return _net_benefit(truth, probability, threshold)


def decision_curve(y_true: npt.ArrayLike, probability: npt.ArrayLike) -> Floats:
    """Compute the net benefit at each of `RISKS`.

    Source:
        Vickers and Elkin 2006.

    Example:
        >>> decision_curve([True, False], [0.9, 0.01])[[0, -1]].round(3).tolist()
        [0.495, 0.5]
    """
    truth = np.asarray(y_true, dtype=bool)
    scores = np.asarray(probability, dtype=np.float64)
    return np.array([_net_benefit(truth, scores, risk) for risk in RISKS])


def _net_benefit(truth: npt.NDArray[np.bool_], probability: Floats, risk: float) -> float:
    worth = np.where(truth, 1.0, -risk / (1 - risk))
    return float(np.where(is_positive(probability, risk), worth, 0.0).mean())
