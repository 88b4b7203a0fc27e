"""The tables of NIH ChestX-ray14: labels and people, official boxes and lists, true sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.formats.common import finding_name
from data_prep.formats.source import first_line, normal_views, read_text_csv, to_numbers

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
    """Find ``Data_Entry_2017``; the corrected table of 2020 comes before that of 2017.

    Args:
        folder: Where to look, not below.

    Returns:
        A ``.csv`` or ``.csv.gz`` file, or None.
    """
    found = [p for p in folder.glob("Data_Entry_2017*") if p.name.endswith((".csv", ".csv.gz"))]
    return min(found, key=lambda p: ("v2020" not in p.name, p.name), default=None)


def read_entries(path: Path) -> pd.DataFrame:
    """Read ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv``.

    Returns:
        ``image_id`` (the name without its suffix), ``labels`` (the cell as it stands),
        ``patient_number``, ``view, sex, age_years, x_follow_up`` and, where the file has the
        original sizes, ``field_width_mm, field_height_mm``; one row a row, and row ``i`` is line
        ``i + 2``. Impossible ages stay: the audit names them.

    Raises:
        InputError: A column is missing, or a cell is not a number or an age.
    """
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
    if bad.any():
        value = text[bad].iloc[0]
        raise InputError(
            f"{path}: line {first_line(bad)}: Patient Age={value!r}; expected years, or 058Y"
        )
    return parts[0].astype("float64") * parts[1].map(_YEARS).astype("float64")


def present_findings(entries: pd.DataFrame, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Say which findings each label cell names; one named twice counts once.

    Args:
        entries: As from `read_entries`.
        path: The file, for the message.

    Returns:
        bool, shape ``(N, 15)``: the 14 of `FINDINGS` in their order, then ``No Finding``; and
        bool, shape ``(N,)``: whether the cell contradicts itself, naming both.

    Raises:
        InputError: A label is none of the 14 and not ``No Finding``.
    """
    # A few hundred cells differ in the whole set, so the loop is over those.
    codes, cells = pd.factorize(entries["labels"])
    named = np.zeros((len(cells), len(FINDINGS) + 1), dtype=bool)
    for row, cell in enumerate(cells):
        names = {finding_name(part) for part in cell.split("|")} - {""}
        strange = names - {*FINDINGS, NO_FINDING}
        if strange:
            line = first_line(entries["labels"] == cell)
            raise InputError(
                f"{path}: line {line}: Finding Labels={cell!r}: '{min(strange)}' is none of the 14 "
                "findings; use NIH's own table"
            )
        named[row] = [name in names for name in (*FINDINGS, NO_FINDING)]
    named = named[codes]
    return named, named[:, -1] & named[:, :-1].any(axis=1)


def read_boxes(path: Path) -> pd.DataFrame:
    """Read ``BBox_List_2017.csv``.

    Returns:
        ``image_id, finding, x1, y1, x2, y2`` (px of the published 1024 x 1024 picture).

    Raises:
        InputError: A column is missing, a cell is not a number, or a finding is unknown.
    """
    text = read_text_csv(path, ("Image Index", "Finding Label", *_BOX))
    findings = text["Finding Label"].map(finding_name).replace(_BOX_NAMES)
    strange = ~findings.isin(FINDINGS)
    if strange.any():
        raise InputError(
            f"{path}: line {first_line(strange)}: Finding Label="
            f"{text['Finding Label'][strange].iloc[0]!r} is none of the 14 findings"
        )
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


def read_list(path: Path) -> pd.Series:
    """Read ``train_val_list.txt`` or ``test_list.txt``: a file name a line.

    Returns:
        Ids of the images, without the suffix.

    Raises:
        InputError: The file is not text.
    """
    try:
        names = path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as a list of file names ({error})") from None
    return pd.Series([Path(name).stem for name in names], dtype="str").drop_duplicates()


def read_field_sizes(path: Path) -> pd.DataFrame:
    """Read from ``Data_Entry_2017`` how large, in mm, the field of each image is.

    Original spacing x original width is the field's width, whatever the size of the copy.

    Returns:
        ``nih_image`` (``00019124_092.png``), ``field_width_mm, field_height_mm``.

    Raises:
        InputError: The file has no original sizes.
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
