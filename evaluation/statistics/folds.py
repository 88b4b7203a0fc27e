"""Assignment of patients to folds of a cross-validation."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError

MOST_FOLDS = 5


_HASH_KEY = "0" * 16


def patient_folds(
    patients: npt.NDArray[np.str_], y_true: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Assign patients to folds: all images of a patient are in one.

    With labels, patients with a positive image and the others are each assigned in turn, in the
    order of a digest of their name: the folds are balanced, and the same on every machine and in
    any order of rows. Without, the fold is a hash of the name: the same whoever else is there.

    With labels there are as many folds as both kinds have patients, at most 5; without always 5.
    """
    if y_true is None:
        hashes = pd.util.hash_array(np.asarray(patients, dtype=object), hash_key=_HASH_KEY)
        return (hashes % MOST_FOLDS).astype(np.int64)
    names, owner = np.unique(patients, return_inverse=True)
    positive = np.bincount(owner, weights=y_true) > 0
    n_folds = min(MOST_FOLDS, int(positive.sum()), int((~positive).sum()))
    if n_folds < 2:
        raise InputError(
            f"validation has {int(positive.sum())} patients with and {int((~positive).sum())} "
            "without a positive image; folds need two of each: tune without --calibration choose"
        )
    digests = np.array([hashlib.sha256(str(name).encode()).hexdigest() for name in names])
    fold = np.zeros(len(names), dtype=np.int64)
    for kind in (positive, ~positive):
        members = np.flatnonzero(kind)
        fold[members[np.argsort(digests[members])]] = np.arange(len(members)) % n_folds
    return fold[owner]
