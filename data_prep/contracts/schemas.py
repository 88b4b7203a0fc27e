"""What each table on disk must hold: columns, types, ranges, keys.

Only `data_prep.contracts.tables` reads these. Bounding boxes are ``xyxy``, absolute pixels of the
original image, continuous edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandera.pandas as pa

VIEWS = ("PA", "AP", "LL", "other")
PATIENT_SOURCES = ("given", "mapped", "mapped_unverified", "assumed_image")
STATES = ("present", "absent", "uncertain")
ORIGINS = ("reader", "consensus", "report_nlp", "folder", "boxes")
ROLES = ("train", "val", "test", "unused")
REFERENCE_READER = "reference"
SYNTHETIC = "synthetic"
"""The source of images that ``cxr synth`` drew."""
EDGES = ["x1", "y1", "x2", "y2"]


def _text(
    *,
    optional: bool = False,
    nullable: bool = False,
    allowed: Any = None,
    pattern: str | None = None,
) -> pa.Column:
    checks = [pa.Check.isin(allowed, error=f"one of {', '.join(allowed)}")] if allowed else []
    if pattern:
        checks.append(pa.Check(lambda s: s.str.fullmatch(pattern), error=f"like {pattern}"))
    if not nullable:
        checks.append(pa.Check(lambda s: s.str.len() > 0, error="not empty"))
    # No pandera dtype: it would ask for pandas' NA strings, and `==` on those gives no boolean.
    return pa.Column(
        None, checks, required=not optional, nullable=nullable, metadata={"type": "str"}
    )


def _number(
    low: float | None = None,
    high: float | None = None,
    *,
    dtype: str = "float64",
    optional: bool = False,
    nullable: bool = False,
) -> pa.Column:
    checks = []
    if low is not None:
        checks.append(pa.Check.ge(low, error=f"at least {low:g}"))
    if high is not None:
        checks.append(pa.Check.le(high, error=f"at most {high:g}"))
    if dtype.startswith("float"):
        checks.append(pa.Check(lambda s: np.isfinite(s), error="finite"))
    return pa.Column(
        dtype, checks, required=not optional, nullable=nullable, metadata={"type": dtype}
    )


def _flag(*, optional: bool = False) -> pa.Column:
    return pa.Column(bool, required=not optional, metadata={"type": "bool"})


def _box() -> dict[str, pa.Column]:
    return {edge: _number(0) for edge in ("x1", "y1", "x2", "y2")}


_BOX_RULES = [
    pa.Check(lambda f: f["x1"] < f["x2"], error="x2 must exceed x1"),
    pa.Check(lambda f: f["y1"] < f["y2"], error="y2 must exceed y1"),
]
_MAP_RULES = [
    pa.Check(
        lambda f: f["values"].map(len) == f["grid_h"] * f["grid_w"],
        error="values must hold grid_h x grid_w numbers",
    )
]


def _schema(
    columns: dict[str, pa.Column],
    *,
    unique: list[str] | None = None,
    rules: list[pa.Check] | None = None,
    free: bool = False,
) -> pa.DataFrameSchema:
    """Build a schema; `free` allows columns beyond the named ones."""
    return pa.DataFrameSchema(columns, checks=rules, unique=unique, strict=not free, coerce=False)


SCHEMAS: dict[str, pa.DataFrameSchema] = {
    "images": _schema(
        {
            "image_id": _text(),
            "patient_id": _text(),
            "patient_id_source": _text(allowed=PATIENT_SOURCES),
            "study_id": _text(optional=True, nullable=True),
            "source": _text(),
            "path": _text(nullable=True),
            "file_sha256": _text(nullable=True),
            "height": _number(1, dtype="Int64", nullable=True),
            "width": _number(1, dtype="Int64", nullable=True),
            "spacing_row_mm": _number(1e-6, optional=True, nullable=True),
            "spacing_col_mm": _number(1e-6, optional=True, nullable=True),
            "view": _text(optional=True, nullable=True, allowed=VIEWS),
            "sex": _text(optional=True, nullable=True),
            "age_years": _number(optional=True, nullable=True),
        },
        unique=["image_id"],
        free=True,
    ),
    "findings": _schema(
        {
            "image_id": _text(),
            "finding": _text(),
            "reader": _text(),
            "state": _text(allowed=STATES),
            "origin": _text(allowed=ORIGINS),
        },
        unique=["image_id", "finding", "reader"],
    ),
    "boxes": _schema(
        {"image_id": _text(), "finding": _text(), **_box(), "reader": _text()}, rules=_BOX_RULES
    ),
    "box_coverage": _schema(
        {
            "image_id": _text(),
            "finding": _text(),
            "reader": _text(),
            "coverage": _text(allowed=("all", "some")),
        },
        unique=["image_id", "finding", "reader"],
    ),
    "decode": _schema(
        {
            "image_id": _text(),
            "transfer_syntax": _text(nullable=True),
            "decoder": _text(),
            "bits": _number(1, 64, dtype="Int64", nullable=True),
            "photometric": _text(nullable=True),
            "modality_transform": _text(nullable=True),
            "voi": _text(nullable=True),
            "window_center": _number(nullable=True),
            "window_width": _number(nullable=True),
            "inverted": _flag(),
            "orientation": _text(nullable=True),
            "pixel_sha256": _text(),
            "warnings": _text(nullable=True),
            "burned_in_annotation": _text(optional=True, nullable=True, allowed=("yes", "no")),
            "file_bytes": _number(1, dtype="Int64", optional=True, nullable=True),
            "mean_grey": _number(0, 255, optional=True, nullable=True),
            "perceptual_hash": _text(optional=True, nullable=True),
            "text_score": _number(0, optional=True, nullable=True),
            "text_x1": _number(0, optional=True, nullable=True),
            "text_y1": _number(0, optional=True, nullable=True),
            "text_x2": _number(0, optional=True, nullable=True),
            "text_y2": _number(0, optional=True, nullable=True),
            "border_greys": _text(optional=True, nullable=True, pattern=r"[0-9a-f]{32}"),
        },
        unique=["image_id"],
    ),
    "excluded": _schema({"path": _text(), "stage": _text(), "reason": _text()}),
    "split": _schema(
        {
            "image_id": _text(),
            "role": _text(allowed=ROLES),
            "fold": _number(0, dtype="Int64", nullable=True),
        },
        unique=["image_id"],
    ),
    "pixel_index": _schema(
        {
            "image_id": _text(),
            "shard": _number(0, dtype="int64"),
            "row": _number(0, dtype="int64"),
            "scale_x": _number(1e-9),
            "scale_y": _number(1e-9),
            "offset_x": _number(),
            "offset_y": _number(),
        },
        unique=["image_id"],
    ),
    "seen": _schema(
        {"image_id": _text(), "patient_id": _text(), "role": _text(allowed=ROLES)},
        unique=["image_id"],
    ),
    "predicted_images": _schema(
        {
            "image_id": _text(),
            "status": _text(allowed=("ok", "failed")),
            "reason": _text(nullable=True),
        },
        unique=["image_id"],
    ),
    "scores": _schema(
        {
            "image_id": _text(),
            "finding": _text(),
            "score": _number(0, 1),
            "spread": _number(0, optional=True),
        },
        unique=["image_id", "finding"],
    ),
    "predicted_boxes": _schema(
        {"image_id": _text(), "finding": _text(), **_box(), "score": _number(0, 1)},
        rules=_BOX_RULES,
    ),
    "maps": _schema(
        {
            "image_id": _text(),
            "finding": _text(),
            "method": _text(),
            "grid_h": _number(1, dtype="int64"),
            "grid_w": _number(1, dtype="int64"),
            "values": pa.Column(object),
            "x1": _number(),
            "y1": _number(),
            "x2": _number(),
            "y2": _number(),
        },
        unique=["image_id", "finding", "method"],
        rules=_MAP_RULES,
    ),
    "decisions": _schema(
        {
            "image_id": _text(),
            "system": _text(),
            "label": _number(0, 1, nullable=True),
            "score": _number(0, 1),
            "probability": _number(0, 1, nullable=True),
        },
        unique=["image_id", "system"],
        free=True,
    ),
}


# A published edge may overshoot by rounding only; more is another image's box.
EDGE_TOLERANCE_PX = 0.01

# A chest fills 30 to 45 cm; a width outside these bounds means that the spacing is another file's.
FIELD_WIDTH_MM = (250.0, 500.0)
