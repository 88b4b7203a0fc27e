"""What each table on disk must hold: columns, types, ranges, keys; and what each JSON file.

`data_prep.contracts.tables` holds tables to it, `data_prep.contracts.folders` JSON files. Bounding
boxes are ``xyxy``, absolute pixels of the original image, continuous edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
SYNTHETIC_PATIENT = r"(?:^|:)phantom-\d"
"""How the ids of their patients begin."""
EDGES = ["x1", "y1", "x2", "y2"]
FINGERPRINTS = ("pixel_sha256", "perceptual_hash")
"""Columns that equal images share, and copies of an image nearly."""


@dataclass(frozen=True)
class Rule:
    """What must hold, in words and as a function of a column or, of several columns, of a table."""

    words: str
    holds: Callable[[Any], Any]


@dataclass(frozen=True)
class Column:
    """What a column must hold."""

    # "text", or a dtype of pandas, to which values are brought; None for lists, which stay as they
    # are. The dtype of text is named where tables are read, as commands read this without pandas.
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
        rules.append(Rule(f"at least {low:g}", lambda s: s >= low))
    if high is not None:
        rules.append(Rule(f"at most {high:g}", lambda s: s <= high))
    if dtype.startswith("float"):
        rules.append(Rule("finite", lambda s: abs(s) < math.inf))
    return Column(dtype, tuple(rules), not optional, nullable)


_IMAGE = {"image_id": _text()}
_KEY = {**_IMAGE, "finding": _text()}
_READ = {**_KEY, "reader": _text()}
_READER_KEY = ("image_id", "finding", "reader")
_BOX = dict.fromkeys(EDGES, _number(0))
_ROLE = _text(allowed=ROLES)
# Of an image that a wrong box rules out: the digest of its file, and the box.
_WRONG_BOX = dict.fromkeys(EDGES, _number(optional=True, nullable=True))
_WRONG_BOX["file_sha256"] = _text(optional=True, nullable=True)
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
            "text_score": _MEASURED,
            **{f"text_{edge}": _MEASURED for edge in EDGES},
            "border_greys": _text(optional=True, nullable=True, pattern=r"[0-9a-f]{32}"),
        },
        unique=("image_id",),
    ),
    "excluded": Schema({"path": _text(), "stage": _text(), "reason": _text(), **_WRONG_BOX}),
    "split": Schema(
        {"image_id": _text(), "role": _ROLE, "fold": _number(0, dtype="Int64", nullable=True)},
        unique=("image_id",),
    ),
    "pixel_index": Schema(
        {
            **_IMAGE,
            **dict.fromkeys(("shard", "row"), _number(0, dtype="int64")),
            **dict.fromkeys(("scale_x", "scale_y"), _number(1e-9)),
            **dict.fromkeys(("offset_x", "offset_y"), _number()),
            "pixels_hash": _number(dtype="int64", optional=True),
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
        # Earlier ensembles wrote the spread of their members' scores; nothing reads it.
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
            **dict.fromkeys(EDGES, _number()),
        },
        unique=("image_id", "finding", "method"),
        rules=_MAP_RULES,
    ),
    "decisions": Schema(
        {
            **_IMAGE,
            "system": _text(),
            "label": _number(0, 1, nullable=True),
            "score": _number(0, 1),
            "probability": _number(0, 1, nullable=True),
        },
        unique=("image_id", "system"),
        free=True,
    ),
}


_NUMBER, _WORD = (None, float), (None, str)
_ANY: tuple[Any, ...] = (None, {})
_MADE_ON = {"name?": str, "content_id?": str, "split?": str}
_MODEL = {"name?": str, "model_kind?": ("detector", "classifier"), "target?": str,
          "findings?": [str], "data_set?": _MADE_ON, "synthetic?": bool}  # fmt: skip
_RULE = {"val?": _NUMBER, "test?": _NUMBER, "folds?": (None, int), "seed?": (None, int),
         "method?": _WORD}  # fmt: skip
JSON_SHAPES: dict[str, Any] = {
    "dataset": {
        "name": str, "source_root": str, "targets": {str: {"any_of": [str], "display_name?": str}},
        "ids": {"content_id": str, "labels_id": str, "split_ids?": {str: str}},
        "settings?": {"source_id?": str, "window?": _WORD}, "id_key?": str,
    },
    "settings": {"settings": {"source_id?": str}},
    "split": {"how": {"method?": str, "folds?": str, "rule?": _RULE, "n_images_added?": int}},
    "audit": {
        "problems": [{
            "check": str, "severity": ("error", "warning", "info"), "message": str, "count": int,
            "examples": [str], "advice": str, "unit?": str, "pictures?": [[str]], "split?": str,
        }],
        "checked": {str: int}, "facts?": {"shortcuts?": [{}]},
    },
    "near_duplicates": {
        "key": str, "pixels": _WORD, "candidates": int, "undecided": int, "complete": bool,
        "pairs": [[str, str, float, str, _NUMBER]],
    },
    "pixels": {"size": int, "n_images": int, "pixels_id": str, "sha256?": {str: str}},
    "preprocess": {"size": int, "mean": float, "std": float},
    "run": _MODEL,
    "started_run": _MODEL,
    "model": {"architecture?": {"name?": str, "arguments?": {}}},
    "guard": {
        "statistics": int, "size": int, "limit": float, "images": int, "false_alarms": float,
        "ages": (None, [int, int, int, int]), "arrays": {str: {"shape": [int], "float32": str}},
    },
    "predictions": {
        "system?": str, "kind?": ("boxes", "scores"), "data_set?": (None, _MADE_ON),
        "target?": (None, {"name": str, "display_name": str}), "cost?": _ANY,
        "trained_on?": (None, str, [{"name": str, "content_id": str}]),
    },
    "unfinished_predictions": {"identity": {}},
    "decision": {
        "target": str, "chosen_on": {}, "choices?": _ANY, "box_cut?": _NUMBER, "tried": [{}],
        "reduction": (None, {"rule": str, "min_score": float}),
        "calibration": (
            None, {"method": ("none",)},
            {"method": ("isotonic",), "scores": [float], "probabilities": [float]},
            {"method": str, "slope": float, "intercept": float, "no_box?": _NUMBER},
        ),
        "asked?": (None, {
            "calibration": _WORD, "reductions": [str], "rule_out?": _WORD, "rule_in?": _WORD,
        }),
        "triage?": (None, {
            "below": _NUMBER, "above": _NUMBER, "referred": float, "ci_low": float,
            "ci_high": float, "why": [str],
        }),
        "map_scale": (None, [float, float]), "map_box_level": _NUMBER,
        "policies": {str: {"threshold": _NUMBER, "reason": _WORD, "validation": {str: _NUMBER}}},
        "validation": {str: _NUMBER},
    },
    "tested": {
        "chosen_on": {}, "report": {},
        "promises": {str: {"threshold": float, "outcomes": [{
            "figure": str, "estimate": float, "ci_low": float, "ci_high": float, "n_images": int,
            "n_patients": int,
        }]}},
    },
    "export": {
        "format": ("onnx", "openvino"), "precision": ("fp32", "bf16", "int8"),
        "kind": ("boxes", "scores"), "findings": [str], "size": int, "level_sizes": [int],
        "target": {"name": str, "any_of": [str], "display_name": str}, "run": _MODEL,
        "map_frame": (None, [float, float, float, float]), "map_levels": [[float, float]],
        "files?": {str: str},
    },
    "card": {
        "is": str, "run": str, "learned_from": str, "calibrated_on": _WORD,
        "proof": {"verdict": str, "images": str, "measures": [{
            "case": str, "name": str, "value": float, "limit": _NUMBER, "original": _NUMBER,
            "exported": _NUMBER,
        }]},
    },
    "synth": {"arguments": {"seed": int}, "counts?": {str: int}},
    "metrics": {
        "target": str, "systems?": [str], "thresholds?": {str: {str: _NUMBER}}, "metrics": [{}],
        "question?": _ANY,
        "provenance": {"data_set": {**_MADE_ON, "labels_id?": str}, "systems?": {str: {}}},
    },
    "sweep": {
        "objective": str, "space": {str: str}, "as_it_stands": (None, int), "data_set": _MADE_ON,
        "best": {"number": int, "value": float, "best_epoch": int, "settings": {str: str},
                 "folder": str, "run": str},
        "spread": {"n": int, "low": float, "median": float, "high": float},
        "trials": [{"number": int, "state": str, "value": _NUMBER, "epochs": (None, int)}],
    },
    "sweep_started": {
        "config": str, "space": {str: str}, "data_set": _MADE_ON, "sweep_seed": int,
        "pruning": bool,
    },
    "curve": {"findings": {str: [{"text": str}]}, "provenance": {"data_set": _MADE_ON}},
    "readers": {
        "primary": str, "n_positive": int, "n_cases": int,
        "crossed": {str: (None, {"components?": (None, {
            "reader": float, "interaction": float, "cov1": float, "cov2": float, "cov3": float,
            "error": float,
        })})},
    },
}  # fmt: skip
"""What each kind of JSON file must hold, beside whatever else it holds.

