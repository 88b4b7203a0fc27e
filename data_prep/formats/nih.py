"""Format of NIH ChestX-ray14 (Wang et al. 2017), as the NIH Clinical Center and Kaggle give it.

The labels were mined from radiology reports by a program, so their origin is ``report_nlp``. Only
an image and finding with official boxes, which are on 880 of 112,120 images, counts as boxed:
another positive image was not looked at for boxes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.tables import empty_table, first_line, refuse_line, to_numbers
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.finding_names import finding_name
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
    reference_rows,
    sized_boxes,
)
from cxr_compare.data_prep.formats.targets import targets_of
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
# What BBox_List calls otherwise than Data_Entry does.
_BOX_NAMES = {"infiltrate": "infiltration"}
# Its header, and that of Data_Entry, have commas inside brackets: one name is several columns.
_BOX = ["Bbox [x", "y", "w", "h]"]
_SIZES = ["OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"]
# The 2017 table writes 058Y, 013M and 002D; that of 2020 writes years.
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_OLDEST = 120
_TRAIN_LIST = "train_val_list.txt"
_TEST_LIST = "test_list.txt"
# Side of the published images, px: the boxes are in it.
SIDE = 1024
_SUFFIX = r"\.\w+$"


def _read_nih(builder: SourceBuilder) -> SourceTables:
    """Read the tables of NIH ChestX-ray14; no pixel is decoded."""
    source = builder.root
    notes = builder.notes
    out = builder.out
    path = find_entries(source)
    if path is None:
        raise InputError(f"{source}: holds no Data_Entry_2017 table; put it there")
    entries = builder.without_repeats(_read_entries(path), path.name)
    if entries.empty:
        raise InputError(f"{path}: lists no image")
    named = _present_findings(entries, path)
    boxes = _known_boxes(source, entries, notes)
    files = list_image_files(source)
    require_unique_ids(files, source)
    _rule_out(builder, entries, boxes, named)
    advice = "; give the folder of the NIH images"
    builder.match_files(entries, files, "image_id", path.name, advice)
    kept = ~is_member(entries["image_id"], list(out.reasons))
    boxes = out.keep(boxes)
    images = _images(entries[kept], files, boxes, notes)
    boxed = boxes[["image_id", "finding"]].drop_duplicates()
    # A model learns the findings of its target: with this one all 14, as CheXNet did.
    return builder.tables(
        images,
        _findings(images["image_id"], named[kept], notes),
        targets_of(FINDINGS, of_all=True),
        files=files,
        boxes=boxes,
        box_coverage=reference_rows(boxed["image_id"], boxed["finding"], coverage="all"),
        official=_official(source, images["image_id"], notes),
    )


def find_entries(folder: Path) -> Path | None:
    """Find ``Data_Entry_2017``; the corrected table of 2020 comes before that of 2017."""
    paths = [p for p in folder.glob("Data_Entry_2017*") if p.name.endswith((".csv", ".csv.gz"))]
    return min(paths, key=lambda p: ("v2020" not in p.name, p.name), default=None)


def _read_entries(path: Path) -> pd.DataFrame:
    """Read ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv``."""
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
    """Read from ``Data_Entry_2017`` how large, in mm, the field of each image is.

    Original spacing x original width is the field's width, whatever the size of the copy.
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
    """Say which findings, and last 'No Finding', each label cell names; shape (entries, 15)."""
    # A few hundred cells differ in the whole set, so the loop is over those.
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


