"""Writing of splits into a data set folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.tables import frame_digest, write_table

SplitRecord = dict[str, Any]
"""JSON-ready description of how a split was made."""


def write_splits(
    folder: Path, splits: dict[str, pd.DataFrame], how: SplitRecord, *, replaces: bool
) -> None:
    """Write splits into a data set folder, and their digests into its ``dataset.json``.

    A split assigns each image to train, validation or test. By the digest, a later change of a
    split is noticed.

    Args:
        folder: Data set folder.
        splits: By name of a split, the table with ``image_id``, ``role`` (train, val, test, unused)
            and ``fold``.
        how: Record of the method and options with which the splits were made, by key.
        replaces: True replaces existing splits of these names. False requires new names.

    Raises:
        InputError: A split of this name exists already, or `replaces` is True and none exists.
    """
    with folder_lock(folder):
        # This is read again under the lock, since another command may have added a split.
        info = read_json(folder / "dataset.json", "dataset")
        taken = sorted(set(splits) & set(info["ids"]["split_ids"]))
        if taken and not replaces:
            raise InputError(
                f"{folder}: split '{taken[0]}' is there; choose another name, or --replace it"
            )
        if replaces and len(taken) < len(splits):
            new = sorted(set(splits) - set(taken))[0]
            raise InputError(f"{folder}: has no split '{new}' to replace; leave out --replace")
        for name, table in splits.items():
            info["ids"]["split_ids"][name] = write_split(folder, name, table, how)
        write_json(folder / "dataset.json", "dataset", info)


def write_split(folder: Path, name: str, split: pd.DataFrame, how: SplitRecord) -> str:
    """Write one split (assignment of images to train, validation and test) and its record.

    Args:
        folder: Folder of the data set.
        name: Name of the split.
        split: Table with columns ``image_id``, ``role`` (train, val, test, unused) and ``fold``.
        how: Record of the method and options with which the split was made, by key.

    Returns:
        Digest of ids and roles, 16 hexadecimal digits, which is the same for equal splits.

    Raises:
        InputError: A cell of the table has a value that is not allowed, or the disk is full.
    """
    split_folder = make_folder(folder / "splits")
    split_id = frame_digest(split, ["image_id", "role"])
    write_table(split, split_folder / f"{name}.parquet", "split")
    n_images = {str(role): int(count) for role, count in split["role"].value_counts().items()}
    payload = {"name": name, "split_id": split_id, "how": how, "n_images": n_images}
    write_json(split_folder / f"{name}.json", "split", payload)
    return split_id
