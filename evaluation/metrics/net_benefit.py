"""Net benefit of acting on every risk above a threshold (decision curve analysis)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.evaluation.statistics.arrays import Floats, check_truth_and_scores, is_positive


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
    return float(benefits(truth, probability, threshold).mean())


def benefits(truth: npt.NDArray[np.bool_], probability: Floats, risk: float) -> Floats:
    """Compute the contribution of each image to the net benefit; `net_benefit` is its mean.

    Args:
        truth: True for an image with the finding, shape ``(N,)``.
        probability: Predicted probabilities that the finding is present, in [0, 1], shape ``(N,)``.
        risk: Smallest probability at which a user would act, in (0, 1).

    Returns:
        Contributions, shape ``(N,)``: 1 for a true positive, ``-risk / (1 - risk)`` for a false
        positive, and 0 for an image that is called negative.

    Source:
        Vickers and Elkin 2006.

    Example:
        >>> benefits(np.array([True, False, False]), np.array([0.9, 0.6, 0.1]), 0.5).tolist()
        [1.0, -1.0, 0.0]
    """
    called = is_positive(probability, risk)
    worth = np.where(truth, 1.0, -risk / (1 - risk))
    return np.asarray(np.where(called, worth, 0.0))
