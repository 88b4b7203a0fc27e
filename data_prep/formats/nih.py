"""Format of NIH ChestX-ray14 (Wang et al. 2017), as the NIH Clinical Center and Kaggle give it.

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
from data_prep.contracts.tables import (
    empty_table,
    first_line,
    is_member,
    read_text_csv,
    refuse_line,
    to_numbers,
)
from data_prep.contracts.words import counted
from data_prep.formats.source import (
    NO_PIXELS,
    Exclusions,
    Format,
    ReadOptions,
    SourceBuilder,
    SourceTables,
    finding_name,
    has_match,
    list_image_files,
    no_roles,
    normal_views,
    one_target_each,
    reference_rows,
    require_format,
    require_unique_stems,
)

FINDINGS = (
    "atelectasis", "cardiomegaly", "consolidation", "edema", "effusion", "emphysema", "fibrosis",
    "hernia", "infiltration", "mass", "nodule", "pleural_thickening", "pneumonia", "pneumothorax",
)  # fmt: skip
NO_FINDING = "no_finding"
# What BBox_List calls otherwise than Data_Entry does.
_BOX_NAMES = {"infiltrate": "infiltration"}
# The 2017 table writes 058Y, 013M and 002D; that of 2020 writes years.
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
# The header has commas inside brackets: OriginalImage[Width,Height] is two columns.
_SIZES = ["OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"]
_BOX = ["Bbox [x", "y", "w", "h]"]


def find_entries(folder: Path) -> Path | None:
    """Find ``Data_Entry_2017``; the corrected table of 2020 comes before that of 2017."""
    paths = [p for p in folder.glob("Data_Entry_2017*") if p.name.endswith((".csv", ".csv.gz"))]
    return min(paths, key=lambda p: ("v2020" not in p.name, p.name), default=None)


def _read_entries(path: Path) -> pd.DataFrame:
    """Read ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv``."""
    text = read_text_csv(path, ("Image Index", "Finding Labels", "Patient ID"))
    entries = pd.DataFrame(
        {
            "image_id": text["Image Index"].str.replace(r"\.\w+$", "", regex=True),
            "labels": text["Finding Labels"],
            "patient_number": to_numbers(text["Patient ID"], path, "Patient ID"),
        }
    )
    if "View Position" in text.columns:
        entries["view"] = normal_views(text["View Position"])
    if "Patient Gender" in text.columns:
        sex = text["Patient Gender"].str.upper()
        entries["sex"] = sex.where(sex != "")
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
    bad = parts[0].isna() & (text != "")
    refuse_line(bad, path, "; expected years, or 058Y", text)
    return parts[0].astype("float64") * parts[1].map(_YEARS).astype("float64")


def _present_findings(entries: pd.DataFrame, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Say which findings each label cell names; one named twice counts once."""
    # A few hundred cells differ in the whole set, so the loop is over those.
    codes, cells = pd.factorize(entries["labels"])
    named = np.zeros((len(cells), len(FINDINGS) + 1), dtype=bool)
    for row, cell in enumerate(cells):
        names = {finding_name(part) for part in cell.split("|")} - {""}
        unknown = names - {*FINDINGS, NO_FINDING}
        if unknown:
            line = first_line(entries["labels"] == cell)
            raise InputError(
                f"{path}: line {line}: Finding Labels={cell!r}: '{min(unknown)}' is none of the 14 "
                "findings; use NIH's own table"
            )
        named[row] = [name in names for name in (*FINDINGS, NO_FINDING)]
    named = named[codes]
    return named, named[:, -1] & named[:, :-1].any(axis=1)


def _read_boxes(path: Path) -> pd.DataFrame:
    """Read ``BBox_List_2017.csv``."""
    text = read_text_csv(path, ("Image Index", "Finding Label", *_BOX))
    findings = text["Finding Label"].map(finding_name).replace(_BOX_NAMES)
    unknown = ~findings.isin(FINDINGS)
    refuse_line(unknown, path, " is none of the 14 findings", text["Finding Label"])
    x, y, width, height = (to_numbers(text[c], path, c) for c in _BOX)
    return pd.DataFrame(
        {
            "image_id": text["Image Index"].str.replace(r"\.\w+$", "", regex=True),
            "finding": findings,
            "x1": x,
            "y1": y,
            "x2": x + width,
            "y2": y + height,
        }
    ).reset_index(drop=True)


def _read_list(path: Path) -> pd.Series:
    """Read ``train_val_list.txt`` or ``test_list.txt``: a file name a line."""
    try:
        names = path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as a list of file names ({error})") from None
    return pd.Series([Path(name).stem for name in names], dtype="str").drop_duplicates()


def read_field_sizes(path: Path) -> pd.DataFrame:
    """Read from ``Data_Entry_2017`` how large, in mm, the field of each image is.

    Original spacing x original width is the field's width, whatever the size of the copy.
    """
    text = read_text_csv(path, ("Image Index",))
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


BOXES = ("BBox_List_2017.csv", "BBox_List_2017.csv.gz")
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
# Side of the published images, px: the boxes are in it.
SIDE = 1024
# A model learns the findings of its target: with this one all 14, as CheXNet did.
ANY, _ANY_SHOWN = "any_finding", {"display_name": "Any finding"}
_OLDEST = 120


