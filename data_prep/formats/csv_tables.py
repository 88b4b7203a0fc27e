"""Format of any data set that its owner writes as three CSV files.

- ``images.csv``: ``image_id, patient_id``, and where known ``path`` (relative to the folder),
  ``height, width`` (px), ``view, sex, age_years, study_id, spacing_row_mm, spacing_col_mm``,
  ``split`` (train, val, test, unused) and ``x_...`` columns for subgroups.
- ``labels.csv``: ``image_id, finding, state`` (present, absent, uncertain; 1 and 0 also do), one
  row an image and finding. An image without a row for a finding is unknown, not negative.
- ``boxes.csv`` (optional): ``image_id, x1, y1, x2, y2, finding``, pixels of the original image.
  An image with a box is taken to have all its lesions of that finding boxed.

Without the ``path`` column the data set has no pixels: other systems' predictions can be judged on
it, nothing can be trained.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
from data_prep.formats.label_files import (
    FINDING_KEY,
    STATE_WORDS,
    coverage_of_boxed_findings,
    rule_out_contradictions,
    with_boxed_findings,
)
from data_prep.formats.source import (
    Format,
    ReadOptions,
    SourceBuilder,
    SourceTables,
    has_file,
    no_roles,
    normal_views,
    one_target_each,
    reference_rows,
    require_format,
)

IMAGES, LABELS, BOXES = "images.csv", "labels.csv", "boxes.csv"
_NUMBERS = ("height", "width", "age_years", "spacing_row_mm", "spacing_col_mm")
_TEXTS = ("image_id", "patient_id", "path", "view", "sex", "study_id", "split")


def _read_csv_set(source: Path, _: ReadOptions) -> SourceTables:
    """Read ``images.csv``, ``labels.csv`` and, where there is one, ``boxes.csv``."""
    require_format(source, CSV)
    builder = SourceBuilder("csv", source)
    notes, out = builder.notes, builder.out
    images, roles = _read_images(source / IMAGES, source.resolve().name, builder)
    labels = _read_labels(source / LABELS, notes)
    boxes = _read_boxes(source / BOXES, notes)
    _rule_out(builder, images, labels, boxes)
    with_path = images[images["path"].notna()]
    images, boxes, roles = out.keep(images), out.keep(boxes), out.keep(roles)
    if images.empty:
        raise InputError(
            f"{source / LABELS}: rules out every image; {next(iter(out.reasons.values()))}"
        )
    findings = with_boxed_findings(out.keep(labels), boxes)
    unlabelled = int((~is_member(images["image_id"], findings["image_id"])).sum())
    if unlabelled:
        notes.append(
            f"{counted(unlabelled, 'image', 'have')} no row in {LABELS}: unknown, not negative"
        )
    return builder.tables(
        images,
        findings,
        one_target_each(findings["finding"].unique()),
        paths=dict(zip(with_path["image_id"], with_path["path"], strict=True)),
        boxes=boxes,
        box_coverage=coverage_of_boxed_findings(findings, boxes),
        split=roles,
    )


def _read_images(
    path: Path, name_space: str, builder: SourceBuilder
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The ``images`` table, and ``image_id, role`` where the file has a ``split`` column."""
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
    images = text[["image_id", *free]].copy()
    given = text["patient_id"]
    spaced = given.where(given.str.contains(":"), f"{name_space}:" + given)
    images["patient_id"] = spaced.where(given != "", f"{name_space}:image-" + text["image_id"])
    images["patient_id_source"] = np.where(given != "", "given", "assumed_image")
    n_assumed = int((given == "").sum())
    if n_assumed:
        builder.warn_of_own_patients(
            f"{path.name} gives no patient_id for {counted(n_assumed, 'image')}"
        )
    images["source"] = name_space
    images["path"] = _relative_paths(text["path"], path)
    for column in _NUMBERS:
        if column in text.columns:
            images[column] = to_numbers(text[column], path, column)
    for column in ("sex", "study_id"):
        if column in text.columns:
            images[column] = text[column].where(text[column] != "")
    if "view" in text.columns:
        images["view"] = normal_views(text["view"])
    return images.reset_index(drop=True), _given_roles(text, images, path)


