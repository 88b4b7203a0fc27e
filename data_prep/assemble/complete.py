"""A source's tables with what its images told, and with names that reveal nobody."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.pseudonyms import hide_paths, keyed_hash
from data_prep.contracts.schemas import EDGE_TOLERANCE_PX, FIELD_WIDTH_MM, SCHEMAS
from data_prep.contracts.tables import empty_table, is_member, renamed
from data_prep.formats.source import SourceTables
from data_prep.store.decode import DecodedRow


def labelled_sizes(images: pd.DataFrame, boxes: pd.DataFrame) -> np.ndarray:
    """What the labels say of each image's size, NaN where nothing."""
    reach = boxes.groupby("image_id")[["x2", "y2"]].max()
    stated = images.reindex(columns=["width", "height"]).astype("float64").to_numpy()
    return np.hstack([stated, reach.reindex(images["image_id"].to_numpy()).to_numpy()])


def outcome_of(row: DecodedRow, path: Path, labelled: np.ndarray) -> dict[str, Any]:
    """Turn a decoded row into a journal row."""
    if row.error:
        reason = row.error.removeprefix(f"{path}: ")  # a path may say what must not be told
        return {"image_id": row.image_id, "error_stage": "decode", "error": reason}
    stage, error = _misfit(row.facts, labelled)
    return {"image_id": row.image_id, "error_stage": stage, "error": error, **row.facts}


def _misfit(facts: dict[str, Any], labelled: np.ndarray) -> tuple[str | None, str | None]:
    """Say why the labels cannot belong to this image, as stage and reason."""
    sides = [(name, facts[name]) for name in ("width", "height")]
    for (name, actual), stated in zip(sides, labelled[:2].tolist(), strict=True):
        if not math.isnan(stated) and stated != actual:
            return "size", f"not of the stated size: {name} {stated:g}, the image has {actual} px"
    for (name, actual), reach in zip(sides, labelled[2:].tolist(), strict=True):
        if reach > actual + EDGE_TOLERANCE_PX:
            return "boxes", f"box outside the image: reaches {reach:g}, {name} is {actual} px"
    return None, None


_FROM_HEADER = ("view", "sex", "age_years")


def assemble(
    tables: SourceTables, outcomes: pd.DataFrame | None
) -> tuple[SourceTables, pd.DataFrame]:
    """Complete the tables of a data set."""
    if outcomes is None:
        stated = tables.images.assign(
            **{
                c: np.nan
                for c in ("spacing_row_mm", "spacing_col_mm", "height", "width")
                if c not in tables.images.columns
            }
        )
        images = _with_spacing(stated).reindex(columns=_columns(tables.images))
        return replace(tables, images=images.sort_values("image_id")), empty_table("decode")
    usable = outcomes["error"].isna()
    images = _complete_images(tables.images, outcomes[usable])
    ids = images["image_id"]
    boxes = tables.boxes[is_member(tables.boxes["image_id"], ids)]
    return replace(
        tables,
        images=images,
        findings=tables.findings[is_member(tables.findings["image_id"], ids)],
        boxes=_trim(boxes, images),
        box_coverage=tables.box_coverage[is_member(tables.box_coverage["image_id"], ids)],
        excluded=pd.concat(
            [tables.excluded, _failures(tables.images, outcomes[~usable])], ignore_index=True
        ),
        split=tables.split[is_member(tables.split["image_id"], ids)],
    ), outcomes.loc[usable, list(SCHEMAS["decode"].columns)].sort_values("image_id")


def _columns(images: pd.DataFrame) -> list[str]:
    free = [c for c in images.columns if c.startswith("x_")]
    return [*SCHEMAS["images"].columns, *free]


def _complete_images(images: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Add what the images tell; where the source's table has a value too, the table's stands."""
    measured = ["image_id", "file_sha256", "height", "width", "spacing_row_mm", "spacing_col_mm"]
    # A stated height or width equals the measured one by now.
    stated = images.drop(columns=[c for c in ("height", "width") if c in images.columns])
    joined = stated.merge(
        outcomes[[*measured, *_FROM_HEADER]], on="image_id", suffixes=("", "_header")
    )
    for column in (*_FROM_HEADER, "spacing_row_mm", "spacing_col_mm"):
        if f"{column}_header" in joined.columns:
            joined[column] = joined[column].fillna(joined[f"{column}_header"])
    return _with_spacing(joined).reindex(columns=_columns(images)).sort_values("image_id")


def _with_spacing(images: pd.DataFrame) -> pd.DataFrame:
    """Spacing from the field's true size where known, else from the header; absurd ones dropped."""
    width, height = images["width"].astype("float64"), images["height"].astype("float64")
    spacing_col, spacing_row = images["spacing_col_mm"], images["spacing_row_mm"]
    if "field_width_mm" in images.columns:
        spacing_col = (images["field_width_mm"] / width).fillna(spacing_col)
        spacing_row = (images["field_height_mm"] / height).fillna(spacing_row)
    believable = (spacing_col * width).between(*FIELD_WIDTH_MM)
    return images.assign(
        spacing_col_mm=spacing_col.where(believable), spacing_row_mm=spacing_row.where(believable)
    )


def _trim(boxes: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Take rounding off the right and lower edges; what is further out was excluded before."""
    sizes = images.set_index("image_id")[["width", "height"]].astype("float64")
    limits = sizes.reindex(boxes["image_id"].to_numpy())
    edges = boxes[["x2", "y2"]].to_numpy()
    over = edges - limits.to_numpy()
    trimmed = np.where((over > 0) & (over <= EDGE_TOLERANCE_PX), limits.to_numpy(), edges)
    return boxes.assign(x2=trimmed[:, 0], y2=trimmed[:, 1])


def _failures(images: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    paths = images.set_index("image_id")["path"]
    return pd.DataFrame(
        {
            "path": failed["image_id"].map(paths),
            "stage": failed["error_stage"],
            "reason": failed["error"],
        }
    )


def pseudonymise(tables: SourceTables, key: bytes) -> tuple[SourceTables, dict[str, str]]:
    """Replace the ids of images, patients and studies in all tables.

    The name space of a patient stays: ``dicom:17`` becomes ``dicom:`` and 24 digits. Paths stay
    true, since the images are yet to be read; `hide_paths` comes before anything is written.
    """
    images = tables.images.copy()
    frames = (images, tables.findings, tables.boxes, tables.box_coverage, tables.split)
    ids = pd.concat([frame["image_id"] for frame in (*frames, tables.official)]).unique()
    names = {name: keyed_hash(key, f"image:{name}") for name in ids}
    people = {name: _hide_patient(key, name) for name in images["patient_id"].unique()}
    images["patient_id"] = renamed(images["patient_id"], people)
    if "study_id" in images.columns:
        studies = images["study_id"].dropna().unique()
        hidden_studies = {name: keyed_hash(key, f"study:{name}") for name in studies}
        images["study_id"] = renamed(images["study_id"], hidden_studies)

    def hide(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(image_id=renamed(frame["image_id"], names))

    names_of_tables = ("findings", "boxes", "box_coverage", "split", "official")
    labels: dict[str, Any] = {name: hide(getattr(tables, name)) for name in names_of_tables}
    hidden = replace(
        tables,
        images=hide(images),
        # An image without a file is listed there by its id, which is hidden as a path is.
        excluded=hide_paths(tables.excluded, key),
        **labels,
    )
    return hidden, {**names, **people}


def _hide_patient(key: bytes, name: str) -> str:
    space, colon, _ = name.partition(":")
    return f"{space if colon else 'hidden'}:{keyed_hash(key, f'patient:{name}')}"