A key that ends with ``?`` may lack (`data_prep.contracts.folders.read_json` names one that is asked
for); ``str`` as the key stands for any; a tuple lists what may stand there, what is usual last; a
list of several items says how many there are.
"""
_JSON_TYPES = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false",
    list: "a list", dict: "an object",
}  # fmt: skip


def broken_shape(value: Any, shape: Any, place: str = "") -> str | None:
    """Where a JSON value is not of a shape, in words; None where it is."""
    place_words, got = place or "it", f"got {str(value)[:40]!r}"
    if isinstance(shape, tuple) and isinstance(shape[0], str):
        return None if value in shape else f"{place_words} must be {' or '.join(shape)}, {got}"
    if isinstance(shape, tuple):
        broken = [broken_shape(value, one, place) for one in shape]
        return None if None in broken else broken[-1]
    wanted = type(shape) if isinstance(shape, dict | list) else shape
    if wanted is None or (type(value) is not wanted and (wanted, type(value)) != (float, int)):
        words = _JSON_TYPES.get(wanted, "null")
        return None if value is wanted else f"{place_words} must be {words}, {got}"
    inner: Iterable[tuple[str, Any, Any]] = ()
    if isinstance(shape, list):
        if len(value) != len(shape) > 1:
            return f"{place} must hold {len(shape)} values, got {len(value)}"
        inner = ((f"{place}[{n}]", item, shape[n % len(shape)]) for n, item in enumerate(value))
    elif isinstance(shape, dict):
        known = {key.removesuffix("?"): of for key, of in shape.items() if key is not str}
        lacks = [key for key in known if key in shape and key not in value]
        if lacks:
            return f"{place_words} lacks '{lacks[0]}'"
        every = shape.get(str)
        held = value if every else [key for key in known if key in value]
        inner = ((f"{place}.{key}".lstrip("."), value[key], known.get(key, every)) for key in held)
    return next(filter(None, (broken_shape(item, of, at) for at, item, of in inner)), None)


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