def _read_nih(source: Path, _: ReadOptions) -> SourceTables:
    """Read the tables of NIH ChestX-ray14; no pixel is decoded."""
    require_format(source, NIH)
    path = find_entries(source)
    if path is None:
        raise InputError(f"{source}: holds no Data_Entry_2017 table; put it there")
    builder = SourceBuilder("nih", source)
    notes, out = builder.notes, builder.out
    entries = builder.without_repeats(_read_entries(path), path.name)
    if entries.empty:
        raise InputError(f"{path}: lists no image")
    named, contradictory = _present_findings(entries, path)
    boxes = _known_boxes(source, entries, notes)
    files = list_image_files(source)
    require_unique_stems(files, source)
    _rule_out(builder, entries, boxes, named)
    out.add(entries.loc[contradictory, "image_id"], "'No Finding' beside a finding")
    _match_files(entries, files, path, source, out)
    kept = ~is_member(entries["image_id"], list(out.reasons))
    boxes = out.keep(boxes)
    images = _images(entries[kept], files, boxes, notes)
    boxed = boxes[["image_id", "finding"]].drop_duplicates()
    return builder.tables(
        images,
        _findings(images["image_id"], named[kept], notes),
        {**one_target_each(FINDINGS), ANY: {"any_of": list(FINDINGS), **_ANY_SHOWN}},
        paths=dict(zip(files["stem"], files["path"], strict=True)),
        boxes=boxes,
        box_coverage=reference_rows(boxed["image_id"], boxed["finding"], coverage="all"),
        official=_official(source, images["image_id"], notes),
    )


def _known_boxes(source: Path, entries: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The official boxes of the listed images."""
    path = next((source / name for name in BOXES if (source / name).is_file()), None)
    if path is None:
        notes.append(f"{BOXES[0]}: not there, so no lesion is boxed")
        return empty_table("boxes")
    boxes = _read_boxes(path).drop_duplicates()
    listed = is_member(boxes["image_id"], entries["image_id"])
    if not listed.all():
        notes.append(
            f"{path.name}: {counted(int((~listed).sum()), 'box')} of images not in the table, "
            "unused"
        )
    return boxes[listed].assign(reader=REFERENCE_READER).reset_index(drop=True)


def _rule_out(
    builder: SourceBuilder, entries: pd.DataFrame, boxes: pd.DataFrame, named: np.ndarray
) -> None:
    """Rule out images whose rows cannot be right."""
    out, ids = builder.out, entries["image_id"]
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


def _match_files(
    entries: pd.DataFrame, images: pd.DataFrame, path: Path, source: Path, out: Exclusions
) -> None:
    """Rule out rows without a file and files without a row, if there are files at all."""
    if images.empty:
        return
    listed = is_member(images["stem"], entries["image_id"])
    if not listed.any():
        raise InputError(
            f"{source}: none of its {len(images)} images is listed in {path.name}; give the "
            "folder of the NIH images"
        )
    out.add(images.loc[~listed, "stem"], f"no row in {path.name}")
    there = is_member(entries["image_id"], images["stem"])
    out.add(entries.loc[~there, "image_id"], f"row in {path.name}, but no image")


def _images(
    entries: pd.DataFrame, files: pd.DataFrame, boxes: pd.DataFrame, notes: list[str]
) -> pd.DataFrame:
    images = entries.drop(columns=["labels", "patient_number"]).reset_index(drop=True)
    ids = images["image_id"]
    images.insert(1, "patient_id", "nih:" + ids.str[:8])
    images.insert(2, "patient_id_source", "given")
    images.insert(3, "source", "nih")
    images.insert(4, "path", ids.map(files.set_index("stem")["path"]).astype("str"))
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
    ).astype("str")


def _official(source: Path, ids: pd.Series, notes: list[str]) -> pd.DataFrame:
    """NIH's own split: its list for training and validation is ``train``."""
    there = [(source / name).is_file() for name in (TRAIN_LIST, TEST_LIST)]
    if not all(there):
        if any(there):
            notes.append(f"the official split needs both {TRAIN_LIST} and {TEST_LIST}: not read")
        return no_roles()
    train, test = _read_list(source / TRAIN_LIST), _read_list(source / TEST_LIST)
    both = is_member(train, test)
    if both.any():
        raise InputError(
            f"{source}: {counted(int(both.sum()), 'image', 'are')} in both {TRAIN_LIST} and "
            f"{TEST_LIST}; correct the lists"
        )
    role = np.select([is_member(ids, train), is_member(ids, test)], ["train", "test"], "unused")
    return pd.DataFrame({"image_id": ids, "role": role}).reset_index(drop=True)


NIH = Format(
    name="nih",
    title="NIH ChestX-ray14",
    folder="`Data_Entry_2017*.csv`, and the images in any folders below",
    detect=has_match("Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz"),
    read=_read_nih,
    sources=("nihcc.app.box.com/v/ChestXray-NIHCC", "kaggle.com/datasets/nih-chest-xrays/data"),
)
