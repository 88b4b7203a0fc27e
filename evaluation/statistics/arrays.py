"""Arrays of labels and scores: their types, their checks and the decision rule at a threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.text import TEXT

Floats = npt.NDArray[np.float64]
"""Array of float64 of any shape."""
Integers = npt.NDArray[np.integer[Any]]
"""Array of whole numbers of any width and shape."""


def as_array(values: Any) -> npt.NDArray[Any]:
    """Convert a list, an array, a Series or a torch tensor to a numpy array on the CPU.

    A tensor may be on a GPU, may require a gradient and may be bf16, which becomes float32.
    InputError for what is no array, such as a network.
    """
    if hasattr(values, "detach"):  # a torch tensor; torch itself is never imported here
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # numpy has no such type
            values = values.float()
    elif hasattr(values, "cpu"):
        if not hasattr(values, "numpy"):
            raise InputError(f"expected an array of numbers, got a {type(values).__name__}")
        values = values.cpu().numpy()
    return np.asarray(values)


def check_truth_and_scores(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Check labels (0 or 1) and finite scores of N images; return them as booleans and float64.

    InputError names the row of the first that is invalid, or says that the shapes differ.
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
            f"y_true must be 0 or 1; row {row} is {truth[row]}: leave images of unknown label out"
        )
    infinite_rows = np.flatnonzero(~np.isfinite(scores))
    if infinite_rows.size:
        row = infinite_rows[0]
        raise InputError(f"y_score must be finite; row {row} is {scores[row]}")
    return truth.astype(bool), scores


def patient_names(patients: Any, n_images: int) -> npt.NDArray[np.str_]:
    """Return the patient of each image as texts; InputError if they are not one for each image."""
    names = as_array(patients)
    if names.shape != (n_images,):
        raise InputError(
            f"patients: has {names.size} names for {counted(n_images, 'image')}; give one for each"
        )
    missing = pd.isna(names)
    if missing.any():
        row = int(missing.argmax())
        raise InputError(f"patients: row {row} is missing; fill it in, or leave patients out")
    return pd.Series(names).astype(TEXT).to_numpy(dtype=str)


def align_series(values: pd.Series, reference: pd.Series, name: str, to: str) -> pd.Series:
    """Return a Series in the order of another one: by position if both have one index, else by id.

    Raises InputError if the two indexes are neither equal nor the same ids in another order.
    """
    if values.index.equals(reference.index):
        return values
    for caption, index in ((name, values.index), (to, reference.index)):
        if not index.is_unique:
            repeated = index[index.duplicated()][0]
            raise InputError(f"{caption}: its index has {repeated!r} more than once; keep one row")
    rows = values.index.get_indexer(reference.index)
    if len(values) != len(reference) or (rows < 0).any():
        common = int((rows >= 0).sum())
        raise InputError(
            f"{name}: its index is not that of {to} ({common:,} of {len(reference):,} images are "
            "in both); give both one index of image ids, or both as arrays in one order"
        )
    return values.iloc[rows]


def require_index_in_order(values: pd.Series, name: str, to: str) -> None:
    """Refuse a Series of shuffled or reversed row numbers beside an array, which has no index."""
    index = values.index
    if pd.api.types.is_integer_dtype(index) and not index.is_monotonic_increasing:
        raise InputError(
            f"{name}: its index is not in order ({index[0]}, {index[1]}, ...), and {to} has none; "
            "give both as Series with image ids, or both as arrays in one order"
        )


def align_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring arguments with one value for each image into one order, where they are Series.

    Arrays and lists stay as they are; Series follow the first Series. InputError if two Series have
    different images, or a Series beside an array is shuffled.

    Example:
        >>> scores = pd.Series([0.2, 0.9], index=["b", "a"])
        >>> align_values({"y_true": pd.Series([1, 0], index=["a", "b"]), "y_score": scores})[
        ...     "y_score"].tolist()
        [0.9, 0.2]
    """
    series = {name: value for name, value in values.items() if isinstance(value, pd.Series)}
    if not series:
        return dict(values)
    to, reference = next(iter(series.items()))
    others = (name for name, value in values.items() if value is not None and name not in series)
    array = next(others, None)
    if array is not None:
        require_index_in_order(reference, to, array)
    aligned = {name: align_series(value, reference, name, to) for name, value in series.items()}
    return {**values, **aligned}


def is_positive(y_score: npt.ArrayLike, threshold: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Call each score positive that is equal to the threshold or above it; both broadcast.

    All parts of the program use this rule, for scores of images and of boxes.

    Example:
        >>> is_positive([0.4, 0.5, 0.6], 0.5).tolist()
        [False, True, True]
    """
    return np.asarray(np.asarray(y_score) >= np.asarray(threshold))
