"""Checks of a table of images that lies in no data set folder, as in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cxr_compare.data_prep.audit.audit import Audit, serious_first, with_optional_columns
from cxr_compare.data_prep.audit.images import (
    check_burned_in_text,
    check_duplicates,
    check_images,
    check_near_duplicates,
    check_people,
    find_duplicates,
)
from cxr_compare.data_prep.audit.labels import check_boxes
from cxr_compare.data_prep.audit.splits import (
    check_image_leak,
    check_leaks,
    check_roles,
    expected_image_leak,
)
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER, ROLE_NAMES
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.near_duplicates import find_near_duplicates

_STATES = {1.0: "present", 0.0: "absent"}


@with_known_keywords
def check_table(
    images: pd.DataFrame,
    *,
    labels: str | Sequence[str] | None = None,
    boxes: pd.DataFrame | None = None,
) -> Audit:
    """Search tables of images and boxes for faults that would make results wrong.

    These are the checks of ``cxr check`` that need no image files: patients and copies in two of
    training, validation and test, roles without one of the classes, copies with other labels or
    patients, impossible people, boxes that do not fit. A column that is missing is not checked.

    Args:
        images: One row for each image. Needed: ``image_id`` and ``patient_id`` (empty if the
            patient is unknown). Optional: ``split`` (train, val, test or unused; empty for an image
            without a role), ``width`` and ``height`` (px), ``view`` (PA, AP, LL or other), ``sex``
            (F or M), ``age_years``, ``pixel_sha256`` and ``perceptual_hash``
            (fingerprints, as in the table `DataSet.decode`).
        labels: Names of the columns that say whether a finding is present: 1, 0, or empty where it
            is unknown. None takes the column ``label`` if there is one.
        boxes: Boxes ``x1, y1, x2, y2`` in px of the image, with ``image_id`` and, if there are
            several columns of labels, ``finding``. None if there are no boxes.

    Returns:
        The problems, the most serious first. In a notebook they are shown as a table.

    Raises:
        InputError: A column is missing, an image id is empty or repeats, a role, label or finding
            is not understood, or a box belongs to no image.

    Example:
        >>> import cxr_compare
        >>> import pandas as pd
        >>> images = pd.DataFrame({"image_id": ["a", "b", "c"], "patient_id": ["p", "p", "q"],
        ...     "split": ["train", "test", "test"]})
        >>> ", ".join(problem.check for problem in cxr_compare.check_table(images).problems)
        'patient_leak, split_by_image'
    """
    table = _read_images(images)
    truth = _read_labels(table, labels)
    splits = _read_split(table)
    twins = find_duplicates(table)
    leak = expected_image_leak(table)
    problems = [p for name, split in splits.items() for p in check_leaks(table, split, name)]
    problems += [p for name, split in splits.items() for p in check_roles(split, truth, name)]
    problems += check_duplicates(twins, table, truth, splits)
    problems += check_near_duplicates(find_near_duplicates(table), table, truth, splits)
    if boxes is not None:
        findings = _findings(truth)
        drawn = _read_boxes(boxes, table, truth.columns)
        coverage = findings.iloc[:0].assign(coverage="")
        problems += check_boxes(drawn, table, findings, coverage)
    problems += check_people(table, splits)
    problems += check_images(table)
    problems += check_burned_in_text(table)
    problems += check_image_leak(leak)
    checked = {"images": len(table), "patients": leak["n_patients"]}
    if boxes is not None:
        checked["boxes"] = len(boxes)
    return Audit(serious_first(problems), checked, {"split_by_image": leak})


def _read_images(images: pd.DataFrame) -> pd.DataFrame:
    """Return the table with all columns that the checks read."""
    for column in ("image_id", "patient_id"):
        if column not in images.columns:
            raise InputError(f"images: has no column {column}; rename the one that names it")
    if images.empty:
        raise InputError("images: has no rows; give one for each image")
    table = images.reset_index(drop=True)
    table = table.astype({"image_id": TEXT, "patient_id": TEXT})
    wrong = table["image_id"].isna() | table["image_id"].duplicated()
    _refuse(table["image_id"], wrong, "give each image one row and an id of its own")
    table = with_optional_columns(table)
    for column in ("width", "height", "age_years"):
        given = table.get(column, pd.Series(float("nan"), table.index))
        table[column] = pd.to_numeric(given, errors="coerce").astype("float64")
        _refuse(given, given.notna() & table[column].isna(), "write a number, or leave it empty")
    unknown = table["patient_id"].isna()
    source = pd.Series("given", table.index, dtype=TEXT).mask(unknown, "assumed_image")
    table = table.assign(
        patient_id=table["patient_id"].fillna("unknown:" + table["image_id"]),
        patient_id_source=source,
    )
    for column in ("pixel_sha256", "perceptual_hash"):
        table[column] = table[column].astype(TEXT) if column in table else pd.Series(dtype=TEXT)
    # An image whose pixels are not known is a copy of itself alone.
    return table.assign(pixel_sha256=table["pixel_sha256"].fillna(table["image_id"]))


def _read_labels(table: pd.DataFrame, labels: str | Sequence[str] | None) -> pd.DataFrame:
    """Return the labels, float64, by image id, with a column for each finding."""
    if labels is None:
        labels = ["label"] if "label" in table.columns else []
    names = [labels] if isinstance(labels, str) else list(labels)
    for name in names:
        if name not in table.columns:
            raise InputError(f"images: has no column {name!r}, which labels= names")
        wrong = table[name].notna() & ~table[name].isin([0, 1])
        _refuse(table[name], wrong, "write 1 (present), 0 (absent) or leave it empty (unknown)")
    return table.set_index("image_id")[names].astype("float64")


def _read_split(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the split by its name; none without the column ``split``."""
    if "split" not in table.columns:
        return {}
    role = table["split"].map(ROLE_NAMES).astype(TEXT)
    wrong = table["split"].notna() & role.isna()
    _refuse(table["split"], wrong, "write train, val, test or unused")
    split = table[["image_id"]].assign(role=role)
    return {"split": split[role.notna()]}


