"""Splits in a data set folder: they are added, written, counted and turned by fold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.schemas import ROLES
from cxr_compare.data_prep.contracts.tables import frame_digest, write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.duplicates.dataset_copies import find_dataset_copies
from cxr_compare.data_prep.duplicates.near_duplicates import NearDuplicates
from cxr_compare.data_prep.splits.balance import image_strata
from cxr_compare.data_prep.splits.split import SplitRule, draw_split, official_split
from cxr_compare.data_prep.splits.split_file import read_split_file
from cxr_compare.data_prep.store.dataset_info import DataSetInfo, SplitInfo, SplitOrigin

_POSITIVE = "positive for "
_TARGETS_IN_LINE = 3


def add_splits(
    dataset: DataSet,
    name: str,
    rule: SplitRule,
    *,
    each_fold: bool = False,
    test_folds: bool = False,
    file: Path | None = None,
    keep_test_of: str | None = None,
    replaces: bool = False,
) -> dict[str, dict[str, Any]]:
    """Add a split (assignment of images to train, validation and test) to a data set.

    With `each_fold` or `test_folds`, a split is added for each cross-validation fold.

    Args:
        dataset: A prepared data set.
        name: Name of the split. The splits of folds are called ``NAME-0`` and so on.
        rule: Shares of patients for validation and test, number of folds and seed of the
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
    split, how = _make_split(dataset, name, rule, file, keep_test_of)
    splits = {name: split}
    if file is not None and (test_folds or each_fold) and split["fold"].nunique() != rule.folds:
        raise InputError(f"{file}: has {split['fold'].nunique()} folds, asked for {rule.folds}")
    if test_folds:
        how = how.with_values(folds="each fold tests once, the next one validates")
        splits = {f"{name}-{k}": fold_as_test(split, k, rule.folds) for k in range(rule.folds)}
    elif each_fold:
        how = how.with_values(folds="each fold validates once; the test set is one")
        splits = {f"{name}-{k}": fold_split(split, k) for k in range(rule.folds)}
    write_splits(dataset.folder, splits, how, replaces=replaces)
    origin = how.to_json()
    return {k: {"roles": count_roles(dataset, t), "how": origin} for k, t in splits.items()}


def _make_split(
    dataset: DataSet,
    name: str,
    rule: SplitRule,
    file: Path | None,
    keep_test_of: str | None,
) -> tuple[pd.DataFrame, SplitOrigin]:
    linked = dataset_links(dataset)
    if file is not None:
        return read_split_file(file, dataset.images, linked, name=name)
    if keep_test_of is None:
        default = dataset.split()
        unused = default.loc[default["role"] == "unused", ["image_id", "role"]]
        return draw_split(dataset.images, dataset.findings, unused, rule, linked)
    kept = dataset.split(keep_test_of)
    given = kept[["image_id"]].assign(role=kept["role"].where(kept["role"] != "val", "train"))
    strata = image_strata(dataset.images, dataset.findings)
    split, how = official_split(given, dataset.images, linked, rule, strata=strata)
    method = f"test of split '{keep_test_of}', validation drawn by patient"
    return split, how.with_values(method=method)


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
            rule = SplitInfo.read(path).how.rule
            stated = {} if rule is None else rule.to_json()
            return {k: v for k, v in stated.items() if (k, v) != ("test", 0)}
    return {}


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


def write_splits(
    folder: Path, splits: dict[str, pd.DataFrame], how: SplitOrigin, *, replaces: bool
) -> None:
    """Write splits into a data set folder, and their digests into its ``dataset.json``.

    A split assigns each image to train, validation or test. By the digest, a later change of a
    split is noticed.

    Args:
        folder: Data set folder.
        splits: By name of a split, the table with ``image_id``, ``role`` (train, val, test, unused)
            and ``fold``.
        how: Method and options with which the splits were made.
        replaces: True replaces existing splits of these names. False requires new names.

    Raises:
        InputError: A split of this name exists already, or `replaces` is True and none exists.
    """
    with folder_lock(folder):
        # This is read again under the lock, since another command may have added a split.
        info = DataSetInfo.read(folder / "dataset.json")
        split_ids = dict(info.ids.split_ids)
        taken = sorted(set(splits) & set(split_ids))
        if taken and not replaces:
            raise InputError(
                f"{folder}: split '{taken[0]}' is there; choose another name, or replace it with "
                "--replace"
            )
        if replaces and len(taken) < len(splits):
            new = sorted(set(splits) - set(taken))[0]
            raise InputError(f"{folder}: has no split '{new}' to replace; leave out --replace")
        for name, table in splits.items():
            split_ids[name] = write_split(folder, name, table, how)
        ids = info.ids.with_values(split_ids=split_ids)
        info.with_values(ids=ids).write(folder / "dataset.json")


