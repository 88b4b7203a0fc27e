"""Joint image score of several systems: a logistic regression on the logits of their scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.calibration import clipped_logit
from cxr_compare.evaluation.statistics.folds import patient_folds
from cxr_compare.evaluation.statistics.logistic_regression import fit_logistic, sigmoid

METHOD = "logistic regression"
"""Name of the method in the record of a joint system."""
_PENALTY = 0.1
"""Ridge penalty of the standardised logits (``C=10`` in scikit-learn).

It is too weak to matter where the classes overlap, and keeps the weights finite where they do not.
"""


@dataclass(frozen=True)
class JointScore:
    """Joint score: log-odds that are a sum of one term for each of M systems.

    The term of a system is ``weight * logit(score)`` with scores limited to [0.0001, 0.9999]
    (`clipped_logit`). A score of exactly 0, that of an image without a box, is a statement of its
    own: its term is ``at_zero``, so images without a box do not bend the weight of all others.

    Attributes:
        intercept: Constant of the log-odds.
        weights: Weight of each system's logit, in the order of the systems.
        at_zero: Term of each system for a score of 0.

    Example:
        >>> joint = JointScore(0.0, (1.0, 0.0), (-3.0, 0.0))
        >>> joint.probability(np.array([[0.25, 0.9], [0.0, 0.9]])).round(3).tolist()
        [0.25, 0.047]
    """

    intercept: float
    weights: tuple[float, ...]
    at_zero: tuple[float, ...]

    def probability(self, scores: Floats) -> Floats:
        """Compute joint scores in [0, 1], ``(N,)``, from the scores of all systems, ``(N, M)``."""
        logits = np.full(len(scores), self.intercept)
        columns = np.asarray(scores, dtype=np.float64).T
        for weight, at_zero, column in zip(self.weights, self.at_zero, columns, strict=True):
            # Summed column by column, so that one image alone gets the same digits as many.
            logits = logits + np.where(column == 0, at_zero, weight * clipped_logit(column))
        return sigmoid(logits)


def fit_joint_score(y_true: npt.NDArray[np.bool_], scores: Floats) -> JointScore:
    """Fit the weights of M systems on images, ``(N, M)``, that none of them learned from.

    A system whose scores are all equal has weight 0.

    Source:
        Stacking: Wolpert 1992.
    """
    scores = np.asarray(scores, dtype=np.float64)
    n_systems = scores.shape[1]
    is_zero = scores == 0  # (N, M)
    lowest = np.where(is_zero, 1.0, scores).min(axis=0)  # (M,) of the scores above 0
    logits = clipped_logit(np.where(is_zero, lowest, scores))
    variables = np.hstack([logits, is_zero])  # (N, 2 M)
    mean = variables.mean(axis=0)
    spread = variables.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(logits)), (variables - mean) / spread])
    ridge = np.append(0.0, np.full(2 * n_systems, _PENALTY))
    sums = (np.asarray(y_true, np.float64) @ design)[None]
    fit = fit_logistic(design, np.ones((1, len(design))), sums, ridge=ridge)
    slopes = fit.coefficients[0, 1:] / spread
    weights = slopes[:n_systems]
    at_zero = weights * clipped_logit(lowest) + slopes[n_systems:]
    intercept = float(fit.coefficients[0, 0] - slopes @ mean)
    return JointScore(intercept, tuple(weights.tolist()), tuple(at_zero.tolist()))


def cross_fitted_scores(
    y_true: npt.NDArray[np.bool_], scores: Floats, patients: npt.NDArray[np.str_]
) -> Floats:
    """Compute joint scores of images with weights that were fitted on other patients, ``(N,)``.

    A threshold that is chosen on these scores is not too optimistic, as it would be on scores whose
    weights were fitted on the same images. InputError if fewer than two patients have a positive
    image, or fewer than two have none.
    """
    folds = patient_folds(patients, y_true)
    joint = np.empty(len(y_true))
    for fold in np.unique(folds):
        held_out = folds == fold
        fit = fit_joint_score(y_true[~held_out], scores[~held_out])
        joint[held_out] = fit.probability(scores[held_out])
    return joint
