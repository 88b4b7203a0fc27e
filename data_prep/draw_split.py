"""The split of a whole data set: what to balance, whom to keep together, where it is written."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.dataset import DataSet
from data_prep.folders import folder_lock, make_folder
from data_prep.membership import is_member
from data_prep.schemas import REFERENCE_READER
from data_prep.splits import fold_split, follow_given_roles, require_shares, split_by_patient
from data_prep.tables import (
    InputError,
    frame_digest,
    read_json,
    read_table,
    write_json,
    write_table,
)


@dataclass(frozen=True)
class SplitRule:
    """How a split is drawn.

    Attributes:
        val: Share of patients for validation.
        test: Share of patients for test.
        folds: Number of folds.
        seed: Seed of the draw.

    Raises:
        InputError: The shares do not fit together, or there are fewer than 2 folds.
    """

    val: float = 0.15
    test: float = 0.2
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        require_shares(self.val, self.test, self.folds)


def image_classes(images: pd.DataFrame, findings: pd.DataFrame) -> pd.Series:
    """The class of each image that a split balances.

    Args:
        images: Reads ``image_id`` and, where there is one, ``x_class``.
        findings: Of all readers; the reference reader's count.

    Returns:
        Indexed by ``image_id``: ``x_class`` where the source has one; else the rarest finding
        that is present, ``absent`` if none is, or missing if nothing is known.
    """
    ids = pd.Index(images["image_id"])
    if "x_class" in images.columns:
        return images.set_index("image_id")["x_class"]
    known = findings[findings["reader"] == REFERENCE_READER]
    classes = pd.Series(index=ids, dtype="str")
    classes[is_member(ids, known.loc[known["state"] == "absent", "image_id"])] = "absent"
    present = known[known["state"] == "present"]
    frequency = present["finding"].map(present["finding"].value_counts())
    ordered = present.assign(frequency=frequency).sort_values(["frequency", "finding"])
    rarest = ordered.drop_duplicates("image_id").set_index("image_id")["finding"]
    return rarest.reindex(ids).fillna(classes)


def draw_split(
    images: pd.DataFrame,
    findings: pd.DataFrame,
    decode: pd.DataFrame,
    given: pd.DataFrame,
    rule: SplitRule,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Split a data set by patient, or follow the roles that it came with.

    Args:
        images: The images table.
        findings: The findings table.
        decode: The decode table: patients who share a picture stay together.
        given: ``image_id, role`` where the source fixes it. Roles ``unused`` alone leave the
            other images to be drawn.
        rule: How to draw.

    Returns:
        The split table, and a JSON-ready mapping that says how it was made.
    """
    classes = image_classes(images, findings)
    how: dict[str, Any] = {"method": "by patient", **asdict(rule)}
    fixed = given[given["role"] != "unused"]
    if len(fixed):
        how["method"] = "as given"
        if "train" in set(fixed["role"]) and "val" not in set(fixed["role"]):
            how["method"] = "as given, validation drawn by patient from the given train"
        split = follow_given_roles(given, images, classes, val=rule.val, seed=rule.seed)
        return split, how
    free = images[~is_member(images["image_id"], given["image_id"])]
    linked = decode.set_index("image_id")["pixel_sha256"] if len(decode) else None
    split = split_by_patient(free, classes, linked=linked, **asdict(rule))
    unused = given.assign(fold=pd.array([pd.NA] * len(given), dtype="Int64"))
    return pd.concat([split, unused]).sort_values("image_id", ignore_index=True), how


def add_splits(
    dataset: DataSet, name: str, rule: SplitRule, *, each_fold: bool = False
) -> dict[str, dict[str, int]]:
    """Draw another split of a prepared data set, or one for each fold.

    Args:
        dataset: The data set; its ``dataset.json`` is brought up to date.
        name: Letters, digits, ``-``, ``_`` and ``.``; the splits of folds are called ``name-0``
            and so on.
        rule: How to draw. Images that the default split leaves unused stay unused.
        each_fold: Make a split a fold: the fold validates, the others train, the test set is one.

    Returns:
        Number of images by role, by split.

    Raises:
        InputError: The name is taken or not fit for a file.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"split name {name!r}: use letters, digits, '-', '_' and '.' only")
    default = dataset.split()
    unused = default.loc[default["role"] == "unused", ["image_id", "role"]]
    decode = read_table(dataset.folder / "decode.parquet", "decode")
    split, how = draw_split(dataset.images, dataset.findings, decode, unused, rule)
    if each_fold:
        splits = {f"{name}-{fold}": fold_split(split, fold) for fold in range(rule.folds)}
    else:
        splits = {name: split}
    with folder_lock(dataset.folder):
        # Read again under the lock: another command may have added a split meanwhile.
        info = read_json(dataset.folder / "dataset.json", "dataset")
        taken = sorted(set(splits) & set(info["ids"]["split_ids"]))
        if taken:
            raise InputError(f"{dataset.folder}: split '{taken[0]}' is there; choose another name")
        for split_name, table in splits.items():
            split_id = write_split(dataset.folder, split_name, table, how)
            info["ids"]["split_ids"][split_name] = split_id
        write_json(dataset.folder / "dataset.json", "dataset", info)
    return {key: _count_roles(table) for key, table in splits.items()}


def _count_roles(split: pd.DataFrame) -> dict[str, int]:
    return {str(role): int(count) for role, count in split["role"].value_counts().items()}


def write_split(folder: Path, name: str, split: pd.DataFrame, how: dict[str, Any]) -> str:
    """Write a split's table and how it was made.

    Args:
        folder: The data set.
        name: The split's name.
        split: The split table.
        how: JSON-ready.

    Returns:
        The split's id.
    """
    place = make_folder(folder / "splits")
    split_id = frame_digest(split, ["image_id", "role"])
    write_table(split, place / f"{name}.parquet", "split")
    payload = {"name": name, "split_id": split_id, "how": how, "n_images": _count_roles(split)}
    write_json(place / f"{name}.json", "split", payload)
    return split_id
