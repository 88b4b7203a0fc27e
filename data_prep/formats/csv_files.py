"""Formats of your own data sets: three CSV files, or any tables with a folder of images.

docs/formats.md lists the columns of the three files. With ``--format table`` the tables may have
other columns (`data_prep.formats.table`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER, ROLES
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import refuse_line, to_numbers
from cxr_compare.data_prep.formats.class_names import STATE_OF_TEXT
from cxr_compare.data_prep.formats.folder_scan import has_match
from cxr_compare.data_prep.formats.label_files import add_name_space
from cxr_compare.data_prep.formats.label_values import LONGEST_SIDE_PX
from cxr_compare.data_prep.formats.labels import tables_from_labels
from cxr_compare.data_prep.formats.reference import LABEL_KEY
from cxr_compare.data_prep.formats.source import FINDING_KEY, Format, SourceBuilder, SourceTables
from cxr_compare.data_prep.formats.views import normal_views

_IMAGES = "images.csv"
_LABELS = "labels.csv"
_BOXES = "boxes.csv"
_NUMBERS = ("height", "width", "age_years", "spacing_row_mm", "spacing_col_mm")
_TEXTS = ("image_id", "patient_id", "path", "view", "sex", "study_id", "split")


def _read_csv_set(builder: SourceBuilder) -> SourceTables:
    """Read ``images.csv``, ``labels.csv`` and, where there is one, ``boxes.csv``."""
    path = builder.root / _IMAGES
    exclusions = builder.exclusions
    text = read_text_table(path, ("image_id",), ("patient_id", "path"))
    text = _without_repeats(text, path, ["image_id"], builder.notes)
    labels = _read_labels(builder)
    boxes = _read_boxes(builder)
    if (text["path"] != "").any():
        exclusions.add(text.loc[text["path"] == "", "image_id"], f"no path in {_IMAGES}")
    for frame, name in ((labels, _LABELS), (boxes, _BOXES)):
        strangers = frame.loc[~is_member(frame["image_id"], text["image_id"]), "image_id"]
        exclusions.add(strangers, f"row in {name}, but not in {_IMAGES}")
    return tables_from_image_rows(builder, text, labels, boxes, path)


def tables_from_image_rows(
    builder: SourceBuilder,
    text: pd.DataFrame,
    labels: pd.DataFrame,
    boxes: pd.DataFrame,
    path: Path,
    **options: Any,
) -> SourceTables:
    """Build the tables of a data set from a table of images, labels and boxes.

    Args:
        builder: Object that knows the user's folder and options, and collects notes and excluded
            images.
        text: Table of the images, with all cells as text, and with ``image_id``, ``patient_id`` and
            ``path``.
        labels: Table with columns ``image_id, finding, reader`` (person who labelled), ``state``
            (present, absent or uncertain) and ``origin`` (kind of label, such as ``radiologists``).
        boxes: Table with columns ``image_id, finding, reader, x1, y1, x2, y2``, edges in px of the
            original image.
        path: File of the images table, for messages.
        **options: Further keyword arguments of `data_prep.formats.labels.tables_from_labels`:
            ``lacking``, ``if_widths`` and tables.

    Returns:
        All tables of the data set, before pixels are decoded.

    Raises:
        InputError: A cell cannot be understood, or every image is excluded.
    """
    images, roles = _images(builder, text, path)
    return tables_from_labels(
        builder,
        images,
        labels,
        boxes,
        path=path,
        lacking="label",
        files=images.dropna(subset="path"),
        split=roles,
        **options,
    )


def _images(
    builder: SourceBuilder, text: pd.DataFrame, path: Path
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Build the ``images`` table, and ``image_id, role`` if there is a ``split`` column."""
    space = builder.root.resolve().name
    if text.empty:
        raise InputError(f"{path}: lists no image")
    free = [c for c in text.columns if c.startswith("x_")]
    unknown = [c for c in text.columns if c not in (*_TEXTS, *_NUMBERS, *free)]
    if unknown:
        raise InputError(
            f"{path}: unknown column '{unknown[0]}'; call it 'x_{unknown[0]}' to keep it for "
            "subgroups, or remove it"
        )
    remedy = ""
    if "patient_pattern" in builder.format.options:
        remedy = "Give --patient-pattern if the file names contain the patient"
    patients = builder.patients(
        add_name_space(text["patient_id"].where(text["patient_id"] != ""), space),
        f"{space}:image-" + text["image_id"],
        lambda n: f"{path.name} gives no patient_id for {counted(n, 'image')}, so each",
        remedy=remedy,
    )
    images = text[["image_id", *free]].join(patients).assign(source=space)
    images["path"] = _relative_paths(text["path"], path)
    for column in _NUMBERS:
        if column in text.columns:
            images[column] = to_numbers(text[column], path, column)
    for column in ("height", "width"):
        if column in text.columns:
            _require_sides(images, column, path)
    for column in ("sex", "study_id"):
        if column in text.columns:
            images[column] = text[column].where(text[column] != "")
    if "view" in text.columns:
        images["view"] = normal_views(text["view"])
    return images.reset_index(drop=True), _stated_roles(text, images["patient_id"], path)


