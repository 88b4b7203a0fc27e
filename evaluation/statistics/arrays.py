"""Arrays of labels and scores: their types, their checks and the decision rule at a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError

Floats = npt.NDArray[np.float64]
"""Array of float64 of any shape."""
Integers = npt.NDArray[np.integer[Any]]
"""Array of whole numbers of any width and shape."""


def as_array(values: Any) -> npt.NDArray[Any]:
    """Convert a list, an array, a Series or a torch tensor to a numpy array.

    Args:
        values: Numbers of any shape. A torch tensor may be on a GPU and may require a gradient.

    Returns:
        The same numbers as a numpy array on the CPU.

    Example:
        >>> as_array([1, 0]).tolist()
        [1, 0]
    """
    if hasattr(values, "detach"):  # a torch tensor; torch itself is never imported here
        values = values.detach().cpu()
    return np.asarray(values)


def check_truth_and_scores(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Check the labels and scores of the same N images, and convert them to numpy arrays.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Finite scores, shape ``(N,)``; a higher score means that the positive class is more
            likely.

    Returns:
        The labels as booleans and the scores as float64, shape ``(N,)`` each.

    Raises:
        InputError: The shapes differ, a label is neither 0 nor 1, or a score is not finite. The
            message gives the number of the row.

    Example:
        >>> truth, scores = check_truth_and_scores([0, 1], [0.2, 0.7])
        >>> truth.tolist(), scores.tolist()
        ([False, True], [0.2, 0.7])
    """
    truth = as_array(y_true)
    scores = as_array(y_score).astype(np.float64)
    if truth.ndim != 1 or truth.shape != scores.shape:
        raise InputError(
            f"y_true and y_score must be one value per image; got shapes {truth.shape} and "
            f"{scores.shape}"
        )
    invalid_rows = np.flatnonzero((truth != 0) & (truth != 1))
    if invalid_rows.size:
        row = invalid_rows[0]
        raise InputError(
            f"y_true must be 0 or 1; row {row} is {truth[row]!r}: leave images of unknown label out"
        )
    infinite_rows = np.flatnonzero(~np.isfinite(scores))
    if infinite_rows.size:
        row = infinite_rows[0]
        raise InputError(f"y_score must be finite; row {row} is {scores[row]}")
    return truth.astype(bool), scores


def is_positive(y_score: npt.ArrayLike, threshold: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Call each score positive that is equal to the threshold or above it.

    All parts of the program use this rule, for scores of images and of boxes.

    Args:
        y_score: Scores, any shape.
        threshold: One threshold, or an array whose shape broadcasts with that of the scores.

    Returns:
        True if the score is at least the threshold, else False, in the broadcast shape.

    Example:
        >>> is_positive([0.4, 0.5, 0.6], 0.5).tolist()
        [False, True, True]
    """
    return np.asarray(np.asarray(y_score) >= np.asarray(threshold))
