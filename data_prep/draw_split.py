"""The split of a whole data set: what to balance, whom to keep together, where it is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.folders import make_folder
from data_prep.schemas import REFERENCE_READER
from data_prep.splits import follow_given_roles, split_by_patient
from data_prep.tables import frame_digest, write_json, write_table


@dataclass(frozen=True)
class SplitRule:
    """How a split is drawn.

    Attributes:
        val: Share of patients for validation.
        test: Share of patients for test.
        folds: Number of folds.
        seed: Seed of the draw.
    """

    val: float = 0.15
    test: float = 0.2
    folds: int = 5
    seed: int = 0


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
    classes[ids.isin(known.loc[known["state"] == "absent", "image_id"])] = "absent"
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
    free = images[~images["image_id"].isin(given["image_id"])]
    linked = decode.set_index("image_id")["pixel_sha256"] if len(decode) else None
    split = split_by_patient(free, classes, linked=linked, **asdict(rule))
    unused = given.assign(fold=pd.array([pd.NA] * len(given), dtype="Int64"))
    return pd.concat([split, unused]).sort_values("image_id", ignore_index=True), how


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
    counts = split["role"].value_counts().to_dict()
    payload = {"name": name, "split_id": split_id, "how": how, "n_images": counts}
    write_json(place / f"{name}.json", "split", payload)
    return split_id
