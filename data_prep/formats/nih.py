"""Format `nih`: NIH ChestX-ray14 (Wang et al. 2017), as the NIH Clinical Center and Kaggle publish.

A program extracted the labels from radiology reports, so their origin is ``report_nlp``. There are
official boxes on 880 of 112,120 images. Only these images and findings count as boxed, because
nobody looked for boxes on the other positive images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import first_line, refuse_line, to_numbers
from cxr_compare.data_prep.formats.folder_scan import (
    has_match,
    list_image_files,
    require_unique_ids,
)
from cxr_compare.data_prep.formats.label_files import read_lines
from cxr_compare.data_prep.formats.source import (
    NO_PIXELS,
    Format,
    SourceBuilder,
    SourceTables,
    boxes_from_sizes,
    reference_rows,
)
from cxr_compare.data_prep.formats.targets import targets_from_findings
from cxr_compare.data_prep.formats.views import normal_views

FINDINGS = (
    "atelectasis",
    "cardiomegaly",
    "consolidation",
    "edema",
    "effusion",
    "emphysema",
    "fibrosis",
    "hernia",
    "infiltration",
    "mass",
    "nodule",
    "pleural_thickening",
    "pneumonia",
    "pneumothorax",
)
_NO_FINDING = "no_finding"
_BOXES = ("BBox_List_2017.csv", "BBox_List_2017.csv.gz")
# Name in Data_Entry of a finding that has another name in BBox_List.
_BOX_NAMES = {"infiltrate": "infiltration"}
# The headers of BBox_List and Data_Entry have commas inside brackets, so a name spans columns.
_BOX = ["Bbox [x", "y", "w", "h]"]
_SIZES = ["OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"]
# The 2017 table writes 058Y, 013M and 002D; that of 2020 writes years.
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_OLDEST = 120
_TRAIN_LIST = "train_val_list.txt"
_TEST_LIST = "test_list.txt"
SIDE = 1024
"""Side of the published images, px; the boxes are in these pixels."""
_SUFFIX = r"\.\w+$"


def _read_nih(builder: SourceBuilder) -> SourceTables:
    """Read the tables of NIH ChestX-ray14; no pixel is decoded."""
    source = builder.root
    notes = builder.notes
    exclusions = builder.exclusions
    path = find_entries(source)
    if path is None:
        raise InputError(f"{source}: holds no Data_Entry_2017 table; put it there")
    entries = builder.drop_repeats(read_entries(path), path.name)
    if entries.empty:
        raise InputError(f"{path}: lists no image")
    named = _present_findings(entries, path)
    boxes = _official_boxes(source, entries, notes)
    files = list_image_files(source)
    require_unique_ids(files, source)
    _exclude_contradictory(builder, entries, boxes, named)
    advice = "; give the folder of the NIH images"
    builder.match_files(entries, files, "image_id", path.name, advice)
    kept = ~is_member(entries["image_id"], list(exclusions.reasons))
    boxes = exclusions.keep(boxes)
    images = _images(entries[kept], files, boxes, notes)
    boxed = boxes[["image_id", "finding"]].drop_duplicates()
    # A model learns the findings of its target: with this one all 14, as CheXNet did.
    return builder.build(
        images,
        _findings(images["image_id"], named[kept], notes),
        targets_from_findings(FINDINGS, any_finding=True),
        files=files,
        boxes=boxes,
        box_coverage=reference_rows(boxed["image_id"], boxed["finding"], coverage="all"),
        official=_official(source, images["image_id"], notes),
    )


def find_entries(folder: Path) -> Path | None:
    """Return the path of NIH's table of images, ``Data_Entry_2017``, in a folder.

    Args:
        folder: Folder of the data set NIH ChestX-ray14.

    Returns:
        The corrected table of 2020 if the folder has one, else that of 2017, else None.
    """
    paths = [p for p in folder.glob("Data_Entry_2017*") if p.name.endswith((".csv", ".csv.gz"))]
    return min(paths, key=lambda p: ("v2020" not in p.name, p.name), default=None)


def read_entries(path: Path) -> pd.DataFrame:
    """Read patient, view, sex, age and labels of each image from NIH's table of images.

    Args:
        path: File ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv``.

    Returns:
        Table with one row for each image, and columns for its id, patient, view, sex, age and
        labels.
    """
    text = read_text_table(path, ("Image Index", "Finding Labels", "Patient ID"))
    entries = pd.DataFrame(
        {
            "image_id": text["Image Index"].str.replace(_SUFFIX, "", regex=True),
            "labels": text["Finding Labels"],
            "patient_number": to_numbers(text["Patient ID"], path, "Patient ID"),
        }
    )
    if "View Position" in text.columns:
        entries["view"] = normal_views(text["View Position"])
    if "Patient Gender" in text.columns:
        entries["sex"] = text["Patient Gender"].str.upper().where(text["Patient Gender"] != "")
    if "Patient Age" in text.columns:
        entries["age_years"] = _ages(text["Patient Age"], path)
    if "Follow-up #" in text.columns:
        numbers = to_numbers(text["Follow-up #"], path, "Follow-up #")
        entries["x_follow_up"] = numbers.round().astype("Int64")
    if set(_SIZES) <= set(text.columns):
        entries = entries.join(_field_sizes(text, path))
    return entries


def _ages(text: pd.Series, path: Path) -> pd.Series:
    parts = text.str.upper().str.extract(r"^(\d+(?:\.\d+)?)([YMWD]?)$")
    refuse_line(parts[0].isna() & (text != ""), path, "; expected years, or 058Y", text)
    return parts[0].astype("float64") * parts[1].map(_YEARS).astype("float64")


def read_field_sizes(path: Path) -> pd.DataFrame:
    """Read the width and height in mm that each image shows, from ``Data_Entry_2017``.

    The width is the original pixel spacing times the original number of columns. It does not depend
    on the size of the published copy.

    Args:
        path: Path of the table ``Data_Entry_2017``.

    Returns:
        A table with columns ``nih_image, field_width_mm, field_height_mm``.

    Raises:
        InputError: The table lacks a column, or a cell is no number.
    """
    text = read_text_table(path, ("Image Index",))
    missing = [name for name in _SIZES if name not in text.columns]
    if missing:
        raise InputError(f"{path}: column '{missing[0]}' is missing; use NIH's own Data_Entry file")
    sizes = _field_sizes(text, path).assign(nih_image=text["Image Index"])
    return sizes.drop_duplicates("nih_image")


def _field_sizes(text: pd.DataFrame, path: Path) -> pd.DataFrame:
    width, height, spacing_x, spacing_y = (to_numbers(text[n], path, n) for n in _SIZES)
    return pd.DataFrame(
        {"field_width_mm": width * spacing_x, "field_height_mm": height * spacing_y}
    )


def _present_findings(entries: pd.DataFrame, path: Path) -> np.ndarray:
    """Return True for each finding, and last for 'No Finding', that a row names: (entries, 15)."""
    # The whole set has a few hundred different cells, so the loop runs over these.
    codes, cells = pd.factorize(entries["labels"])
    named = np.zeros((len(cells), len(FINDINGS) + 1), dtype=bool)
    for row, cell in enumerate(cells):
        names = {finding_name(part) for part in cell.split("|")} - {""}
        unknown = names - {*FINDINGS, _NO_FINDING}
        if unknown:
            line = first_line(entries["labels"] == cell)
            raise InputError(
                f"{path}: line {line}: Finding Labels={cell!r}: '{min(unknown)}' is none of the 14 "
                "findings; use NIH's own table"
            )
        named[row] = [name in names for name in (*FINDINGS, _NO_FINDING)]
    return named[codes]


def _official_boxes(source: Path, entries: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Read the official boxes of the listed images from ``BBox_List_2017.csv``."""
    path = next((source / name for name in _BOXES if (source / name).is_file()), None)
    if path is None:
        notes.append(f"{_BOXES[0]} is missing, so no lesion is boxed")
        return empty_table("boxes")
    text = read_text_table(path, ("Image Index", "Finding Label", *_BOX))
    findings = text["Finding Label"].map(finding_name).replace(_BOX_NAMES)
    unknown = ~findings.isin(FINDINGS)
    refuse_line(unknown, path, " is none of the 14 findings", text["Finding Label"])
    ids = text["Image Index"].str.replace(_SUFFIX, "", regex=True)
    boxes = boxes_from_sizes(ids, findings, *(to_numbers(text[c], path, c) for c in _BOX))
    boxes = boxes.drop_duplicates()
    listed = is_member(boxes["image_id"], entries["image_id"])
    if not listed.all():
        notes.append(
            f"{path.name}: {counted(int((~listed).sum()), 'box')} on images that the table does "
            "not list were ignored"
        )
    return boxes[listed].reset_index(drop=True)


