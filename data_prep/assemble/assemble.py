"""Join what the source says of its images with what their pictures turned out to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from data_prep.assemble.ingest import EDGE_TOLERANCE_PX
from data_prep.contracts.schemas import SCHEMAS
from data_prep.contracts.tables import empty_table
from data_prep.contracts.text_lookup import is_member
from data_prep.formats.source import SourceTables

# A chest fills 30 to 45 cm; a width outside these bounds means that the spacing is another file's.
FIELD_WIDTH_MM = (250.0, 500.0)
_FROM_HEADER = ("view", "sex", "age_years")
_IDS = ("image_id", "patient_id", "patient_id_source", "source", "path")


def assemble(
    tables: SourceTables, outcomes: pd.DataFrame | None
) -> tuple[SourceTables, pd.DataFrame]:
    """Complete the tables of a data set.

    Args:
        tables: As the reader gave them.
        outcomes: As `data_prep.assemble.ingest.ingest` returns them; None for a set without pixels.

    Returns:
        The tables without the images that could not be used (they are in ``excluded``), ready
        to be written, and the ``decode`` table.
    """
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
    """Add what the pictures tell; where the source's table has a value too, the table's stands."""
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