def _without_repeats(
    text: pd.DataFrame, path: Path, key: list[str], notes: list[str]
) -> pd.DataFrame:
    """Drop exact repeats with a note; an empty key, or a key in two versions, is an error."""
    for column in key:
        refuse_line(text[column] == "", path, f"{column} is empty; fill it in")
    candidates = text[text.duplicated(key, keep=False)]  # comparing whole rows takes far longer
    repeated = candidates.duplicated()
    versions = candidates[~repeated]
    twice = versions.duplicated(key)
    if key == ["image_id"]:
        reason = " appears more than once with different values; keep one line"
        refuse_line(twice, path, reason, versions["image_id"])
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


def _given_roles(text: pd.DataFrame, images: pd.DataFrame, path: Path) -> pd.DataFrame:
    if "split" not in text.columns or (text["split"] == "").all():
        return no_roles()
    role = text["split"].str.lower().replace({"valid": "val", "validation": "val"})
    expected = f"; expected one of {', '.join(ROLES)} on every line, or no split column"
    refuse_line(~role.isin(ROLES), path, expected, text["split"])
    roles = pd.DataFrame({"image_id": text["image_id"], "role": role}).reset_index(drop=True)
    pairs = pd.DataFrame({"patient": images["patient_id"].to_numpy(), "role": roles["role"]})
    pairs = pairs[pairs["role"] != "unused"].drop_duplicates()
    repeated = pairs["patient"].duplicated()
    if repeated.any():
        patient = pairs.loc[repeated, "patient"].iloc[0]
        both = " and ".join(pairs.loc[pairs["patient"] == patient, "role"])
        raise InputError(
            f"{path}: patient {patient!r} has images in {both} ({int(repeated.sum())} such "
            "patients); a patient has one role: correct the split column or leave it out"
        )
    return roles


def _read_labels(path: Path, notes: list[str]) -> pd.DataFrame:
    text = _without_repeats(read_text_csv(path, (*FINDING_KEY, "state")), path, FINDING_KEY, notes)
    state = renamed(text["state"].str.lower(), STATE_WORDS)
    expected = "; expected present, absent or uncertain (or 1, 0)"
    refuse_line(state.isna(), path, expected, text["state"])
    if text.empty:
        raise InputError(f"{path}: has no label")
    rows = reference_rows(text["image_id"], text["finding"], state=state, origin="consensus")
    return rows[~rows.duplicated([*FINDING_KEY, "state"])].reset_index(drop=True)


def _read_boxes(path: Path, notes: list[str]) -> pd.DataFrame:
    if not path.exists():
        return empty_table("boxes")
    required = ("image_id", *EDGES, "finding")
    text = _without_repeats(read_text_csv(path, required), path, FINDING_KEY, notes)
    edges = {c: to_numbers(text[c], path, c) for c in EDGES}
    return text[FINDING_KEY].assign(**edges, reader=REFERENCE_READER).reset_index(drop=True)


def _rule_out(
    builder: SourceBuilder, images: pd.DataFrame, labels: pd.DataFrame, boxes: pd.DataFrame
) -> None:
    """Rule out images whose label cannot be right; a wrong box is a wrong label."""
    out = builder.out
    if images["path"].notna().any():
        out.add(images.loc[images["path"].isna(), "image_id"], f"no path in {IMAGES}")
    for frame, name in ((labels, LABELS), (boxes, BOXES)):
        strangers = frame.loc[~is_member(frame["image_id"], images["image_id"]), "image_id"]
        out.add(strangers, f"row in {name}, but not in {IMAGES}")
    rule_out_contradictions(builder, labels, boxes)


CSV = Format(
    name="csv",
    title="CSV files of your own",
    folder="`images.csv`, `labels.csv` and, where there are boxes, `boxes.csv`",
    detect=has_file("images.csv", "labels.csv"),
    read=_read_csv_set,
)