def _exclude_contradictory(
    builder: SourceBuilder, entries: pd.DataFrame, boxes: pd.DataFrame, named: np.ndarray
) -> None:
    """Exclude images whose rows contradict each other."""
    exclusions = builder.exclusions
    ids = entries["image_id"]
    exclusions.add(ids[ids.duplicated()], "two different rows in Data_Entry")
    digits = ids.str.extract(r"^(\d{8})_\d+$")[0]
    exclusions.add(ids[digits.isna()], "name does not begin with the 8 digits of a patient")
    number = entries["patient_number"]
    disagree = digits.notna() & number.notna() & (digits.astype("float64") != number)
    exclusions.add(ids[disagree], "patient in the name disagrees with Patient ID")
    builder.exclude_invalid_boxes(boxes)
    boxed = boxes["image_id"].to_numpy()
    first = ~ids.duplicated().to_numpy()
    rows = pd.Index(ids[first]).get_indexer(boxed)
    columns = pd.Index(FINDINGS).get_indexer(pd.Index(boxes["finding"]))
    exclusions.add(
        boxed[~named[first][rows, columns]], "box of a finding that is not labelled present"
    )
    contradictory = named[:, -1] & named[:, :-1].any(axis=1)
    exclusions.add(ids[contradictory], "'No Finding' beside a finding")


