"""Reader of NIH ChestX-ray14 (Wang et al. 2017), as the NIH Clinical Center and Kaggle give it.

The 14 labels were mined from radiology reports by a program, so their origin is ``report_nlp``;
``No Finding`` makes all 14 absent. The official boxes (``BBox_List_2017``) were drawn by hand on
880 of 112,120 images, for 8 of the findings. Only an image and finding with such boxes counts as
boxed: a positive image without one was not looked at for boxes, so it says nothing about where its
lesions are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import REFERENCE_READER
from data_prep.contracts.tables import empty_table
from data_prep.contracts.text_lookup import is_member
from data_prep.formats.common import list_pictures, one_target_each, require_unique_stems
from data_prep.formats.nih_files import (
    FINDINGS,
    find_entries,
    present_findings,
    read_boxes,
    read_entries,
    read_list,
)
from data_prep.formats.source import Exclusions, SourceTables, no_roles, require_source

BOXES = ("BBox_List_2017.csv", "BBox_List_2017.csv.gz")
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
# Side of the published pictures, px: the boxes are in it.
SIDE = 1024
# A model learns the findings of its target: with this one all 14, as CheXNet did.
ANY, _ANY_SHOWN = "any_finding", {"display_name": "Any finding"}
_OLDEST = 120
_KEY = ["image_id", "finding"]


def read_nih(source: Path) -> SourceTables:
    """Read the tables of NIH ChestX-ray14; no pixel is decoded.

    Args:
        source: Folder with ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv`` (the newer is
            read) and, where there are any, ``BBox_List_2017.csv`` (each also ``.gz``),
            ``train_val_list.txt`` and ``test_list.txt``, and the pictures in any folders below
            (``images/``, ``images_001/images/``).

    Returns:
        14 findings, a target each, and one of all, ``any_finding``. Without any picture, a data set
        without pixels; with some, a row without its picture is excluded, and a picture without its
        row.

    Raises:
        InputError: The folder is not of this format, a table is malformed, an image is in both
            official lists, or two pictures have one name.
    """
    require_source(source, "nih")
    path = find_entries(source)
    if path is None:
        raise InputError(f"{source}: holds no Data_Entry_2017 table; put it there")
    notes: list[str] = []
    entries = _without_repeats(read_entries(path), path, notes)
    named, contradictory = present_findings(entries, path)
    boxes = _known_boxes(source, entries, notes)
    pictures = list_pictures(source)
    require_unique_stems(pictures, source)
    out = _contradictions(entries, boxes, named)
    out.add(entries.loc[contradictory, "image_id"], "'No Finding' beside a finding")
    _match_pictures(entries, pictures, path, source, out)
    kept = ~is_member(entries["image_id"], list(out.reasons))
    boxes = out.keep(boxes)
    images = _images(entries[kept], pictures, boxes, notes)
    return SourceTables(
        format="nih",
        root=source,
        images=images,
        findings=_findings(images["image_id"], named[kept], notes),
        boxes=boxes,
        box_coverage=boxes[_KEY]
        .drop_duplicates()
        .assign(reader=REFERENCE_READER, coverage="all")
        .reset_index(drop=True),
        excluded=out.table(dict(zip(pictures["stem"], pictures["path"], strict=True))),
        targets={**one_target_each(FINDINGS), ANY: {"any_of": list(FINDINGS), **_ANY_SHOWN}},
        split=no_roles(),
        official=_official(source, images["image_id"], notes),
        notes=tuple(notes),
    )


def _without_repeats(entries: pd.DataFrame, path: Path, notes: list[str]) -> pd.DataFrame:
    once = entries.drop_duplicates()
    if len(once) < len(entries):
        notes.append(f"{path.name}: {len(entries) - len(once)} repeated rows, kept once")
    if once.empty:
        raise InputError(f"{path}: lists no image")
    return once


def _known_boxes(source: Path, entries: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The official boxes of the listed images."""
    path = next((source / name for name in BOXES if (source / name).is_file()), None)
    if path is None:
        notes.append(f"{BOXES[0]}: not there, so no lesion is boxed")
        return empty_table("boxes")
    boxes = read_boxes(path).drop_duplicates()
    listed = is_member(boxes["image_id"], entries["image_id"])
    if not listed.all():
        notes.append(
            f"{path.name}: {int((~listed).sum())} boxes of images not in the table, unused"
        )
    return boxes[listed].assign(reader=REFERENCE_READER).reset_index(drop=True)


