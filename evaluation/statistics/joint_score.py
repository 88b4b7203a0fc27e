"""Joint image score of several systems: a logistic regression on the logits of their scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.calibration import clipped_logit
from cxr_compare.evaluation.statistics.folds import patient_folds
from cxr_compare.evaluation.statistics.logistic_regression import fit_logistic, sigmoid

_PENALTY = 0.1
"""Ridge penalty of the standardised logits (``C=10`` in scikit-learn).

It is too weak to matter where the classes overlap, and keeps the weights finite where they do not.
"""


@dataclass(frozen=True)
class JointScore:
    """Joint score ``sigmoid(intercept + sum(weight * logit(score)))`` of M systems.

    Scores are limited to [0.0001, 0.9999] before the logit (`clipped_logit`), so that 0, the score
    of an image without a box, and 1 have one.

    Attributes:
        intercept: Constant of the log-odds.
        weights: Weight of each system's logit, in the order of the systems.

    Example:
        >>> JointScore(0.0, (1.0, 0.0)).probability(np.array([[0.25, 0.9]])).round(6).tolist()
        [0.25]
    """

    intercept: float
    weights: tuple[float, ...]

    def probability(self, scores: Floats) -> Floats:
        """Compute the joint score of images from the scores of all systems.

        Args:
            scores: Image scores in [0, 1], shape ``(N, M)``.

        Returns:
            Joint scores in [0, 1], shape ``(N,)``.
        """
        logits = np.full(len(scores), self.intercept)
        for weight, column in zip(self.weights, np.asarray(scores).T, strict=True):
            # Summed column by column, so that one image alone gets the same digits as many.
            logits = logits + weight * clipped_logit(column)
        return sigmoid(logits)


def fit_joint_score(y_true: npt.NDArray[np.bool_], scores: Floats) -> JointScore:
    """Fit the weights of systems on images that none of them learned from.

    Args:
        y_true: True for positive images, shape ``(N,)``.
        scores: Image scores of M systems in [0, 1], shape ``(N, M)``.

    Returns:
        The joint score. A system whose scores are all equal has weight 0.

    Source:
        Stacking: Wolpert 1992.

    Example:
        >>> y_true = np.arange(8) % 2 == 0
        >>> fit_joint_score(y_true, np.where(y_true, 0.7, 0.3)[:, None]).weights[0] > 0
        True
    """
    logits = clipped_logit(scores)  # (N, M)
    mean = logits.mean(axis=0)
    spread = logits.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(logits)), (logits - mean) / spread])  # (N, 1 + M)
    ridge = np.append(0.0, np.full(logits.shape[1], _PENALTY))
    sums = (np.asarray(y_true, np.float64) @ design)[None]
    fit = fit_logistic(design, np.ones((1, len(design))), sums, ridge=ridge)
    weights = fit.coefficients[0, 1:] / spread
    return JointScore(float(fit.coefficients[0, 0] - weights @ mean), tuple(weights.tolist()))


def cross_fitted_scores(
    y_true: npt.NDArray[np.bool_], scores: Floats, patients: npt.NDArray[np.str_]
) -> Floats:
    """Compute joint scores of images with weights that were fitted on other patients.

    A threshold that is chosen on these scores is not too optimistic, as it would be on scores whose
    weights were fitted on the same images.

    Args:
        y_true: True for positive images, shape ``(N,)``.
        scores: Image scores of M systems in [0, 1], shape ``(N, M)``.
        patients: Patient of each image, shape ``(N,)``.

    Returns:
        Joint scores in [0, 1], shape ``(N,)``.

    Raises:
        InputError: Fewer than two patients have a positive image, or fewer than two have none.

    Example:
        >>> y_true = np.arange(8) % 2 == 0
        >>> names = np.arange(8).astype(str)
        >>> cross_fitted_scores(y_true, np.where(y_true, 0.7, 0.3)[:, None], names).shape
        (8,)
    """
    folds = patient_folds(patients, y_true)
    joint = np.empty(len(y_true))
    for fold in np.unique(folds):
        held_out = folds == fold
        fit = fit_joint_score(y_true[~held_out], scores[~held_out])
        joint[held_out] = fit.probability(scores[held_out])
    return joint
