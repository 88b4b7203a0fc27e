"""Splits in a data set folder: they are added, written, and turned by fold (`cxr split`)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import folder_lock, make_folder
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.tables import frame_digest, write_table
from cxr_compare.data_prep.copies import Links, copy_keys, patient_groups
from cxr_compare.data_prep.dataset import DataSet, DataSetInfo, count_roles
from cxr_compare.data_prep.splits import (
    Split,
    SplitInfo,
    SplitOrigin,
    SplitRule,
    adopt,
    draw_split,
    image_strata,
    read_split_file,
    require_clean,
)


def add_splits(
    dataset: DataSet,
    name: str,
    rule: SplitRule,
    *,
    test_folds: bool = False,
    file: Path | None = None,
    keep_test_of: str | None = None,
    share: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Add a split to a data set, or with `test_folds` one for each fold, which tests once.

    Roles come from a file, from the test set of another split (or, with a share, from a part of its
    patients), or from a draw by patient.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"split name {name!r}: use letters, digits, '-', '_' and '.' only")
    if test_folds and rule.folds < 3:
        raise InputError(
            f"split: folds={rule.folds}; at least 3 are needed: to test, to validate and to train"
        )
    if test_folds:
        rule = replace(rule, val=0.0, test=0.0)
    links = copy_keys(dataset.decode, dataset.table("copies"))
    if share is not None and keep_test_of is not None:
        split = part_of_split(dataset, keep_test_of, links, share, rule.seed)
        how = SplitOrigin(method=f"{share:g} of the patients of '{keep_test_of}', seed {rule.seed}")
    else:
        split, how = _make_split(dataset, name, rule, links, file, keep_test_of)
    splits = {name: split}
    if test_folds and split["fold"].nunique() < rule.folds:
        raise InputError(
            f"split: folds={rule.folds}; there are fewer patients, so take fewer folds"
        )
    if test_folds:
        method = f"{how.method}; each of {rule.folds} folds tests once, the next one validates"
        how = how.with_values(method=method)
        splits = {f"{name}-{k}": fold_as_test(split, k, rule.folds) for k in range(rule.folds)}
    with folder_lock(dataset.folder):
        # This is read again under the lock, since another command may have added a split.
        info = DataSetInfo.read(dataset.folder / "dataset.json")
        taken = sorted(set(splits) & set(info.ids.split_ids))
        if taken:
            raise InputError(f"{dataset.folder}: split '{taken[0]}' is there; choose another name")
        split_ids = {
            key: write_split(dataset.folder, key, (table, how), dataset.images, links)
            for key, table in splits.items()
        }
        ids = info.ids.with_values(split_ids={**info.ids.split_ids, **split_ids})
        info.with_values(ids=ids).write(dataset.folder / "dataset.json")
    origin = how.to_json()
    return {k: {"roles": count_roles(dataset, t), "how": origin} for k, t in splits.items()}


def _make_split(
    dataset: DataSet,
    name: str,
    rule: SplitRule,
    links: Links,
    file: Path | None,
    keep_test_of: str | None,
) -> Split:
    if file is not None:
        return read_split_file(file, dataset.images, name)
    if keep_test_of is None:
        default = dataset.split()
        unused = default.loc[default["role"] == "unused", ["image_id", "role"]]
        return draw_split(dataset.images, dataset.findings, unused, rule, links)
    kept = dataset.split(keep_test_of)
    given = kept[["image_id"]].assign(role=kept["role"].where(kept["role"] != "val", "train"))
    strata = image_strata(dataset.images, dataset.findings)
    split, how = adopt(given, dataset.images, strata, rule, links)
    method = f"test of split '{keep_test_of}', validation drawn by patient"
    return split, how.with_values(method=method)


def part_of_split(
    dataset: DataSet, name: str, links: Links, share: float, seed: int
) -> pd.DataFrame:
    """Return a split with a share of the training and validation patients of another one.

    Test images stay. The patients of each class are put into a random order, and the orders of all
    classes are merged so that the first patients have every class in proportion: of one seed a
    smaller share lies in a larger one. A patient is kept with all images or with none.
    """
    if not 0 < share <= 1:
        raise InputError(f"share {share:g}: give shares above 0 and up to 1, such as 0.25")
    split = dataset.split(name)
    classes = image_strata(dataset.images, dataset.findings)["class"].fillna("")
    owner = split["image_id"].map(patient_groups(dataset.images, links))
    role = split["role"].copy()
    for number, part in enumerate(("train", "val")):
        patients = pd.DataFrame({"group": owner, "class": split["image_id"].map(classes)})
        patients = patients[split["role"] == part].fillna({"class": ""})
        of_group = patients.groupby("group", sort=True)["class"].max()  # the last of several
        # Roles must not depend on each other, so each has a random generator of its own.
        ranks = _balanced_ranks(of_group, np.random.default_rng([seed, number]))
        chosen = ranks.index[ranks < max(1, round(share * len(ranks)))]
        role[(split["role"] == part) & ~owner.isin(chosen)] = "unused"
    return split.assign(role=role)


def _balanced_ranks(classes: pd.Series, rng: np.random.Generator) -> pd.Series:
    """Rank the groups, from 0, in an order whose prefixes are balanced over classes."""
    key = pd.Series(0.0, index=classes.index)
    for _, members in classes.groupby(classes, sort=True):
        # The random start avoids that a class of one patient always falls into the same half.
        ranks = rng.permutation(len(members)) + rng.random()
        key[members.index] = ranks / len(members)
    return key.rank(method="first").astype(int) - 1


def fold_as_test(split: pd.DataFrame, fold: int, folds: int) -> pd.DataFrame:
    """Return a split whose test set is one fold (from 0), and whose validation set the next."""
    number = split["fold"].fillna(-1).astype(int)
    role = split["role"].where(is_member(split["role"], ["test", "unused"]), "train")
    role = role.mask(number == (fold + 1) % folds, "val").mask(number == fold, "test")
    return split.assign(role=role)


def write_split(folder: Path, name: str, split: Split, images: pd.DataFrame, links: Links) -> str:
    """Write one split and its record, and return its digest; refuse one that leaks."""
    table, how = split
    require_clean(table, images, links, name)
    split_folder = make_folder(folder / "splits")
    split_id = frame_digest(table, ["image_id", "role"])
    digest = write_table(table, split_folder / f"{name}.parquet", "split")
    n_images = {str(role): int(count) for role, count in table["role"].value_counts().items()}
    files = {f"{name}.parquet": digest}
    record = SplitInfo(name=name, split_id=split_id, how=how, n_images=n_images, files=files)
    record.write(split_folder / f"{name}.json")
    return split_id
