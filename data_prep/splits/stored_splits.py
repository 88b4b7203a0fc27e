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
from cxr_compare.data_prep.duplicates.patient_groups import patient_groups
from cxr_compare.data_prep.splits.balance import image_strata
from cxr_compare.data_prep.splits.nested_parts import nested_parts
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
    share: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Add a split (assignment of images to train, validation and test) to a data set.

    With `each_fold`, a split ``NAME-0`` and so on is added for each cross-validation fold, which is
    its validation set; all have the same test set. With `test_folds`, of which there are 3 or more,
    the fold is the test set and the next fold the validation set.

    `file` is the user's own table (see `read_split_file`), which is used instead of a random draw.
    `keep_test_of` names a split whose test images are kept; train and validation are drawn. A name
    that is taken, or has other characters than letters, digits, ``-``, ``_`` and ``.``, is refused.

    By name of each added split, its numbers of images and patients under ``roles``, and its method
    and options under ``how``, are returned.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"split name {name!r}: use letters, digits, '-', '_' and '.' only")
    if test_folds and rule.folds < 3:
        raise InputError(
            f"split: folds={rule.folds}; at least 3 are needed: to test, to validate and to train"
        )
    if test_folds:
        rule = replace(rule, val=0.0, test=0.0)
    if share is not None and keep_test_of is not None:
        group = patient_groups(dataset.images, dataset_links(dataset))
        strata = image_strata(dataset.images, dataset.findings)["class"].fillna("")
        whole = dataset.split(keep_test_of)
        split = nested_parts(whole, group, strata, [share], rule.seed)[share]
        how = SplitOrigin(method=f"{share:g} of the patients of '{keep_test_of}', seed {rule.seed}")
    else:
        split, how = _make_split(dataset, name, rule, file, keep_test_of)
    splits = {name: split}
    if file is not None and (test_folds or each_fold) and split["fold"].nunique() != rule.folds:
        raise InputError(f"{file}: has {split['fold'].nunique()} folds, asked for {rule.folds}")
    if test_folds and split["fold"].nunique() < rule.folds:
        raise InputError(
            f"split: folds={rule.folds}; there are fewer patients, so take fewer folds"
        )
    if test_folds:
        how = how.with_values(folds="each fold tests once, the next one validates")
        splits = {f"{name}-{k}": fold_as_test(split, k, rule.folds) for k in range(rule.folds)}
    elif each_fold:
        how = how.with_values(folds="each fold validates once; the test set is one")
        splits = {f"{name}-{k}": fold_split(split, k) for k in range(rule.folds)}
    write_splits(dataset.folder, splits, how)
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


def fold_split(split: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Return a split whose validation set is one cross-validation fold (from 0).

    The other folds are the training set. The test set stays the same. The columns are ``image_id``,
    ``role`` (train, val, test, unused) and ``fold`` (missing for test images); only ``role``
    changes.
    """
    roles = split["role"].where(is_member(split["role"], ["test", "unused"]), "train")
    return split.assign(role=roles.mask(_is_fold(split, fold), "val"))


def fold_as_test(split: pd.DataFrame, fold: int, folds: int) -> pd.DataFrame:
    """Return a split whose test set is one cross-validation fold; see `fold_split`.

    The next fold is the validation set, and the others are the training set. Over the splits of all
    folds, each image is tested once and validated once.
    """
    roles = fold_split(split, (fold + 1) % folds)["role"]
    return split.assign(role=roles.mask(_is_fold(split, fold), "test"))


def _is_fold(split: pd.DataFrame, fold: int) -> pd.Series:
    return (split["fold"] == fold).fillna(False).astype(bool)


def write_splits(folder: Path, splits: dict[str, pd.DataFrame], how: SplitOrigin) -> None:
    """Write splits into a data set folder, and their digests into its ``dataset.json``.

    By the digest, a later change of a split is noticed. The tables have ``image_id``, ``role``
    (train, val, test, unused) and ``fold``. A name that is taken is refused.
    """
    with folder_lock(folder):
        # This is read again under the lock, since another command may have added a split.
        info = DataSetInfo.read(folder / "dataset.json")
        split_ids = dict(info.ids.split_ids)
        taken = sorted(set(splits) & set(split_ids))
        if taken:
            raise InputError(f"{folder}: split '{taken[0]}' is there; choose another name")
        for name, table in splits.items():
            split_ids[name] = write_split(folder, name, table, how)
        ids = info.ids.with_values(split_ids=split_ids)
        info.with_values(ids=ids).write(folder / "dataset.json")


def write_split(folder: Path, name: str, split: pd.DataFrame, how: SplitOrigin) -> str:
    """Write one split and its record, and return its digest, as `frame_digest` of ids and roles.

    The table has columns ``image_id``, ``role`` (train, val, test, unused) and ``fold``.
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

    The counts are by role and noun, such as ``{"train": {"images": 3, "patients": 2}}``; positive
    images are counted under ``positive for TARGET`` for each target. Empty roles are left out.
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
    """Return a key by ``image_id`` that all copies of an image share; None if none was decoded."""
    return None if decode.empty else near.copy_keys(decode)


def dataset_links(dataset: DataSet) -> pd.Series | None:
    """Return a key by ``image_id`` that all copies of an image share; None if none was decoded."""
    decode = dataset.optional_table("decode")
    return image_links(decode, find_dataset_copies(dataset, decode))