def _known_boxes(source: Path, entries: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The official boxes, from ``BBox_List_2017.csv``, of the listed images."""
    path = next((source / name for name in _BOXES if (source / name).is_file()), None)
    if path is None:
        notes.append(f"{_BOXES[0]}: not there, so no lesion is boxed")
        return empty_table("boxes")
    text = read_text_table(path, ("Image Index", "Finding Label", *_BOX))
    findings = text["Finding Label"].map(finding_name).replace(_BOX_NAMES)
    unknown = ~findings.isin(FINDINGS)
    refuse_line(unknown, path, " is none of the 14 findings", text["Finding Label"])
    ids = text["Image Index"].str.replace(_SUFFIX, "", regex=True)
    boxes = sized_boxes(ids, findings, *(to_numbers(text[c], path, c) for c in _BOX))
    boxes = boxes.drop_duplicates()
    listed = is_member(boxes["image_id"], entries["image_id"])
    if not listed.all():
        notes.append(
            f"{path.name}: {counted(int((~listed).sum()), 'box')} of images not in the table, "
            "unused"
        )
    return boxes[listed].reset_index(drop=True)


def _rule_out(
    builder: SourceBuilder, entries: pd.DataFrame, boxes: pd.DataFrame, named: np.ndarray
) -> None:
    """Rule out images whose rows cannot be right."""
    out = builder.out
    ids = entries["image_id"]
    out.add(ids[ids.duplicated()], "two different rows in Data_Entry")
    digits = ids.str.extract(r"^(\d{8})_\d+$")[0]
    out.add(ids[digits.isna()], "name does not begin with the 8 digits of a patient")
    number = entries["patient_number"]
    disagree = digits.notna() & number.notna() & (digits.astype("float64") != number)
    out.add(ids[disagree], "patient in the name disagrees with Patient ID")
    builder.rule_out_boxes(boxes)
    boxed = boxes["image_id"].to_numpy()
    first = ~ids.duplicated().to_numpy()
    rows = pd.Index(ids[first]).get_indexer(boxed)
    columns = pd.Index(FINDINGS).get_indexer(pd.Index(boxes["finding"]))
    out.add(boxed[~named[first][rows, columns]], "box of a finding that is not labelled present")
    contradictory = named[:, -1] & named[:, :-1].any(axis=1)
    out.add(ids[contradictory], "'No Finding' beside a finding")


def _images(
    entries: pd.DataFrame, files: pd.DataFrame, boxes: pd.DataFrame, notes: list[str]
) -> pd.DataFrame:
    images = entries.drop(columns=["labels", "patient_number"]).reset_index(drop=True)
    ids = images["image_id"]
    images.insert(1, "patient_id", "nih:" + ids.str[:8])
    images.insert(2, "patient_id_source", "given")
    images.insert(3, "source", "nih")
    images.insert(4, "path", ids.map(files.set_index("image_id")["path"]).astype(TEXT))
    # Boxes are true for the published size only; a copy of another size is then refused.
    sized = is_member(ids, boxes["image_id"]) | images["path"].isna()
    for column in ("height", "width"):
        images[column] = pd.Series(SIDE, index=images.index, dtype="Int64").where(sized)
    if images["path"].isna().all():
        notes.append(NO_PIXELS)
    impossible = int((images.get("age_years", pd.Series(dtype="float64")) > _OLDEST).sum())
    if impossible:
        notes.append(
            f"{counted(impossible, 'image', 'have')} an age above {_OLDEST} years, kept as "
            "published"
        )
    if len(boxes):
        n_boxed = boxes["image_id"].nunique()
        notes.append(
            f"{len(boxes)} official boxes on {n_boxed} of {counted(len(images), 'image')}; a "
            "positive image without a box counts as not boxed"
        )
    return images


def _findings(ids: pd.Series, named: np.ndarray, notes: list[str]) -> pd.DataFrame:
    """A row for each of the 14 findings on every labelled image."""
    labelled = named.any(axis=1)
    if not labelled.all():
        notes.append(
            f"{counted(int((~labelled).sum()), 'image', 'have')} no label: unknown, not negative"
        )
    return reference_rows(
        np.repeat(ids.to_numpy(dtype=object)[labelled], len(FINDINGS)),
        np.tile(np.array(FINDINGS, dtype=object), int(labelled.sum())),
        state=np.where(named[labelled, :-1].ravel(), "present", "absent"),
        origin="report_nlp",
    ).astype(TEXT)


def _official(source: Path, ids: pd.Series, notes: list[str]) -> pd.DataFrame | None:
    """NIH's own split: its list for training and validation is ``train``."""
    there = [(source / name).is_file() for name in (_TRAIN_LIST, _TEST_LIST)]
    if not all(there):
        if any(there):
            notes.append(f"the official split needs both {_TRAIN_LIST} and {_TEST_LIST}: not read")
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
    """Read ``train_val_list.txt`` or ``test_list.txt``: a file name a line."""
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