def _images(
    entries: pd.DataFrame, files: pd.DataFrame, boxes: pd.DataFrame, notes: list[str]
) -> pd.DataFrame:
    images = entries.drop(columns=["labels", "patient_number"]).reset_index(drop=True)
    ids = images["image_id"]
    images.insert(1, "patient_id", "nih:" + ids.str[:8])
    images.insert(2, "patient_id_source", "given")
    images.insert(3, "source", "nih")
    images.insert(4, "path", ids.map(files.set_index("image_id")["path"]).astype(TEXT))
    # Boxes fit the published size only; with this size stated, a copy of another size is refused.
    sized = is_member(ids, boxes["image_id"]) | images["path"].isna()
    for column in ("height", "width"):
        images[column] = pd.Series(SIDE, index=images.index, dtype="Int64").where(sized)
    if images["path"].isna().all():
        notes.append(NO_PIXELS)
    impossible = int((images.get("age_years", pd.Series(dtype="float64")) > _OLDEST).sum())
    if impossible:
        notes.append(
            f"{counted(impossible, 'image', 'have')} an age above {_OLDEST} years, which is stored "
            "as published"
        )
    if len(boxes):
        n_boxed = boxes["image_id"].nunique()
        notes.append(
            f"There are {len(boxes)} official boxes on {n_boxed} of "
            f"{counted(len(images), 'image')}; a positive image without a box counts as not boxed"
        )
    return images


def _findings(ids: pd.Series, named: np.ndarray, notes: list[str]) -> pd.DataFrame:
    """Build a row for each of the 14 findings on every labelled image."""
    labelled = named.any(axis=1)
    if not labelled.all():
        notes.append(
            f"{counted(int((~labelled).sum()), 'image', 'have')} no label: their findings are "
            "unknown, not absent"
        )
    return reference_rows(
        np.repeat(ids.to_numpy(dtype=object)[labelled], len(FINDINGS)),
        np.tile(np.array(FINDINGS, dtype=object), int(labelled.sum())),
        state=np.where(named[labelled, :-1].ravel(), "present", "absent"),
        origin="report_nlp",
    ).astype(TEXT)


def _official(source: Path, ids: pd.Series, notes: list[str]) -> pd.DataFrame | None:
    """Read NIH's own split; the list for training and validation becomes ``train``."""
    exist = [(source / name).is_file() for name in (_TRAIN_LIST, _TEST_LIST)]
    if not all(exist):
        if any(exist):
            notes.append(
                f"The official split was not read: it needs both {_TRAIN_LIST} and {_TEST_LIST}"
            )
        return None
    train = _read_list(source / _TRAIN_LIST)
    test = _read_list(source / _TEST_LIST)
    both = is_member(train, test)
    if both.any():
        raise InputError(
            f"{source}: {counted(int(both.sum()), 'image', 'are')} in both {_TRAIN_LIST} and "
            f"{_TEST_LIST}; correct the lists"
        )
    role = np.select([is_member(ids, train), is_member(ids, test)], ["train", "test"], "unused")
    return pd.DataFrame({"image_id": ids, "role": role}).reset_index(drop=True)


def _read_list(path: Path) -> pd.Series:
    """Read ``train_val_list.txt`` or ``test_list.txt``, which hold one file name a line."""
    names = filter(None, map(str.strip, read_lines(path)))
    return pd.Series([Path(name).stem for name in names], dtype=TEXT).drop_duplicates()


NIH = Format(
    name="nih",
    title="NIH ChestX-ray14",
    folder="`Data_Entry_2017*.csv`, images in any folders",
    detect=has_match("Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz"),
    read=_read_nih,
    sources=("nihcc.app.box.com/v/ChestXray-NIHCC", "kaggle.com/datasets/nih-chest-xrays/data"),
)
