"""Assignment of patients to folds of a cross-validation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MOST_FOLDS = 5
"""Largest number of folds."""


def patient_folds(
    patients: npt.NDArray[np.str_], y_true: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """Assign images to folds, numbered from 0; all images of a patient are in one fold.

    Patients are dealt to the folds in turn, in the order of their names, so folds are the same for
    any order of images, and for other names in the same order. Without labels there are 5 folds.

    With labels, the patients with a positive image are dealt, and then the other patients. There
    are as many folds as there are patients of the rarer kind (with, or without, a positive image),
    of which there are two or more, but at most 5.

    Examples:
        >>> names = np.array(["a", "b", "c", "d", "a"])
        >>> folds = patient_folds(names, np.array([1, 1, 0, 0, 0], dtype=bool))
        >>> bool(folds[0] == folds[4]), sorted(folds[:4].tolist())
        (True, [0, 0, 1, 1])
    """
    names, patient_of_image = np.unique(patients, return_inverse=True)
    if y_true is None:
        return patient_of_image % MOST_FOLDS
    has_positive = np.bincount(patient_of_image, weights=y_true) > 0
    n_with = int(has_positive.sum())
    n_without = int((~has_positive).sum())
    n_folds = min(MOST_FOLDS, n_with, n_without)
    fold = np.zeros(len(names), dtype=np.int64)
    for kind in (has_positive, ~has_positive):
        fold[kind] = np.arange(kind.sum()) % n_folds
    return fold[patient_of_image]
