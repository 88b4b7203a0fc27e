"""Schemas of the tables on disk: their columns, types, ranges and keys.

`data_prep.contracts.tables` checks tables against them. Boxes are ``xyxy`` in px of the original
image, with continuous edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr_compare.data_prep.contracts.boxes import EDGES

VIEWS = ("PA", "AP", "LL", "other")
PATIENT_SOURCES = ("given", "mapped", "mapped_unverified", "assumed_image")
STATES = ("present", "absent", "uncertain")
ORIGINS = ("unknown", "reader", "consensus", "report_nlp", "folder", "boxes", "synthetic")
"""Sources of a label; ``unknown`` where the files do not say who or what gave it.

``synthetic`` labels were made with their images by ``cxr synth``.
"""
OLDEST_YEARS = 120.0
"""Largest possible age in years."""
ROLES = ("train", "val", "test", "unused")
ROLE_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    "unused": "unused",
}
"""Role by each of its usual names in lower case."""
REFERENCE_READER = "reference"
SYNTHETIC = "synthetic"
"""Value of ``source`` of images that ``cxr synth`` drew."""
SYNTHETIC_PATIENT = r"(?:^|:)phantom-\d"
"""Pattern of the ids of their patients."""
FINGERPRINTS = ("pixel_sha256", "perceptual_hash")
"""Columns with equal values for equal images, and similar ones for copies of an image."""


@dataclass(frozen=True)
class Rule:
    """A rule that the values of a table's column, or several of its columns, must obey.

    Attributes:
        text: Text of the rule: for one column the end of the message "NAME must be ...", such as
            "at least 0"; for several columns the whole rule, such as "x2 must exceed x1".
        holds: Function that returns True for each row that obeys the rule. A rule for one column
            gets its values as a pandas or NumPy array, none of them missing; a rule for several
            columns gets the table.
    """

    text: str
    holds: Callable[[Any], Any]


@dataclass(frozen=True)
class Column:
    """Requirements on a column of a table on disk: type, rules, and what may be missing.

    Attributes:
        type: ``text``, or the pandas dtype to which values are converted; None for lists, which
            stay as they are. `data_prep.contracts.tables` chooses the dtype of text, because
            commands import this module without pandas.
        rules: Rules for the values that are not missing.
        required: True if every table must have the column.
        nullable: True if values may be missing.
    """

    type: str | None
    rules: tuple[Rule, ...] = ()
    required: bool = True
    nullable: bool = False


@dataclass(frozen=True)
class Schema:
    """Requirements on a table on disk: columns, unique key, and rules over several columns.

    Attributes:
        unique: Names of columns that together identify a row; empty if rows may repeat.
        rules: Rules over several columns.
        free: True if the table may have other columns, too.
    """

    columns: Mapping[str, Column]
    unique: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    free: bool = False


def _contain(values: Any, pattern: str) -> Any:
    """Flag the texts of an array that contain a regular expression in the syntax of RE2."""
    # PyArrow is imported here, because commands import this module without needing it. pandas would
    # parse the expression in Python at each call.
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pa.array(values, type=pa.large_string())
    flags = pc.match_substring_regex(texts, pattern)  # type: ignore[attr-defined]
    return flags.to_numpy(zero_copy_only=False)


def _text(
    *,
    optional: bool = False,
    nullable: bool = False,
    allowed: Sequence[str] = (),
    pattern: str | None = None,
) -> Column:
    rules = []
    if allowed:
        rules.append(Rule(f"one of {', '.join(allowed)}", lambda a: a.isin(allowed)))
    if pattern:
        rules.append(Rule(f"like {pattern}", lambda a: _contain(a, rf"\A(?:{pattern})\z")))
    if not nullable:
        rules.append(Rule("not empty", lambda a: a != ""))
    return Column("text", tuple(rules), not optional, nullable)


def _number(
    low: float | None = None,
    high: float | None = None,
    *,
    dtype: str = "float64",
    optional: bool = False,
    nullable: bool = False,
) -> Column:
    rules = []
    if low is not None:
        rules.append(Rule(f"at least {low:g}", lambda a: a >= low))
    if high is not None:
        rules.append(Rule(f"at most {high:g}", lambda a: a <= high))
    if dtype.startswith("float"):
        rules.append(Rule("finite", lambda a: abs(a) < math.inf))
    return Column(dtype, tuple(rules), not optional, nullable)


_IMAGE = {"image_id": _text()}
_KEY = {**_IMAGE, "finding": _text()}
_READ = {**_KEY, "reader": _text()}
_READER_KEY = ("image_id", "finding", "reader")
_BOX = dict.fromkeys(EDGES, _number(0))
_ROLE = _text(allowed=ROLES)
_BOX_RULES = (
    Rule("x2 must exceed x1", lambda f: f["x1"] < f["x2"]),
    Rule("y2 must exceed y1", lambda f: f["y1"] < f["y2"]),
)
_INSIDE = Rule(
    "a path below the source, without '..'",
    lambda a: ~_contain(a, r"^/|^$|\x00|(?:^|/)\.\.(?:/|$)"),
)
_MAP_RULES = (
    Rule(
        "values must hold grid_h x grid_w numbers",
        lambda f: f["values"].map(len) == f["grid_h"] * f["grid_w"],
    ),
)

SCHEMAS: dict[str, Schema] = {
    "images": Schema(
        {
            **_IMAGE,
            "patient_id": _text(),
            "patient_id_source": _text(allowed=PATIENT_SOURCES),
            "study_id": _text(optional=True, nullable=True),
            "source": _text(),
            "path": Column("text", (_INSIDE,), nullable=True),
            "file_sha256": _text(nullable=True),
            "height": _number(1, dtype="Int64", nullable=True),
            "width": _number(1, dtype="Int64", nullable=True),
            "spacing_row_mm": _number(1e-6, optional=True, nullable=True),
            "spacing_col_mm": _number(1e-6, optional=True, nullable=True),
            "view": _text(optional=True, nullable=True, allowed=VIEWS),
            "sex": _text(optional=True, nullable=True),
            "age_years": _number(optional=True, nullable=True),
        },
        unique=("image_id",),
        free=True,
    ),
    "findings": Schema(
        {**_READ, "state": _text(allowed=STATES), "origin": _text(allowed=ORIGINS)},
        unique=_READER_KEY,
    ),
    "boxes": Schema({**_KEY, **_BOX, "reader": _text()}, rules=_BOX_RULES),
    "box_coverage": Schema(
        {**_READ, "coverage": _text(allowed=("all", "some"))}, unique=_READER_KEY
    ),
    "decode": Schema(
        {
            **_IMAGE,
            "transfer_syntax": _text(nullable=True),
            "decoder": _text(),
            "bits": _number(1, 64, dtype="Int64", nullable=True),
            "photometric": _text(nullable=True),
            "modality_transform": _text(nullable=True),
            "voi": _text(nullable=True),
            "window_center": _number(nullable=True),
            "window_width": _number(nullable=True),
            "inverted": Column("bool"),
            "orientation": _text(nullable=True),
            "pixel_sha256": _text(),
            "warnings": _text(nullable=True),
            "burned_in_annotation": _text(optional=True, nullable=True, allowed=("yes", "no")),
            "file_bytes": _number(1, dtype="Int64", optional=True, nullable=True),
            "mean_grey": _number(0, 255, optional=True, nullable=True),
            "perceptual_hash": _text(optional=True, nullable=True),
            "border_greys": _text(optional=True, nullable=True, pattern=r"[0-9a-f]{32}"),
            "file_mtime_ns": Column("Int64", required=False, nullable=True),
            "header_spacing_row_mm": _number(optional=True, nullable=True),
            "header_spacing_col_mm": _number(optional=True, nullable=True),
            "header_view": _text(optional=True, nullable=True, allowed=VIEWS),
            "header_sex": _text(optional=True, nullable=True),
            "header_age_years": _number(optional=True, nullable=True),
        },
        unique=("image_id",),
    ),
    "excluded": Schema({"path": _text(), "stage": _text(), "reason": _text()}),
    "split": Schema(
        {"image_id": _text(), "role": _ROLE, "fold": _number(0, dtype="Int64", nullable=True)},
        unique=("image_id",),
    ),
    "pixel_index": Schema(
        {
            **_IMAGE,
            "row": _number(0, dtype="int64"),
            **dict.fromkeys(("width", "height"), _number(1, dtype="int64")),  # of the original, px
            "crc32": _number(0, dtype="int64"),
        },
        unique=("image_id",),
    ),
    "seen": Schema(
        {
            **_IMAGE,
            "patient_id": _text(),
            "role": _ROLE,
            **dict.fromkeys(FINGERPRINTS, _text(optional=True, nullable=True)),
        },
        unique=("image_id",),
    ),
    "predicted_images": Schema(
        {**_IMAGE, "status": _text(allowed=("ok", "failed")), "reason": _text(nullable=True)},
        unique=("image_id",),
    ),
    "scores": Schema(
        {**_KEY, "score": _number()},  # of which only the ranks count, any number
        unique=("image_id", "finding"),
    ),
    "predicted_boxes": Schema({**_KEY, **_BOX, "score": _number(0, 1)}, rules=_BOX_RULES),
    "maps": Schema(
        {
            **_KEY,
            "method": _text(),
            "grid_h": _number(1, dtype="int64"),
            "grid_w": _number(1, dtype="int64"),
            "values": Column(None),
            **dict.fromkeys(EDGES, _number()),
        },
        unique=("image_id", "finding", "method"),
        rules=_MAP_RULES,
    ),
}