def write_split(folder: Path, name: str, split: pd.DataFrame, how: SplitOrigin) -> str:
    """Write one split (assignment of images to train, validation and test) and its record.

    Args:
        folder: Folder of the data set.
        name: Name of the split.
        split: Table with columns ``image_id``, ``role`` (train, val, test, unused) and ``fold``.
        how: Method and options with which the split was made.

    Returns:
        Digest of ids and roles, 16 hexadecimal digits, which is the same for equal splits.

    Raises:
        InputError: A cell of the table has a value that is not allowed, or the disk is full.
    """
    split_folder = make_folder(folder / "splits")
    split_id = frame_digest(split, ["image_id", "role"])
    digest = write_table(split, split_folder / f"{name}.parquet", "split")
    n_images = {str(role): int(count) for role, count in split["role"].value_counts().items()}
    record = SplitInfo(
        name=name,
        split_id=split_id,
        how=how,
        n_images=n_images,
        files={f"{name}.parquet": digest},
    )
    record.write(split_folder / f"{name}.json")
    return split_id


def count_roles(dataset: DataSet, split: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count images, patients and positive images in each role (train, val, test, unused).

    Args:
        dataset: A prepared data set.
        split: Table with columns ``image_id`` and ``role``: train, val, test or unused.

    Returns:
        Counts by role and noun, such as ``{"train": {"images": 3, "patients": 2}}``; positive
        images are counted under ``positive for TARGET`` for each target (findings under one name).
        Empty roles are left out.
    """
    rows = dataset.images[["image_id", "patient_id"]].merge(split, on="image_id")
    labels = {
        str(name): rows["image_id"].map(dataset.labels(target)) == 1
        for name, target in dataset.targets.items()
    }
    counts = {}
    for role in ROLES:
        chosen = rows["role"] == role
        if chosen.any():
            positives = {_POSITIVE + k: int((flag & chosen).sum()) for k, flag in labels.items()}
            patients = int(rows.loc[chosen, "patient_id"].nunique())
            counts[role] = {"images": int(chosen.sum()), "patients": patients, **positives}
    return counts


def role_lines(roles: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the counts of `count_roles` as lines of text for display.

    Args:
        roles: Counts by role (train, val, test, unused) and noun, such as ``images``.

    Returns:
        The lines without line breaks.

    Example:
        >>> role_lines({"test": {"images": 1200, "patients": 900}})
        ['  test   1,200 images, 900 patients']
    """
    filled = {role: counts for role, counts in roles.items() if counts["images"]}
    nouns = list(dict.fromkeys(noun for counts in filled.values() for noun in counts))
    targets = [noun for noun in nouns if noun.startswith(_POSITIVE)]
    own_lines = targets if len(targets) > _TARGETS_IN_LINE else []
    lines = []
    for role, counts in filled.items():
        texts = [f"{n:,} {noun}" for noun, n in counts.items() if noun not in own_lines]
        lines.append(f"  {role:6s} {', '.join(texts)}")
    for noun in own_lines:
        texts = [f"{counts[noun]:,} {role}" for role, counts in filled.items()]
        lines.append(f"  {noun}: {', '.join(texts)}")
    return lines


def image_links(decode: pd.DataFrame, near: NearDuplicates) -> pd.Series | None:
    """Return a key for each image that is the same for all copies of the image.

    Args:
        decode: Decode table: one row for each image, with the digest of its pixels. It may be
            empty.
        near: Pairs of nearly equal images of the same data set.

    Returns:
        Keys, indexed by ``image_id``; None if no image was decoded.
    """
    return None if decode.empty else near.copy_keys(decode)


def dataset_links(dataset: DataSet) -> pd.Series | None:
    """Return a key for each image of a data set that is the same for all copies of the image.

    Args:
        dataset: A prepared data set.

    Returns:
        Keys, indexed by ``image_id``; None if no image was decoded.
    """
    decode = dataset.optional_table("decode")
    return image_links(decode, find_dataset_copies(dataset, decode))
