"""Conversion of the folds of a split to splits for cross-validation."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member


def fold_split(split: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Return a split that validates on one fold and trains on the others; the test set stays.

    Args:
        split: Split table with a ``fold`` for each image.
        fold: Number of the validation fold.
    """
    roles = split["role"].where(is_member(split["role"], ["test", "unused"]), "train")
    return split.assign(role=roles.mask(_is_fold(split, fold), "val"))


def fold_as_test(split: pd.DataFrame, fold: int, folds: int) -> pd.DataFrame:
    """Return a split that tests on one fold, validates on the next and trains on the others.

    Over the splits of all folds, each image is tested once and validated once.

    Args:
        split: Split table with a ``fold`` for each image.
        fold: Number of the test fold.
        folds: Number of folds.
    """
    roles = fold_split(split, (fold + 1) % folds)["role"]
    return split.assign(role=roles.mask(_is_fold(split, fold), "test"))


def _is_fold(split: pd.DataFrame, fold: int) -> pd.Series:
    return (split["fold"] == fold).fillna(False).astype(bool)
