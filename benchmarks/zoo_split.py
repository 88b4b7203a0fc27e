"""The zoo table's split of Kermany: the official test folder apart, a sixth of the others held out.

    python -m benchmarks.zoo_split DATA held.csv && cxr split DATA --name held --file held.csv

Validation is the official split's; a patient of its training images is held out by the digest of
the patient's id, so that the same children are held out wherever the data set is prepared.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pandas as pd

from data_prep.store.dataset import DataSet

_HELD = 1 / 6  # of the patients who would train


def _held(patient_id: str) -> bool:
    return int(hashlib.sha256(patient_id.encode()).hexdigest()[:8], 16) / 16**8 < _HELD


def held_roles(images: pd.DataFrame, official: pd.DataFrame) -> pd.DataFrame:
    """A role for every image but those of the official test folder and its patients.

    Args:
        images: Reads ``image_id, patient_id``.
        official: The official split, ``image_id, role``.

    Returns:
        ``image_id, role``: train and val as before, test for the patients held out.

    Example:
        >>> images = pd.DataFrame({"image_id": list("abc"), "patient_id": ["p2", "p9", "p3"]})
        >>> official = pd.DataFrame({"image_id": list("abc"), "role": ["train", "train", "test"]})
        >>> held_roles(images, official)["role"].tolist()
        ['train', 'test']
    """
    roles = official[["image_id", "role"]].merge(images[["image_id", "patient_id"]], "left")
    roles = roles[roles["role"].isin(["train", "val"])]
    held = (roles["role"] == "train") & roles["patient_id"].map(_held)
    return roles.assign(role=roles["role"].mask(held, "test"))[["image_id", "role"]]


def _main(data: str, out: str) -> None:
    dataset = DataSet.open(Path(data))
    held_roles(dataset.images, dataset.split("official")).to_csv(out, index=False)


if __name__ == "__main__":
    _main(*sys.argv[1:])