def _require_sides(images: pd.DataFrame, column: str, path: Path) -> None:
    """Refuse a height or width that no image can have."""
    sides = images[column].dropna()
    wrong = sides[(sides < 1) | (sides > LONGEST_SIDE_PX) | (sides % 1 != 0)]
    if len(wrong):
        raise InputError(
            f"{path}: image {images['image_id'][wrong.index[0]]!r}: {column}={wrong.iloc[0]:g} px "
            "is not the side of an image; correct it, or leave the cell empty"
        )


def _without_repeats(
    text: pd.DataFrame, path: Path, key: list[str], notes: list[str]
) -> pd.DataFrame:
    """Drop repeated rows with a note; refuse an empty key, and an image with different rows."""
    for column in key:
        refuse_line(text[column] == "", path, f"{column} is empty; fill it in")
    candidates = text[text.duplicated(key, keep=False)]  # comparing whole rows takes far longer
    repeated = candidates.duplicated()
    if key == ["image_id"]:
        versions = candidates[~repeated]
        reason = " appears more than once with different values; keep one line"
        refuse_line(versions.duplicated(key), path, reason, versions["image_id"])
    if not repeated.any():
        return text
    notes.append(f"{path.name}: {int(repeated.sum())} repeated rows were dropped")
    return text.drop(index=candidates.index[repeated])


def _relative_paths(text: pd.Series, path: Path) -> pd.Series:
    """Return the paths, missing where empty; refuse paths that leave the folder."""
    outside = text.str.startswith(("/", "~", "\\")) | text.str.contains(
        r"(?:^|[/\\])\.\.(?:[/\\]|$)", regex=True
    )
    refuse_line(outside, path, " must be relative and inside the folder of images.csv", text)
    return text.where(text != "")


def _stated_roles(text: pd.DataFrame, patients: pd.Series, path: Path) -> pd.DataFrame | None:
    if "split" not in text.columns or (text["split"] == "").all():
        return None
    role = text["split"].str.lower().replace({"valid": "val", "validation": "val"})
    expected = f"; expected one of {', '.join(ROLES)} on every line, or no split column"
    refuse_line(~role.isin(ROLES), path, expected, text["split"])
    pairs = pd.DataFrame({"patient": patients, "role": role})
    pairs = pairs[pairs["role"] != "unused"].drop_duplicates()
    repeated = pairs["patient"].duplicated()
    if repeated.any():
        patient = pairs.loc[repeated, "patient"].iloc[0]
        both = " and ".join(pairs.loc[pairs["patient"] == patient, "role"])
        raise InputError(
            f"{path}: patient {patient!r} has images in {both} ({int(repeated.sum())} such "
            "patients); a patient has one role: correct the split column or leave it out"
        )
    return pd.DataFrame({"image_id": text["image_id"], "role": role}).reset_index(drop=True)


def _read_labels(builder: SourceBuilder) -> pd.DataFrame:
    path = builder.root / _LABELS
    text = _read_rows(path, (*FINDING_KEY, "state"), builder.notes)
    state = renamed(text["state"].str.lower(), STATE_OF_TEXT)
    expected = "; expected present, absent or uncertain (or 1, 0)"
    refuse_line(state.isna(), path, expected, text["state"])
    if text.empty:
        raise InputError(f"{path}: has no label")
    origin = (text["reader"] == REFERENCE_READER).map({True: "unknown", False: "reader"})
    rows = text[LABEL_KEY].assign(state=state, origin=origin.astype(TEXT))
    return rows.drop_duplicates(ignore_index=True)


def _read_boxes(builder: SourceBuilder) -> pd.DataFrame:
    path = builder.root / _BOXES
    if not path.exists():
        return empty_table("boxes")
    text = _read_rows(path, ("image_id", *EDGES, "finding"), builder.notes)
    edges = {edge: to_numbers(text[edge], path, edge) for edge in EDGES}
    return text[LABEL_KEY].assign(**edges).reset_index(drop=True)


def _read_rows(path: Path, columns: tuple[str, ...], notes: list[str]) -> pd.DataFrame:
    """Read labels or boxes with the ``reader`` of each row; without a name it is the reference."""
    text = read_text_table(path, columns)
    unknown = [c for c in text.columns if c not in (*columns, "reader") and c[:2] != "x_"]
    if unknown:
        raise InputError(
            f"{path}: unknown column '{unknown[0]}'; call it 'reader' if it names who read the "
            f"image, 'x_{unknown[0]}' to have it ignored, or remove it"
        )
    if "reader" not in text.columns:
        text["reader"] = REFERENCE_READER
    return _without_repeats(text, path, LABEL_KEY, notes)


CSV = Format(
    name="csv",
    title="CSV files of your own",
    folder="`images.csv`, `labels.csv`; with boxes `boxes.csv`",
    detect=has_match(_IMAGES),
    read=_read_csv_set,
    options=("reference",),
)
