"""Arrays of labels and scores: their types, their checks and the decision rule at a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError

Floats = npt.NDArray[np.float64]


Integers = npt.NDArray[np.integer[Any]]


def as_array(values: Any) -> npt.NDArray[Any]:
    """Return an array of a list, an array, a Series, or a tensor on any device.

    Example:
        >>> as_array([1, 0]).tolist()
        [1, 0]
    """
    if hasattr(values, "detach"):  # a tensor of torch, maybe on a GPU, maybe with gradients
        values = values.detach().cpu()
    return np.asarray(values)


def check_truth_and_scores(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Validate labels and scores of the same images.

    Example:
        >>> check_truth_and_scores([0, 1], [0.2, 0.7])[0].tolist()
        [False, True]
    """
    truth, scores = as_array(y_true), as_array(y_score).astype(np.float64)
    if truth.ndim != 1 or truth.shape != scores.shape:
        raise InputError(
            f"y_true and y_score must be one value per image; got shapes {truth.shape} and "
            f"{scores.shape}"
        )
    wrong = np.flatnonzero((truth != 0) & (truth != 1))
    if wrong.size:
        raise InputError(
            f"y_true must be 0 or 1; row {wrong[0]} is {truth[wrong[0]]!r}: leave images of "
            "unknown label out"
        )
    infinite = np.flatnonzero(~np.isfinite(scores))
    if infinite.size:
        raise InputError(f"y_score must be finite; row {infinite[0]} is {scores[infinite[0]]}")
    return truth.astype(bool), scores


def is_positive(y_score: npt.ArrayLike, threshold: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """The decision rule, of images as of boxes: a score at the threshold is positive.

    Args:
        y_score: Scores, any shape.
        threshold: One, or of a shape that broadcasts with it.

    Example:
        >>> is_positive([0.4, 0.5, 0.6], 0.5).tolist()
        [False, True, True]
    """
    return np.asarray(np.asarray(y_score) >= np.asarray(threshold))
