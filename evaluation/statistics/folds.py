"""Assignment of patients to folds of a cross-validation."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError

MOST_FOLDS = 5
"""Largest number of folds."""
_HASH_KEY = "0" * 16


def patient_folds(
    patients: npt.NDArray[np.str_], y_true: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Assign images to folds, numbered from 0; all images of a patient are in one fold.

    With labels, the patients with a positive image are assigned to the folds in turn, and so are
    the other patients, in the order of a hash of their names. The folds are then balanced, and they
    are the same on every machine and for any order of images. There are as many folds as there are
    patients of the rarer kind (with, or without, a positive image), but at most 5; InputError if
    there are fewer than two.

    Without labels, the fold follows from a hash of the patient's name, so it does not depend on the
    other patients. There are then always 5 folds.

    Examples:
        >>> names = np.array(["a", "b", "c", "d", "a"])
        >>> folds = patient_folds(names, np.array([1, 1, 0, 0, 0], dtype=bool))
        >>> bool(folds[0] == folds[4]), sorted(folds[:4].tolist())
        (True, [0, 0, 1, 1])
    """
    if y_true is None:
        hashes = pd.util.hash_array(np.asarray(patients, dtype=object), hash_key=_HASH_KEY)
        return (hashes % MOST_FOLDS).astype(np.int64)
    names, patient_of_image = np.unique(patients, return_inverse=True)
    has_positive = np.bincount(patient_of_image, weights=y_true) > 0
    n_with = int(has_positive.sum())
    n_without = int((~has_positive).sum())
    n_folds = min(MOST_FOLDS, n_with, n_without)
    if n_folds < 2:
        raise InputError(
            f"validation has {n_with} patients with and {n_without} "
            "without a positive image; folds need two of each"
        )
    digests = np.array([hashlib.sha256(str(name).encode()).hexdigest() for name in names])
    fold = np.zeros(len(names), dtype=np.int64)
    for kind in (has_positive, ~has_positive):
        members = np.flatnonzero(kind)
        fold[members[np.argsort(digests[members])]] = np.arange(len(members)) % n_folds
    return fold[patient_of_image]
