"""Turn the folds of a split into splits for cross-validation."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member


def fold_split(split: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Turn one fold into the validation role, all others into train; test stays."""
    roles = split["role"].where(is_member(split["role"], ["test", "unused"]), "train")
    return split.assign(role=roles.mask(_is_fold(split, fold), "val"))


def fold_as_test(split: pd.DataFrame, fold: int, folds: int) -> pd.DataFrame:
    """Turn one fold into the test role, the next into validation, all others into train.

    Over all folds each image is tested once, validated once, and trained on otherwise.
    """
    roles = fold_split(split, (fold + 1) % folds)["role"]
    return split.assign(role=roles.mask(_is_fold(split, fold), "test"))


def _is_fold(split: pd.DataFrame, fold: int) -> pd.Series:
    return (split["fold"] == fold).fillna(False).astype(bool)
