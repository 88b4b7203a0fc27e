"""Adding of splits to a prepared data set, for `cxr split`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.splits.cross_validation import fold_as_test, fold_split
from cxr_compare.data_prep.splits.draw_split import dataset_links, draw_split
from cxr_compare.data_prep.splits.role_counts import count_roles
from cxr_compare.data_prep.splits.split import SplitRule, official_split
from cxr_compare.data_prep.splits.split_file import read_split_file
from cxr_compare.data_prep.splits.strata import image_strata
from cxr_compare.data_prep.splits.write_split import SplitRecord, write_splits
from cxr_compare.data_prep.store.dataset import DataSet


def add_splits(
    dataset: DataSet,
    name: str,
    rule: SplitRule,
    *,
    each_fold: bool = False,
    test_folds: bool = False,
    file: Path | None = None,
    keep_test_of: str | None = None,
    strict: bool = False,
    replaces: bool = False,
) -> dict[str, dict[str, Any]]:
    """Add a split (assignment of images to train, validation and test) to a data set.

    With `each_fold` or `test_folds`, a split is added for each cross-validation fold.

    Args:
        dataset: A prepared data set.
        name: Name of the split. The splits of folds are called ``NAME-0`` and so on.
        rule: Shares of patients for validation and test, number of folds, seed and method of the
            random draw.
        each_fold: True adds a split for each fold, in which that fold is the validation set. All
            these splits have the same test set.
        test_folds: True adds a split for each fold, in which that fold is the test set and the next
            fold the validation set.
        file: Path of the user's own table with ``image_id`` or ``patient_id`` and ``role``, or a
            column called `name` (train, val, test or unused), which is used instead of a random
            draw; None draws.
        keep_test_of: Name of an existing split whose test images are kept; train and validation are
            drawn. None draws the test images, too.
        strict: True raises an error if `file` names unknown ids or leaves out images.
        replaces: True replaces existing splits of the same name; False makes new ones.

    Returns:
        By name of each added split: its numbers of images and patients under ``roles``, and its
        method and options under ``how``.

    Raises:
        InputError: The name has other characters than letters, digits, ``-``, ``_`` and ``.``; a
            split of the name exists and `replaces` is False, or none exists and `replaces` is True;
            `test_folds` is True with fewer than 3 folds; or the file cannot be used.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"split name {name!r}: use letters, digits, '-', '_' and '.' only")
    if test_folds and rule.folds < 3:
        raise InputError(
            "split: --test-folds needs 3 folds: one to test, one to validate, one more"
        )
    if test_folds:
        rule = replace(rule, val=0.0, test=0.0)
    split, how = _make_split(dataset, name, rule, file, keep_test_of, strict=strict)
    splits = {name: split}
    if file is not None and (test_folds or each_fold) and split["fold"].nunique() != rule.folds:
        raise InputError(f"{file}: has {split['fold'].nunique()} folds, asked for {rule.folds}")
    if test_folds:
        how = {**how, "folds": "each fold tests once, the next one validates"}
        splits = {f"{name}-{k}": fold_as_test(split, k, rule.folds) for k in range(rule.folds)}
    elif each_fold:
        how = {**how, "folds": "each fold validates once; the test set is one"}
        splits = {f"{name}-{k}": fold_split(split, k) for k in range(rule.folds)}
    write_splits(dataset.folder, splits, how, replaces=replaces)
    return {k: {"roles": count_roles(dataset, table), "how": how} for k, table in splits.items()}


def _make_split(
    dataset: DataSet,
    name: str,
    rule: SplitRule,
    file: Path | None,
    keep_test_of: str | None,
    *,
    strict: bool,
) -> tuple[pd.DataFrame, SplitRecord]:
    linked = dataset_links(dataset)
    if file is not None:
        return read_split_file(file, dataset.images, linked, name=name, strict=strict)
    if keep_test_of is None:
        default = dataset.split()
        unused = default.loc[default["role"] == "unused", ["image_id", "role"]]
        return draw_split(dataset.images, dataset.findings, unused, rule, linked)
    kept = dataset.split(keep_test_of)
    given = kept[["image_id"]].assign(role=kept["role"].where(kept["role"] != "val", "train"))
    strata = image_strata(dataset.images, dataset.findings)
    split, how = official_split(given, dataset.images, linked, rule, strata=strata)
    return split, {**how, "method": f"test of split '{keep_test_of}', validation drawn by patient"}


def read_split_rule(dataset: DataSet, name: str) -> dict[str, Any]:
    """Return the stored options of the random draw of a split, or of its cross-validation folds.

    Args:
        dataset: A prepared data set.
        name: Name of the split, or the common name of splits ``NAME-0``, ``NAME-1`` and so on.

    Returns:
        Fields of `SplitRule` that were recorded, by name; empty if there is no such split.

    Raises:
        InputError: The record of the split is damaged.
    """
    for candidate in (name, f"{name}-0"):
        path = dataset.folder / "splits" / f"{candidate}.json"
        if path.is_file():
            rule = read_json(path, "split")["how"].get("rule", {})
            return {k: v for k, v in rule.items() if v is not None and (k, v) != ("test", 0)}
    return {}