def _findings(truth: pd.DataFrame) -> pd.DataFrame:
    """Return the labels as rows with ``image_id, finding, reader, state``."""
    rows = truth.reset_index().melt("image_id", var_name="finding", value_name="state").dropna()
    states = rows["state"].map(_STATES).astype(TEXT)
    rows = rows.assign(reader=REFERENCE_READER, state=states)
    return rows.astype({"finding": TEXT, "reader": TEXT})


def _read_boxes(boxes: pd.DataFrame, table: pd.DataFrame, findings: pd.Index) -> pd.DataFrame:
    """Return the boxes with ``finding`` and ``reader``."""
    for column in ("image_id", *EDGES):
        if column not in boxes.columns:
            raise InputError(f"boxes: has no column {column}; rename the one that names it")
    drawn = boxes.reset_index(drop=True)
    if "finding" not in drawn.columns:
        if len(findings) > 1:
            raise InputError("boxes: has no column finding, which says what a box marks")
        drawn["finding"] = findings[0] if len(findings) else "lesion"
    drawn = drawn.astype({"image_id": TEXT, "finding": TEXT, **dict.fromkeys(EDGES, "float64")})
    foreign = ~drawn["image_id"].isin(table["image_id"])
    _refuse(drawn["image_id"], foreign, "images has no such image_id")
    if len(findings):
        unlabelled = ~drawn["finding"].isin(findings)
        _refuse(drawn["finding"], unlabelled, "labels= names no such column")
    return drawn.assign(reader=pd.Series(REFERENCE_READER, drawn.index, dtype=TEXT))


def _refuse(column: pd.Series, wrong: pd.Series, advice: str) -> None:
    """Raise InputError for the first row that is wrong."""
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise InputError(f"{column.name}: row {row} is {column.iloc[row]!r}; {advice}")
