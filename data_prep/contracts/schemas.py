"""What each table on disk must hold: columns, types, ranges, keys; and what each JSON file.

`data_prep.contracts.tables` holds tables to it, `data_prep.contracts.folders` JSON files. Bounding
boxes are ``xyxy``, absolute pixels of the original image, continuous edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VIEWS = ("PA", "AP", "LL", "other")
PATIENT_SOURCES = ("given", "mapped", "mapped_unverified", "assumed_image")
STATES = ("present", "absent", "uncertain")
ORIGINS = ("reader", "consensus", "report_nlp", "folder", "boxes")
ROLES = ("train", "val", "test", "unused")
REFERENCE_READER = "reference"
SYNTHETIC = "synthetic"
"""The source of images that ``cxr synth`` drew."""
EDGES = ["x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class Rule:
    """What must hold, in words and as a function of a column or, of several columns, of a table."""

    words: str
    holds: Callable[[Any], Any]


@dataclass(frozen=True)
class Column:
    """What a column must hold."""

    # of pandas, to which values are brought; None for lists, which stay as they are
    type: str | None
    rules: tuple[Rule, ...] = ()  # of its values, those that are missing left aside
    required: bool = True  # whether every such table has it
    nullable: bool = False  # whether values may be missing


@dataclass(frozen=True)
class Schema:
    """What a table must hold."""

    columns: Mapping[str, Column]
    # the columns that together name a row; empty where rows may repeat
    unique: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()  # of several columns
    free: bool = False  # whether it may have other columns


def _text(
    *,
    optional: bool = False,
    nullable: bool = False,
    allowed: Sequence[str] = (),
    pattern: str | None = None,
) -> Column:
    rules = []
    if allowed:
        rules.append(Rule(f"one of {', '.join(allowed)}", lambda s: s.isin(allowed)))
    if pattern:
        rules.append(Rule(f"like {pattern}", lambda s: s.str.fullmatch(pattern)))
    if not nullable:
        rules.append(Rule("not empty", lambda s: s != ""))
    return Column("str", tuple(rules), not optional, nullable)


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
        rules.append(Rule(f"at least {low:g}", lambda s: s >= low))
    if high is not None:
        rules.append(Rule(f"at most {high:g}", lambda s: s <= high))
    if dtype.startswith("float"):
        rules.append(Rule("finite", lambda s: abs(s) < math.inf))
    return Column(dtype, tuple(rules), not optional, nullable)


_KEY = {"image_id": _text(), "finding": _text()}
_READER_KEY = ("image_id", "finding", "reader")
_BOX = {edge: _number(0) for edge in EDGES}
_ROLE = _text(allowed=ROLES)
_ROW = _number(0, dtype="int64")
_MEASURED = _number(0, optional=True, nullable=True)
_BOX_RULES = (
    Rule("x2 must exceed x1", lambda f: f["x1"] < f["x2"]),
    Rule("y2 must exceed y1", lambda f: f["y1"] < f["y2"]),
)
_INSIDE = Rule(
    "a path below the source, without '..'",
    lambda s: ~s.str.contains(r"^/|^$|\x00|(?:^|/)\.\.(?:/|$)"),
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
            "image_id": _text(),
            "patient_id": _text(),
            "patient_id_source": _text(allowed=PATIENT_SOURCES),
            "study_id": _text(optional=True, nullable=True),
            "source": _text(),
            "path": Column("str", (_INSIDE,), nullable=True),
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
        {
            **_KEY,
            "reader": _text(),
            "state": _text(allowed=STATES),
            "origin": _text(allowed=ORIGINS),
        },
        unique=_READER_KEY,
    ),
    "boxes": Schema({**_KEY, **_BOX, "reader": _text()}, rules=_BOX_RULES),
    "box_coverage": Schema(
        {**_KEY, "reader": _text(), "coverage": _text(allowed=("all", "some"))},
        unique=_READER_KEY,
    ),
    "decode": Schema(
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
            "inverted": Column("bool"),
            "orientation": _text(nullable=True),
            "pixel_sha256": _text(),
            "warnings": _text(nullable=True),
            "burned_in_annotation": _text(optional=True, nullable=True, allowed=("yes", "no")),
            "file_bytes": _number(1, dtype="Int64", optional=True, nullable=True),
            "mean_grey": _number(0, 255, optional=True, nullable=True),
            "perceptual_hash": _text(optional=True, nullable=True),
            "text_score": _MEASURED,
            **{f"text_{edge}": _MEASURED for edge in EDGES},
            "border_greys": _text(optional=True, nullable=True, pattern=r"[0-9a-f]{32}"),
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
            "image_id": _text(),
            "shard": _ROW,
            "row": _ROW,
            "scale_x": _number(1e-9),
            "scale_y": _number(1e-9),
            "offset_x": _number(),
            "offset_y": _number(),
            "pixels_hash": _number(dtype="int64", optional=True),
        },
        unique=("image_id",),
    ),
    "seen": Schema(
        {"image_id": _text(), "patient_id": _text(), "role": _ROLE}, unique=("image_id",)
    ),
    "predicted_images": Schema(
        {
            "image_id": _text(),
            "status": _text(allowed=("ok", "failed")),
            "reason": _text(nullable=True),
        },
        unique=("image_id",),
    ),
    "scores": Schema(
        {**_KEY, "score": _number(0, 1), "spread": _number(0, optional=True)},
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
            **{edge: _number() for edge in EDGES},
        },
        unique=("image_id", "finding", "method"),
        rules=_MAP_RULES,
    ),
    "decisions": Schema(
        {
            "image_id": _text(),
            "system": _text(),
            "label": _number(0, 1, nullable=True),
            "score": _number(0, 1),
            "probability": _number(0, 1, nullable=True),
        },
        unique=("image_id", "system"),
        free=True,
    ),
}


_MADE_ON = {"content_id?": str, "split?": str}
_RUN = {
    "name?": str,
    "model_kind?": ("detector", "classifier"),
    "target?": str,
    "findings?": [str],
    "data_set?": {"name": str, "content_id": str, "split?": str},
}
JSON_SHAPES: dict[str, Any] = {
    "dataset": {
        "name": str,
        "source_root": str,
        "targets": {str: {"any_of": [str], "display_name?": str}},
        "ids": {"content_id": str, "labels_id": str, "split_ids?": {str: str}},
        "settings?": {"source_id?": str, "window?": (str, None)},
        "id_key?": str,
    },
    "settings": {"settings": {"source_id?": str}},
    "split": {"how": {"method?": str, "folds?": str, "rule?": {"folds?": (int, None)}}},
    "audit": {
        "problems": [
            {
                **dict.fromkeys(("check", "severity", "message", "advice", "unit?", "split?"), str),
                "count": int,
                "examples": [str],
                "pictures?": [[str]],
            }
        ],
        "checked": {str: int},
        "facts?": {"shortcuts?": [{}]},
    },
    "near_duplicates": {
        "key": str,
        "pixels": (str, None),
        "candidates": int,
        "undecided": int,
        "complete": bool,
        "pairs": [[(str, float, None)]],
    },
    "pixels": {"size": int, "n_images": int, "pixels_id": str, "sha256?": {str: str}},
    "run": _RUN,
    "started_run": _RUN,
    "model": {"architecture?": {}},
    "predictions": {
        "system": str,
        "kind?": ("boxes", "scores"),
        "data_set?": (_MADE_ON, None),
        "target?": ({"name": str, "display_name": str}, None),
        "trained_on?": ([{"name": str, "content_id": str}], str, None),
        "cost?": ({}, None),
    },
    "unfinished_predictions": {"identity": {}},
    "decision": {
        "target?": str,
        "chosen_on?": {},
        **dict.fromkeys(
            ("reduction?", "calibration?", "choices?", "search?", "asked?"), ({}, None)
        ),
        "box_fusion?": ({"iou?": (float, None), "scale?": float, "min_score?": float}, None),
        "map_scale?": ([float], None),
        "map_box_level?": (float, None),
        "box_cut?": (float, None),
        "policies": {str: {"threshold": (float, None), "reason": (str, None), "validation": {}}},
        "referral?": {str: {}},
        "validation?": {},
        "tried?": [{}],
    },
    "card": {
        **dict.fromkeys(("is", "run", "learned_from"), str),
        "calibrated_on": (str, None),
        "proof": {
            "verdict": str,
            "images": str,
            "measures": [
                {
                    "case": str,
                    "name": str,
                    "value": float,
                    **dict.fromkeys(("limit", "original", "exported"), (float, None)),
                }
            ],
        },
    },
    "synth": {"arguments": {"seed": int}},
    "metrics": {
        "target": str,
        "systems": [str],
        "metrics": [{}],
        "provenance": {"data_set": {**_MADE_ON, "labels_id": str}, "systems?": {str: {}}},
        "question?": ({}, None),
    },
    "sweep": {
        "space": {str: str},
        "as_it_stands": (int, None),
        "best": {"number": int, "folder": str, "run": str},
        "trials": [{"number": int, "state": str}],
        "data_set": _MADE_ON,
    },
}
"""What each kind of JSON file must hold, beside whatever else it holds.

