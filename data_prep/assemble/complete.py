"""Completion of the tables of a source with facts that were measured on its images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.box_readings import cut_boxes
from cxr_compare.data_prep.contracts.boxes import FIELD_WIDTH_MM
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import SCHEMAS
from cxr_compare.data_prep.contracts.tables import empty_table
from cxr_compare.data_prep.sources.source_tables import SourceTables

_HEADER = "header_"  # of the columns of the decode table with facts that an image states itself
_FROM_HEADER = ("view", "sex", "age_years", "spacing_row_mm", "spacing_col_mm")


def misfits(tables: SourceTables, facts: pd.DataFrame) -> pd.DataFrame:
    """Find images that are not of the size (px) that their labels state.

    There is one row for each such image, with ``image_id``, ``stage`` and ``reason``. The boxes of
    images were checked against the files when they were read.
    """
    sizes = facts[["image_id", "width", "height"]].astype({"width": "float64", "height": "float64"})
    stated = tables.images.reindex(columns=["image_id", "width", "height"])
    both = sizes.merge(stated, on="image_id", suffixes=("", "_stated"))
    found = []
    for side in ("width", "height"):
        known = both[f"{side}_stated"].astype("float64")
        wrong = both.assign(known=known)[known.notna() & (known != both[side])]
        reasons = [
            f"not of the stated size: {side} {known:g}, the image has {actual:g} px"
            for known, actual in zip(wrong["known"], wrong[side], strict=True)
        ]
        found.append(wrong[["image_id"]].assign(stage="size", reason=reasons))
    return pd.concat(found, ignore_index=True).drop_duplicates("image_id")


def complete_tables(
    tables: SourceTables, facts: pd.DataFrame, failed: pd.DataFrame
) -> tuple[SourceTables, pd.DataFrame]:
    """Add facts of the decoded image files to the tables, and return them with the decode table.

    The decode table says for each image how its file was decoded. Images in `failed` (``image_id``,
    ``stage``, ``reason``) are removed from the tables and listed in the table ``excluded``.
    """
    images = _complete_images(tables.images, facts)
    ids = images["image_id"]
    labels = {n: getattr(tables, n) for n in ("findings", "boxes", "box_coverage", "split")}
    usable_tables: dict[str, Any] = {
        name: table[is_member(table["image_id"], ids)] for name, table in labels.items()
    }
    usable_tables["boxes"], note = _cut(usable_tables["boxes"], images)
    usable_tables["notes"] = (*tables.notes, *note)
    rows = failed.merge(tables.images[["image_id", "path"]], on="image_id").sort_values("image_id")
    rows = rows[["path", "stage", "reason"]]
    usable_tables["excluded"] = pd.concat([tables.excluded, rows], ignore_index=True)
    decode = facts[list(SCHEMAS["decode"].columns)].sort_values("image_id")
    return replace(tables, images=images, **usable_tables), decode


def complete_without_files(tables: SourceTables) -> tuple[SourceTables, pd.DataFrame]:
    """Complete the tables of a source that has no image files; the decode table is empty."""
    measured = pd.Index(["spacing_row_mm", "spacing_col_mm", "height", "width"])
    stated = tables.images.reindex(columns=tables.images.columns.union(measured, sort=False))
    images = _with_spacing(stated).reindex(columns=_columns(tables.images))
    return replace(tables, images=images.sort_values("image_id")), empty_table("decode")


def _columns(images: pd.DataFrame) -> list[str]:
    free = [c for c in images.columns if c.startswith("x_")]
    return [*SCHEMAS["images"].columns, *free]


def _complete_images(images: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """Add the measured facts; a value in the table of the source has priority."""
    measured = ["image_id", "file_sha256", "height", "width"]
    # A stated height or width equals the measured one by now.
    stated = images.drop(columns=[c for c in ("height", "width") if c in images.columns])
    in_headers = [f"{_HEADER}{column}" for column in _FROM_HEADER]
    joined = stated.merge(facts[[*measured, *in_headers]], on="image_id")
    for column in _FROM_HEADER:
        header = joined[f"{_HEADER}{column}"]
        joined[column] = joined[column].fillna(header) if column in stated else header
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
