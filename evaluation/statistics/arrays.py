"""Arrays of labels and scores: their types, their checks and the decision rule at a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.ids import TEXT

Floats = npt.NDArray[np.float64]
"""Array of float64 of any shape."""
Flags = npt.NDArray[np.bool_]
"""Array of True and False of any shape."""
Integers = npt.NDArray[np.integer[Any]]
"""Array of whole numbers of any width and shape."""


def undefined_is_nan() -> np.errstate:
    """Return a context in which figures of no image, 0 / 0, become NaN without a warning."""
    return np.errstate(invalid="ignore", divide="ignore")


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


def of_one_column(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array of shape ``(N, 1)``, as a network gives it, as one of shape ``(N,)``."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def check_truth_and_scores(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> tuple[Flags, Floats]:
    """Check labels (0 or 1) and finite scores of N images; return them as booleans and float64.

    Both have the shape ``(N,)`` or ``(N, 1)``.
    InputError names the row of the first that is invalid, or says that the shapes differ.
    """
    truth = of_one_column(as_array(y_true))
    scores = of_one_column(as_array(y_score)).astype(np.float64)
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


def require_one_order(**values: Any) -> None:
    """Refuse Series that are not in one order, as functions of arrays take values by position."""
    series = {name: value for name, value in values.items() if isinstance(value, pd.Series)}
    others = [name for name, value in values.items() if value is not None and name not in series]
    for name, value in series.items():
        first, reference = next(iter(series.items()))
        if not value.index.equals(reference.index):
            raise InputError(f"{name}: its index is not that of {first}; give both in one order")
        rising = value.index.is_monotonic_increasing
        if others and pd.api.types.is_integer_dtype(value.index) and not rising:
            raise InputError(f"{name}: its index is not in order, and {others[0]} has none")
