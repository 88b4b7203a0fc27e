"""Format of any data set that its owner writes as three CSV files.

- ``images.csv``: ``image_id, patient_id``, and where known ``path`` (relative to the folder),
  ``height, width`` (px), ``view, sex, age_years, study_id, spacing_row_mm, spacing_col_mm``,
  ``split`` (train, val, test, unused) and ``x_...`` columns for subgroups.
- ``labels.csv``: ``image_id, finding, state`` (present, absent, uncertain; 1 and 0 also do), one
  row an image and finding. An image without a row for a finding is unknown, not negative.
- ``boxes.csv`` (optional): ``image_id, x1, y1, x2, y2, finding``, pixels of the original image.
  An image with a box is taken to have all its lesions of that finding boxed.

Labels and boxes may have a column ``reader``: a row is then what that reader says.


Without the ``path`` column the data set has no pixels: other systems' predictions can be judged on
it, nothing can be trained.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import EDGES, REFERENCE_READER, ROLES
from data_prep.contracts.tables import (
    empty_table,
    is_member,
    read_text_csv,
    refuse_line,
    renamed,
    to_numbers,
)
from data_prep.contracts.words import counted
from data_prep.formats.label_files import STATE_WORDS, in_name_space, stated_tables
from data_prep.formats.readers import ROW
from data_prep.formats.source import (
    FINDING_KEY,
    Format,
    SourceBuilder,
    SourceTables,
    has_file,
    no_roles,
    normal_views,
)

_IMAGES, _LABELS, _BOXES = "images.csv", "labels.csv", "boxes.csv"
_NUMBERS = ("height", "width", "age_years", "spacing_row_mm", "spacing_col_mm")
_TEXTS = ("image_id", "patient_id", "path", "view", "sex", "study_id", "split")


def _read_csv_set(builder: SourceBuilder) -> SourceTables:
    """Read ``images.csv``, ``labels.csv`` and, where there is one, ``boxes.csv``."""
    source, out = builder.root, builder.out
    images, roles = _read_images(builder)
    labels, boxes = _read_labels(builder), _read_boxes(builder)
    if images["path"].notna().any():
        out.add(images.loc[images["path"].isna(), "image_id"], f"no path in {_IMAGES}")
    for frame, name in ((labels, _LABELS), (boxes, _BOXES)):
        strangers = frame.loc[~is_member(frame["image_id"], images["image_id"]), "image_id"]
        out.add(strangers, f"row in {name}, but not in {_IMAGES}")
    return stated_tables(
        builder,
        images,
        labels,
        boxes,
        path=source / _LABELS,
        lacking=f"row in {_LABELS}",
        files=images.dropna(subset="path"),
        split=roles,
    )


def _read_images(builder: SourceBuilder) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The ``images`` table, and ``image_id, role`` where the file has a ``split`` column."""
    path, space = builder.root / _IMAGES, builder.root.resolve().name
    text = read_text_csv(path, ("image_id",), ("patient_id", "path"))
    text = _without_repeats(text, path, ["image_id"], builder.notes)
    if text.empty:
        raise InputError(f"{path}: lists no image")
    free = [c for c in text.columns if c.startswith("x_")]
    unknown = [c for c in text.columns if c not in (*_TEXTS, *_NUMBERS, *free)]
    if unknown:
        raise InputError(
            f"{path}: unknown column '{unknown[0]}'; call it 'x_{unknown[0]}' to keep it for "
            "subgroups, or remove it"
        )
    patients = builder.patients(
        in_name_space(text["patient_id"].where(text["patient_id"] != ""), space),
        f"{space}:image-" + text["image_id"],
        lambda n: f"{path.name} gives no patient_id for {counted(n, 'image')}, so each",
    )
    images = text[["image_id", *free]].join(patients).assign(source=space)
    images["path"] = _relative_paths(text["path"], path)
    for column in _NUMBERS:
        if column in text.columns:
            images[column] = to_numbers(text[column], path, column)
    for column in ("sex", "study_id"):
        if column in text.columns:
            images[column] = text[column].where(text[column] != "")
    if "view" in text.columns:
        images["view"] = normal_views(text["view"])
    return images.reset_index(drop=True), _stated_roles(text, images["patient_id"], path)


def _without_repeats(
    text: pd.DataFrame, path: Path, key: list[str], notes: list[str]
) -> pd.DataFrame:
    """Drop exact repeats with a note; an empty key, or a key in two versions, is an error."""
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
    notes.append(f"{path.name}: {int(repeated.sum())} repeated rows, kept once")
    return text.drop(index=candidates.index[repeated])


def _relative_paths(text: pd.Series, path: Path) -> pd.Series:
    """Paths as given, missing where empty; those that leave the folder are refused."""
    outside = text.str.startswith(("/", "~", "\\")) | text.str.contains(
        r"(?:^|[/\\])\.\.(?:[/\\]|$)", regex=True
    )
    refuse_line(outside, path, " must be relative and inside the folder of images.csv", text)
    return text.where(text != "")


def _stated_roles(text: pd.DataFrame, patients: pd.Series, path: Path) -> pd.DataFrame:
    if "split" not in text.columns or (text["split"] == "").all():
        return no_roles()
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
    state = renamed(text["state"].str.lower(), STATE_WORDS)
    expected = "; expected present, absent or uncertain (or 1, 0)"
    refuse_line(state.isna(), path, expected, text["state"])
    if text.empty:
        raise InputError(f"{path}: has no label")
    origin = (text["reader"] == REFERENCE_READER).map({True: "consensus", False: "reader"})
    rows = text[ROW].assign(state=state, origin=origin.astype("str"))
    return rows.drop_duplicates(ignore_index=True)


def _read_boxes(builder: SourceBuilder) -> pd.DataFrame:
    path = builder.root / _BOXES
    if not path.exists():
        return empty_table("boxes")
    text = _read_rows(path, ("image_id", *EDGES, "finding"), builder.notes)
    edges = {edge: to_numbers(text[edge], path, edge) for edge in EDGES}
    return text[ROW].assign(**edges).reset_index(drop=True)


def _read_rows(path: Path, columns: tuple[str, ...], notes: list[str]) -> pd.DataFrame:
    """Read labels or boxes, with the ``reader`` of each row: who is named, or the reference."""
    text = read_text_csv(path, columns)
    unknown = [c for c in text.columns if c not in (*columns, "reader") and c[:2] != "x_"]
    if unknown:
        raise InputError(
            f"{path}: unknown column '{unknown[0]}'; call it 'reader' if it says who read the "
            f"image, 'x_{unknown[0]}' to have it passed over, or remove it"
        )
    if "reader" not in text.columns:
        text["reader"] = REFERENCE_READER
    return _without_repeats(text, path, ROW, notes)


CSV = Format(
    name="csv",
    title="CSV files of your own",
    folder="`images.csv`, `labels.csv` and, where there are boxes, `boxes.csv`",
    detect=has_file(_IMAGES),
    read=_read_csv_set,
    options=("reference",),
)