def _contradictions(entries: pd.DataFrame, boxes: pd.DataFrame, named: np.ndarray) -> Exclusions:
    """Rule out images whose rows cannot be right; a wrong box is a wrong label."""
    out = Exclusions("labels")
    ids = entries["image_id"]
    out.add(ids[ids.duplicated()], "two different rows in Data_Entry")
    digits = ids.str.extract(r"^(\d{8})_\d+$")[0]
    out.add(ids[digits.isna()], "name does not begin with the 8 digits of a patient")
    number = entries["patient_number"]
    disagree = digits.notna() & number.notna() & (digits.astype("float64") != number)
    out.add(ids[disagree], "patient in the name disagrees with Patient ID")
    edges = boxes[["x1", "y1", "x2", "y2"]].to_numpy(dtype="float64")
    boxed = boxes["image_id"].to_numpy()
    out.add(boxed[~np.isfinite(edges).all(axis=1)], "box with a missing or infinite number")
    flat = (edges[:, 0] >= edges[:, 2]) | (edges[:, 1] >= edges[:, 3])
    out.add(boxed[flat], "box of zero or negative size")
    out.add(boxed[(edges < 0).any(axis=1)], "box outside the image")
    first = ~ids.duplicated().to_numpy()
    rows = pd.Index(ids[first]).get_indexer(boxed)
    columns = pd.Index(FINDINGS).get_indexer(pd.Index(boxes["finding"]))
    out.add(boxed[~named[first][rows, columns]], "box of a finding that is not labelled present")
    return out


def _match_pictures(
    entries: pd.DataFrame, pictures: pd.DataFrame, path: Path, source: Path, out: Exclusions
) -> None:
    """Rule out rows without a picture and pictures without a row, if there are pictures at all."""
    if pictures.empty:
        return
    listed = is_member(pictures["stem"], entries["image_id"])
    if not listed.any():
        raise InputError(
            f"{source}: none of its {len(pictures)} pictures is listed in {path.name}; give the "
            "folder of the NIH pictures"
        )
    out.add(pictures.loc[~listed, "stem"], f"no row in {path.name}")
    there = is_member(entries["image_id"], pictures["stem"])
    out.add(entries.loc[~there, "image_id"], f"row in {path.name}, but no picture")


def _images(
    entries: pd.DataFrame, pictures: pd.DataFrame, boxes: pd.DataFrame, notes: list[str]
) -> pd.DataFrame:
    images = entries.drop(columns=["labels", "patient_number"]).reset_index(drop=True)
    ids = images["image_id"]
    images.insert(1, "patient_id", "nih:" + ids.str[:8])
    images.insert(2, "patient_id_source", "given")
    images.insert(3, "source", "nih")
    images.insert(4, "path", ids.map(pictures.set_index("stem")["path"]).astype("str"))
    # Boxes are true for the published size only; a copy of another size is then refused.
    sized = is_member(ids, boxes["image_id"]) | images["path"].isna()
    for column in ("height", "width"):
        images[column] = pd.Series(SIDE, index=images.index, dtype="Int64").where(sized)
    if images["path"].isna().all():
        notes.append("no picture is there: a data set without pixels, to judge predictions on only")
    impossible = int((images.get("age_years", pd.Series(dtype="float64")) > _OLDEST).sum())
    if impossible:
        notes.append(f"{impossible} images have an age above {_OLDEST} years, kept as published")
    if len(boxes):
        n_boxed = boxes["image_id"].nunique()
        notes.append(
            f"{len(boxes)} official boxes on {n_boxed} of {len(images)} images; a positive image "
            "without a box counts as not boxed"
        )
    return images


def _findings(ids: pd.Series, named: np.ndarray, notes: list[str]) -> pd.DataFrame:
    """A row for each of the 14 findings on every labelled image."""
    labelled = named.any(axis=1)
    if not labelled.all():
        notes.append(f"{int((~labelled).sum())} images have no label: unknown, not negative")
    return pd.DataFrame(
        {
            "image_id": np.repeat(ids.to_numpy(dtype=object)[labelled], len(FINDINGS)),
            "finding": np.tile(np.array(FINDINGS, dtype=object), int(labelled.sum())),
            "reader": REFERENCE_READER,
            "state": np.where(named[labelled, :-1].ravel(), "present", "absent"),
            "origin": "report_nlp",
        }
    ).astype("str")


def _official(source: Path, ids: pd.Series, notes: list[str]) -> pd.DataFrame:
    """NIH's own split: its list for training and validation is ``train``."""
    there = [(source / name).is_file() for name in (TRAIN_LIST, TEST_LIST)]
    if not all(there):
        if any(there):
            notes.append(f"the official split needs both {TRAIN_LIST} and {TEST_LIST}: not read")
        return no_roles()
    train, test = read_list(source / TRAIN_LIST), read_list(source / TEST_LIST)
    both = is_member(train, test)
    if both.any():
        raise InputError(
            f"{source}: {int(both.sum())} images are in both {TRAIN_LIST} and {TEST_LIST}; correct "
            "the lists"
        )
    role = np.select([is_member(ids, train), is_member(ids, test)], ["train", "test"], "unused")
    return pd.DataFrame({"image_id": ids, "role": role}).reset_index(drop=True)
