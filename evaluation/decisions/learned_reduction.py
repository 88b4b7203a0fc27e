"""A learned rule from boxes to an image score: logistic regression on top scores and counts.

It is fitted on validation images, so their own scores come from a rule that did not learn from
their patients: each fold is scored as the other folds taught it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.tables import InputError
from evaluation.decisions.reduction import (
    COUNT_FLOORS,
    TOP_K,
    Reduction,
    box_features,
    reduce_boxes,
)
from evaluation.statistics.ranking import Floats, Integers

_STRENGTH = 1.0  # of the ridge penalty on standardised features, as scikit-learn's default


def fit_learned(features: Floats, y_true: npt.NDArray[np.bool_]) -> Reduction:
    """Fit the rule.

    Args:
        features: From `evaluation.decisions.reduction.box_features`, shape ``(N, F)``.
        y_true: Shape ``(N,)``; both classes.

    Returns:
        The rule with its weights for features as they are: the intercept, then one each.

    Raises:
        InputError: A class is absent.

    Example:
        >>> features = np.array([[-2.0, 0.0], [2.0, 0.0]] * 20)
        >>> fit_learned(features, np.array([False, True] * 20)).weights[1] > 0
        True
    """
    if not y_true.any() or y_true.all():
        raise InputError("--reduction learned: needs positive and negative images in each fold")
    from sklearn.linear_model import LogisticRegression

    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    # Newton's method to the last digits: compare fits again and must find the same rule.
    fit = LogisticRegression(C=_STRENGTH, solver="newton-cholesky", tol=1e-12, max_iter=200)
    fit.fit((features - mean) / scale, y_true)
    weights = fit.coef_[0] / scale
    intercept = float(fit.intercept_[0] - weights @ mean)
    return Reduction("learned", weights=(intercept, *(float(w) for w in weights)))


def cross_fit(
    boxes: pd.DataFrame, y_true: pd.Series, folds: Integers
) -> tuple[Reduction, npt.NDArray[np.float64]]:
    """Learn the rule on all images, and score each fold by what the others taught.

    Args:
        boxes: ``image_id`` and ``score`` of a detector's boxes on these images.
        y_true: Labels, indexed by image id.
        folds: Fold of each image, all images of a patient in one, shape ``(N,)``.

    Returns:
        The rule for other images, and the unseen scores of these, shape ``(N,)``.

    Raises:
        InputError: A class is absent outside a fold.

    Source:
        The cross-fitted score is that of stacked generalisation, Wolpert 1992.
    """
    ids, truth = y_true.index, y_true.to_numpy() == 1
    features = box_features(boxes, ids)
    unseen = np.zeros(len(ids))
    for fold in np.unique(folds):
        held = folds == fold
        rule = fit_learned(features[~held], truth[~held])
        scored = reduce_boxes(
            boxes[boxes["image_id"].isin(ids[held])],
            ids[held],
            rule="learned",
            weights=rule.weights,
        )
        unseen[held] = scored.to_numpy()
    return fit_learned(features, truth), unseen


def words_of(weights: tuple[float, ...]) -> str:
    """What each weight is for, in words.

    Example:
        >>> words_of((0.5, 1.0, 0.0, 0.0, 0.25, -0.5)).split(", ")[:2]
        ['intercept 0.50', 'log-odds of box 1: 1.00']
    """
    names = [f"log-odds of box {rank}: " for rank in range(1, TOP_K + 1)]
    names += [f"log(1 + boxes from {floor:g}): " for floor in COUNT_FLOORS]
    told = [f"{name}{weight:.2f}" for name, weight in zip(names, weights[1:], strict=True)]
    return (
        ", ".join([f"intercept {weights[0]:.2f}", *told])
        .replace("-", "−")
        .replace("log−odds", "log-odds")
    )
