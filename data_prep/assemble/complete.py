"""Completion of the tables of a source with facts that were measured on its images."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_readings import box_faults, cut_boxes
from cxr_compare.data_prep.contracts.boxes import EDGES, FIELD_WIDTH_MM
from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import SCHEMAS
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.source_tables import SourceTables
from cxr_compare.data_prep.store.decode import DecodedRow


def labelled_sizes(images: pd.DataFrame, boxes: pd.DataFrame) -> np.ndarray:
    """Return what label files say about the size of each image, to check it against the file.

    Args:
        images: Images table, with ``width`` and ``height`` if the labels state them.
        boxes: Boxes of these images, in px of the original image; may be empty.

    Returns:
        Stated width and height, and largest x2 and y2 of the boxes, one row for each of the N
        images, px, shape ``(N, 4)``; NaN if unknown.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a"], "width": [1024], "height": [1024]})
        >>> boxes = pd.DataFrame({"image_id": ["a"], "x2": [300.0], "y2": [400.0]})
        >>> labelled_sizes(images, boxes).tolist()
        [[1024.0, 1024.0, 300.0, 400.0]]
    """
    reach = boxes.groupby("image_id")[["x2", "y2"]].max()
    stated = images.reindex(columns=["width", "height"]).astype("float64").to_numpy()
    return np.hstack([stated, reach.reindex(images["image_id"].to_numpy()).to_numpy()])


def journal_row(row: DecodedRow, path: Path, labelled: np.ndarray) -> dict[str, Any]:
    """Return a dictionary of the facts, or the error, of one decoded image file.

    An unfinished data set stores these rows (its journal), so that an interrupted call continues
    without decoding an image twice.

    Args:
        row: Facts of the decoded image, or the error.
        path: Path of the image file. It is removed from error messages because it may contain a
            name.
        labelled: Width, height, largest x2 and largest y2 that the labels state for this image, px,
            shape (4,): its row of `labelled_sizes`. An image that does not fit them gets an error.

    Returns:
        The image id, the measured facts by name, and ``error_stage`` (``decode``, ``size`` or
        ``boxes``) and ``error``, which are None if the image can be used.
    """
    if row.error:
        reason = row.error.removeprefix(f"{path}: ")  # a path may contain a name
        return {"image_id": row.image_id, "error_stage": "decode", "error": reason}
    stage, error = _misfit(row.facts, labelled)
    return {"image_id": row.image_id, "error_stage": stage, "error": error, **row.facts}


def _misfit(facts: dict[str, Any], labelled: np.ndarray) -> tuple[str | None, str | None]:
    """Return the stage and reason if the labels cannot belong to this image, else None twice."""
    sides = [(name, facts[name]) for name in ("width", "height")]
    for (name, actual), stated in zip(sides, labelled[:2].tolist(), strict=True):
        if not math.isnan(stated) and stated != actual:
            return "size", f"not of the stated size: {name} {stated:g}, the image has {actual} px"
    corners = np.array([[0, 0, *np.nan_to_num(labelled[2:], nan=1)]])
    size = np.array([[actual for _, actual in sides]], dtype=np.float64)
    (fault,) = box_faults(corners, size)
    return ("boxes", fault) if fault else (None, None)


_FROM_HEADER = ("view", "sex", "age_years")


def complete_tables(
    tables: SourceTables, outcomes: pd.DataFrame | None
) -> tuple[SourceTables, pd.DataFrame]:
    """Add facts of the decoded image files, such as sizes, to the tables of a data set.

    Args:
        tables: Tables that were read from the user's files: images, findings, boxes and others.
        outcomes: Table from rows of `journal_row`, one for each decoded image; None if there are no
            image files.

    Returns:
        The completed tables, and the decode table, which says for each image how its file was
        decoded. Images that cannot be used are removed from the tables and listed in the table
        ``excluded``.
    """
    if outcomes is None:
        measured = pd.Index(["spacing_row_mm", "spacing_col_mm", "height", "width"])
        stated = tables.images.reindex(columns=tables.images.columns.union(measured, sort=False))
        images = _with_spacing(stated).reindex(columns=_columns(tables.images))
        return replace(tables, images=images.sort_values("image_id")), empty_table("decode")
    usable = outcomes["error"].isna()
    images = _complete_images(tables.images, outcomes[usable])
    ids = images["image_id"]
    labels = {n: getattr(tables, n) for n in ("findings", "boxes", "box_coverage", "split")}
    usable_tables: dict[str, Any] = {
        name: table[is_member(table["image_id"], ids)] for name, table in labels.items()
    }
    usable_tables["boxes"], note = _cut(usable_tables["boxes"], images)
    usable_tables["notes"] = (*tables.notes, *note)
    parts = [tables.excluded, _failures(tables, outcomes[~usable])]
    usable_tables["excluded"] = _with_digests(pd.concat(parts, ignore_index=True), tables.root)
    decode = outcomes.loc[usable, list(SCHEMAS["decode"].columns)].sort_values("image_id")
    return replace(tables, images=images, **usable_tables), decode


def _columns(images: pd.DataFrame) -> list[str]:
    free = [c for c in images.columns if c.startswith("x_")]
    return [*SCHEMAS["images"].columns, *free]


def _complete_images(images: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Add the measured facts; a value in the table of the source has priority."""
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
    """Set the spacing from the true field size if known, else from the header; drop absurd ones."""
    width = images["width"].astype("float64")
    height = images["height"].astype("float64")
    spacing_col = images["spacing_col_mm"]
    spacing_row = images["spacing_row_mm"]
    if "field_width_mm" in images.columns:
        spacing_col = (images["field_width_mm"] / width).fillna(spacing_col)
        spacing_row = (images["field_height_mm"] / height).fillna(spacing_row)
    believable = (spacing_col * width).between(*FIELD_WIDTH_MM)
    return images.assign(
        spacing_col_mm=spacing_col.where(believable), spacing_row_mm=spacing_row.where(believable)
    )


def _cut(boxes: pd.DataFrame, images: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Cut boxes that leave their image by a little, and return a note on their number."""
    sizes = images.set_index("image_id")[["width", "height"]].astype("float64")
    limits = sizes.reindex(boxes["image_id"].to_numpy()).to_numpy()
    cut, note = cut_boxes(boxes, limits)
    return cut, [note] if note else []


def _failures(tables: SourceTables, failed: pd.DataFrame) -> pd.DataFrame:
    """Build the rows of ``excluded``, with the box that leaves its image if that is the reason."""
    misfits = failed.loc[failed["error_stage"] == "boxes", ["image_id", "width", "height"]]
    boxes = tables.boxes.merge(misfits.astype({"width": "float64", "height": "float64"}))
    limits = boxes[["width", "height"]].to_numpy()
    is_faulty = box_faults(boxes[EDGES].to_numpy(dtype="float64"), limits) != ""
    boxes = boxes[pd.Series(is_faulty, boxes.index)].drop_duplicates("image_id")
    rows = failed.rename(columns={"error_stage": "stage", "error": "reason"})
    rows = rows.merge(tables.images[["image_id", "path"]], on="image_id")
    rows = rows.merge(boxes[["image_id", *EDGES]], on="image_id", how="left")
    return rows[["path", "stage", "reason", *EDGES]]


def _with_digests(excluded: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Add the SHA-256 of images with a wrong box, so that an audit can show them."""
    digests = {}
    for path in excluded.loc[excluded[EDGES].notna().any(axis=1), "path"]:
        with suppress(OSError):
            digests[path] = file_digest(root / path, "sha256")
    return excluded.assign(file_sha256=excluded["path"].map(digests).astype(TEXT))
