"""A probability from a score: Platt scaling, learned on validation."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.tables import InputError
from evaluation.ranking import Floats, Integers, check_truth_and_scores

CLIP = 1e-4
"""Scores are held inside [CLIP, 1 - CLIP] before their logit is taken."""
_STEPS = 100
_TOLERANCE = 1e-10


def clipped_logit(scores: npt.ArrayLike) -> Floats:
    """Log-odds of scores, held inside [`CLIP`, 1 - `CLIP`].

    Args:
        scores: In [0, 1], shape ``(N,)``.

    Returns:
        Shape ``(N,)``.

    Example:
        >>> clipped_logit([0.5, 0.0]).round(2).tolist()
        [0.0, -9.21]
    """
    held = np.clip(np.asarray(scores, dtype=np.float64), CLIP, 1 - CLIP)
    return np.asarray(np.log(held) - np.log1p(-held))


@dataclass(frozen=True)
class PlattScaling:
    """``probability = sigmoid(slope * logit(score) + intercept)``.

    Attributes:
        slope: On the logit of the clipped score.
        intercept: Likewise.
    """

    slope: float
    intercept: float

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """The calibrated probability of the positive class, shape as `scores`.

        Example:
            >>> PlattScaling(slope=1.0, intercept=0.0).probability([0.25]).round(6).tolist()
            [0.25]
        """
        return _sigmoid(self.slope * clipped_logit(scores) + self.intercept)


def fit_platt(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> PlattScaling | None:
    """Learn Platt scaling; the labels are smoothed as Platt does, so it always exists.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Scores in [0, 1], shape ``(N,)``.

    Returns:
        The scaling, or `None` where one of the classes is absent.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Source:
        Platt 1999; the damped Newton method is that of Lin, Lin and Weng 2007.

    Example:
        >>> scaling = fit_platt([0, 0, 1, 1] * 50, [0.2, 0.4, 0.6, 0.8] * 50)
        >>> bool(scaling.probability([0.8])[0] > 0.95)
        True
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    n_positive, n_negative = int(truth.sum()), int((~truth).sum())
    if not n_positive or not n_negative:
        return None
    wanted = np.where(truth, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    design = np.column_stack([clipped_logit(scores), np.ones(len(scores))])
    weights = np.array([0.0, np.log((n_positive + 1) / (n_negative + 1))])
    loss = _loss(design @ weights, wanted)
    for _ in range(_STEPS):
        fitted = _sigmoid(design @ weights)
        gradient = design.T @ (fitted - wanted)
        curvature = (design * (fitted * (1 - fitted))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > _TOLERANCE and _loss(design @ (weights - size * step), wanted) > loss:
            size /= 2
        weights = weights - size * step
        loss = _loss(design @ weights, wanted)
        if np.abs(gradient).max() < _TOLERANCE * len(scores):
            break
    return PlattScaling(float(weights[0]), float(weights[1]))


AS_IT_IS = PlattScaling(slope=1.0, intercept=0.0)
"""The score itself, held inside [`CLIP`, 1 - `CLIP`], as the probability."""


def choose_calibration(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, folds: Integers
) -> tuple[PlattScaling, dict[str, float]]:
    """Choose between the score as it is and Platt scaling, by the log loss of held-out folds.

    Args:
        y_true: Labels, 0 or 1, both present, shape ``(N,)``.
        y_score: Scores in [0, 1], shape ``(N,)``.
        folds: Fold of each image, shape ``(N,)``.

    Returns:
        The scaling, learned on all images, and the mean log loss of either choice.

    Raises:
        InputError: Labels or scores are not one valid value per image, or one class is absent.

    Example:
        >>> wrong_way = [0.9, 0.8, 0.2, 0.1] * 10
        >>> choose_calibration([0, 0, 1, 1] * 10, wrong_way, np.arange(40) // 20)[0].slope < 0
        True
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    whole = fit_platt(truth, scores)
    if whole is None:
        raise InputError("calibration needs positive and negative images")
    losses = {"as_it_is": 0.0, "platt": 0.0}
    for fold in np.unique(folds):
        held, learned = folds == fold, fit_platt(truth[folds != fold], scores[folds != fold])
        for name, scaling in (("as_it_is", AS_IT_IS), ("platt", learned or AS_IT_IS)):
            logits = scaling.slope * clipped_logit(scores[held]) + scaling.intercept
            losses[name] += _loss(logits, truth[held].astype(np.float64)) / len(truth)
    return (whole if losses["platt"] < losses["as_it_is"] else AS_IT_IS), losses


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))


def _loss(logits: Floats, wanted: Floats) -> float:
    return float((np.logaddexp(0, logits) - wanted * logits).sum())
