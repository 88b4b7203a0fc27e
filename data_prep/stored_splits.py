"""Splits in a data set folder: they are added, written, and turned by fold (`cxr split`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, as_typed
from cxr_compare.data_prep.base.files import file_digest, folder_lock, make_folder
from cxr_compare.data_prep.base.tables import frame_digest, write_table
from cxr_compare.data_prep.copies import Links, copy_keys
from cxr_compare.data_prep.dataset import DataSet, DataSetInfo, count_roles
from cxr_compare.data_prep.splits import (
    Split,
    SplitInfo,
    SplitRule,
    adopt,
    draw_split,
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
    write_pages: Callable[[DataSet], None],
) -> dict[str, dict[str, Any]]:
    """Add a split to a data set, or with `test_folds` one for each fold, which tests once.

    Roles come from a file, from the test set of another split, or from a draw by patient.
    `write_pages` writes what else the folder says of its splits, before the record names them: the
    same call goes on after it was stopped.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"split name {name!r}: use letters, digits, '-', '_' and '.' only")
    images, findings = dataset.images, dataset.findings
    links = copy_keys(dataset.decode, dataset.table("copies"))
    if file is not None:
        split, how = read_split_file(file, images, name)
    elif keep_test_of is not None:
        former = dataset.split(keep_test_of)
        test_kept = former.assign(role=former["role"].replace("val", "train"))
        split, how = adopt(test_kept, images, findings, rule, links)
        method = f"test of split '{keep_test_of}', validation drawn by patient"
        how = how.with_values(method=method)
    else:
        default = dataset.split()
        unused = default.loc[default["role"] == "unused", ["image_id", "role"]]
        rule = replace(rule, val=0.0, test=0.0) if test_folds else rule
        split, how = draw_split(images, findings, unused, rule, links)
    splits = {name: split}
    if test_folds:
        folds = rule.folds
        if folds < 3 or split["fold"].nunique() < folds:
            given = as_typed({"folds": folds})
            raise InputError(
                f"{given}: give at least 3, to test, to validate and to train, and no more than "
                "there are patients"
            )
        method = f"{how.method}; each of {folds} folds tests once, the next one validates"
        how = how.with_values(method=method)
        splits = {f"{name}-{fold}": _fold_as_test(split, fold, folds) for fold in range(folds)}
    with folder_lock(dataset.folder):
        # This is read again under the lock, since another command may have added a split.
        info = DataSetInfo.read(dataset.folder / "dataset.json")
        existing = sorted(set(splits) & set(info.ids.split_ids))
        if existing:
            raise InputError(
                f"{dataset.folder}: split '{existing[0]}' is there; choose another name"
            )
        ids, files = dict(info.ids.split_ids), dict(info.files)
        for key, table in splits.items():
            ids[key], written = write_split(dataset.folder, key, (table, how), images, links)
            files |= written
        info = info.with_values(ids=info.ids.with_values(split_ids=ids), files=files)
        write_pages(DataSet(dataset.folder, info))
        info.write(dataset.folder / "dataset.json")
    origin = how.to_json()
    return {k: {"roles": count_roles(dataset, t), "how": origin} for k, t in splits.items()}


def _fold_as_test(split: pd.DataFrame, fold: int, folds: int) -> pd.DataFrame:
    """Return a split whose test set is one fold (from 0), and whose validation set the next."""
    number = split["fold"].fillna(-1).astype(int)
    role = split["role"].mask(number == (fold + 1) % folds, "val").mask(number == fold, "test")
    return split.assign(role=role)


def write_split(
    folder: Path, name: str, split: Split, images: pd.DataFrame, links: Links
) -> tuple[str, dict[str, str]]:
    """Write one split; return the digest of its roles, and those of its files. Refuse a leak."""
    table, how = split
    require_clean(table, images, links, f"split '{name}'")
    make_folder(folder / "splits")
    of_table, of_origin = f"splits/{name}.parquet", f"splits/{name}.json"
    digest = write_table(table, folder / of_table, "split")
    SplitInfo(how=how).write(folder / of_origin)
    files = {of_table: digest, of_origin: file_digest(folder / of_origin)}
    return frame_digest(table, ["image_id", "role"]), files