A key that ends with ``?`` may lack (`data_prep.contracts.folders.read_json` names one that is asked
for); ``str`` as the key stands for any; a tuple lists what may
stand there.
"""


def broken_shape(value: Any, shape: Any, place: str = "") -> str | None:
    """Where a JSON value is not of a shape, in words; None where it is."""
    if isinstance(shape, tuple):
        broken = [broken_shape(value, one, place) for one in shape]
        return None if None in broken else broken[0]
    wanted = type(shape) if isinstance(shape, dict | list) else shape
    if not isinstance(wanted, type):
        return None if value == shape else f"{place} must be {shape!r}, got {value!r}"
    number = wanted is float and type(value) is int
    if type(value) is not wanted and not number:
        return f"{place or 'it'} must be {_JSON_TYPES[wanted]}, got {str(value)[:40]!r}"
    if isinstance(shape, list):
        inner = ((f"{place}[{n}]", item, shape[0]) for n, item in enumerate(value))
    elif isinstance(shape, dict):
        lacks = [k for k in shape if k is not str and k[-1] != "?" and k not in value]
        if lacks:
            return f"{place or 'it'} lacks '{lacks[0]}'"
        held = value if str in shape else [k.removesuffix("?") for k in shape]
        inner = (
            (f"{place}.{k}".lstrip("."), value[k], shape.get(k, shape.get(f"{k}?", shape.get(str))))
            for k in held
            if k in value
        )
    else:
        return None
    return next(filter(None, (broken_shape(item, of, at) for at, item, of in inner)), None)


_JSON_TYPES = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false",
    list: "a list", dict: "an object",
}  # fmt: skip


def odd_value(value: Any, depth: int = 0) -> str | None:
    """What no JSON file of ours holds: numbers beyond computing, broken texts, deep nesting."""
    if isinstance(value, dict | list):
        if depth > _DEEPEST:
            return f"is nested more than {_DEEPEST} deep"
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        return next(filter(None, (odd_value(item, depth + 1) for item in inner)), None)
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        return f"holds a text with a character that no text has: {value[:40]!r}"
    if isinstance(value, int | float) and not abs(value) < _LARGEST:
        return "holds a number that is none, or too large"
    return None


_DEEPEST, _LARGEST = 40, 2**63

# A published edge may overshoot by rounding only; more is another image's box.
EDGE_TOLERANCE_PX = 0.01

# A chest fills 30 to 45 cm; a width outside these bounds means that the spacing is another file's.
FIELD_WIDTH_MM = (250.0, 500.0)
