"""Conversion of the folds of a split to splits for cross-validation."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member


def fold_split(split: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Return a split whose validation set is one cross-validation fold.

    The other folds are the training set. The test set stays the same.

    Args:
        split: Table with ``image_id``, ``role`` (train, val, test, unused) and ``fold`` (from 0;
            missing for test images).
        fold: Number of the validation fold, from 0.

    Returns:
        Table of the same rows and columns, in which only ``role`` has changed.
    """
    roles = split["role"].where(is_member(split["role"], ["test", "unused"]), "train")
    return split.assign(role=roles.mask(_is_fold(split, fold), "val"))


def fold_as_test(split: pd.DataFrame, fold: int, folds: int) -> pd.DataFrame:
    """Return a split whose test set is one cross-validation fold.

    The next fold is the validation set, and the others are the training set. Over the splits of all
    folds, each image is tested once and validated once.

    Args:
        split: Table with ``image_id``, ``role`` (train, val, test, unused) and ``fold`` (from 0).
        fold: Number of the test fold.
        folds: Number of all folds.

    Returns:
        Table of the same columns.
    """
    roles = fold_split(split, (fold + 1) % folds)["role"]
    return split.assign(role=roles.mask(_is_fold(split, fold), "test"))


def _is_fold(split: pd.DataFrame, fold: int) -> pd.Series:
    return (split["fold"] == fold).fillna(False).astype(bool)
