"""Write splits into a data set folder."""

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


def write_splits(
    folder: Path, splits: dict[str, pd.DataFrame], how: SplitRecord, *, replaces: bool
) -> None:
    """Write splits by name, and their ids into ``dataset.json``."""
    with folder_lock(folder):
        # Read again under the lock: another command may have added a split meanwhile.
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
    """Write a split's table and how it was made."""
    place = make_folder(folder / "splits")
    split_id = frame_digest(split, ["image_id", "role"])
    write_table(split, place / f"{name}.parquet", "split")
    n_images = {str(role): int(count) for role, count in split["role"].value_counts().items()}
    payload = {"name": name, "split_id": split_id, "how": how, "n_images": n_images}
    write_json(place / f"{name}.json", "split", payload)
    return split_id
