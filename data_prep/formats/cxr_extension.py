"""What COCO and VOC have no place for: one JSON object an image, under the key ``cxr``.

Other programs pass over it. It holds::

    {"image_id": "a", "patient_id": "nih:00019124", "patient_id_source": "mapped",
     "source": "rsna", "study_id": ..., "view": "PA", "sex": "F", "age_years": 51.0,
     "spacing_row_mm": ..., "spacing_col_mm": ..., "x_class": "normal",
     "findings": {"mass": {"state": "absent", "origin": "consensus", "coverage": "all"}},
     "readers": {"R1": {"findings": {...}, "boxes": [["mass", x1, y1, x2, y2]]}}}

What is not known is left out. A finding that is not under ``findings`` is unknown, so an image with
this object has no label by silence. The reference's boxes stay where the format has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import (
    ORIGINS,
    PATIENT_SOURCES,
    REFERENCE_READER,
    STATES,
    VIEWS,
)
from cxr_compare.data_prep.formats.label_values import as_number

KEY = "cxr"
_VERSION = 1
_TEXTS = ("image_id", "patient_id", "patient_id_source", "source", "study_id", "view", "sex")
_NUMBERS = ("age_years", "spacing_row_mm", "spacing_col_mm")
_ALLOWED = {"patient_id_source": PATIENT_SOURCES, "view": VIEWS}

_LABELS = {"state": STATES, "origin": ORIGINS, "coverage": ("all", "some")}


@dataclass
class LabelRows:
    """Rows of three tables; the first item of each is the image."""

    # `image, finding, reader, state, origin`
    states: list[tuple[str, ...]] = field(default_factory=list)
    # `image, finding, reader, coverage`
    coverage: list[tuple[str, ...]] = field(default_factory=list)
    # `image, finding, reader, x1, y1, x2, y2`
    boxes: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, other: LabelRows) -> None:
        """Append the rows of another."""
        self.states += other.states
        self.coverage += other.coverage
        self.boxes += other.boxes


def write_objects(
    images: pd.DataFrame, findings: pd.DataFrame, boxes: pd.DataFrame, box_coverage: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    """Make the object of each image."""
    labels: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    for frame in (findings, box_coverage):
        columns = [c for c in ("state", "origin", "coverage") if c in frame.columns]
        rows = frame[["image_id", "finding", "reader", *columns]].itertuples(index=False, name=None)
        for image_id, finding, reader, *values in rows:
            of_reader = labels.setdefault(image_id, {}).setdefault(reader, {})
            of_reader.setdefault(finding, {}).update(zip(columns, values, strict=True))
    drawn: dict[str, dict[str, list[list[Any]]]] = {}
    others = boxes[boxes["reader"] != REFERENCE_READER]
    for image_id, reader, *box in others[
        ["image_id", "reader", "finding", "x1", "y1", "x2", "y2"]
    ].itertuples(index=False, name=None):
        drawn.setdefault(image_id, {}).setdefault(reader, []).append(box)
    free = [c for c in images.columns if c.startswith("x_")]
    columns_there = [c for c in (*_TEXTS, *_NUMBERS, *free) if c in images.columns]
    for row in images[columns_there].itertuples(index=False, name=None):
        known = ((k, v) for k, v in zip(columns_there, row, strict=True) if not pd.isna(v))
        facts = {k: v.item() if isinstance(v, np.generic) else v for k, v in known}
        of_image = labels.get(row[0], {})
        boxes_of_image = drawn.get(row[0], {})
        facts["findings"] = of_image.get(REFERENCE_READER, {})
        readers = sorted((set(of_image) | set(boxes_of_image)) - {REFERENCE_READER})
        if readers:
            facts["readers"] = {
                name: {"findings": of_image.get(name, {}), "boxes": boxes_of_image.get(name, [])}
                for name in readers
            }
        yield facts


def read_object(value: Any, image: str, where: str) -> tuple[dict[str, Any], LabelRows]:
    """Read the object of one image."""
    content = _mapping(value, where)
    facts: dict[str, Any] = {}
    for key, item in content.items():
        place = f"{where}: {key}"
        if key in _TEXTS:
            facts[key] = _word(item, place, _ALLOWED.get(key))
        elif key in _NUMBERS:
            facts[key] = _number(item, place)
        elif key.startswith("x_"):
            _require(isinstance(item, str | int | float), place, "a text or a number")
            facts[key] = item
        else:
            _require(key in ("findings", "readers"), place, "a key of ours")
    _require({"image_id", "findings"} <= set(content), where, "with image_id and findings")
    rows = LabelRows()
    _read_labels(content["findings"], image, REFERENCE_READER, f"{where}: findings", rows)
    for reader, said in _mapping(content.get("readers", {}), f"{where}: readers").items():
        place = f"{where}: readers: {reader}"
        of_reader = _mapping(said, place)
        _read_labels(of_reader.get("findings", {}), image, reader, place, rows)
        for box in _rows(of_reader.get("boxes", []), place):
            _require(isinstance(box, list) and len(box) == 5, place, "finding, x1, y1, x2, y2")
            edges = [_number(value, place) for value in box[1:]]
            rows.boxes.append((image, _word(box[0], place), reader, *edges))
    return facts, rows


def write_set_facts(targets: dict[str, dict[str, Any]], **known: Any) -> dict[str, Any]:
    """What is said once of a whole set: version, targets, and where the labels come from."""
    return {"version": _VERSION, **known, "targets": targets}


def read_set_facts(value: Any, where: str) -> dict[str, Any]:
    """Read what `write_set_facts` wrote."""
    content = _mapping(value, where)
    _require(content.get("version") == _VERSION, f"{where}: version", f"{_VERSION} to be read here")
    targets = {}
    for name, target in _mapping(content.get("targets", {}), f"{where}: targets").items():
        place = f"{where}: targets: {name}"
        spec = _mapping(target, place)
        members = [_word(member, place) for member in _rows(spec.get("any_of"), place)]
        _require(bool(members), place, "a target with any_of")
        shown = _word(spec.get("display_name", name), place)
        targets[name] = {"any_of": members, "display_name": shown}
    return {"targets": targets, "pixels": content.get("pixels") is not False}


def _read_labels(content: Any, image: str, reader: str, where: str, rows: LabelRows) -> None:
    for finding, label in _mapping(content, where).items():
        place = f"{where}: {finding}"
        _require(bool(finding), place, "a name")
        values = {k: _word(v, place, _LABELS.get(k)) for k, v in _mapping(label, place).items()}
        if "state" in values:
            origin = values.get("origin", "consensus")
            rows.states.append((image, finding, reader, values["state"], origin))
        if "coverage" in values:
            rows.coverage.append((image, finding, reader, values["coverage"]))


def _require(right: bool, where: str, expected: str) -> None:
    if not right:  # the value is not shown: it may say who the patient is
        raise InputError(f"{where}: must be {expected}; leave the 'cxr' object as it was written")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    _require(isinstance(value, dict), where, "an object")
    return value


def _rows(value: Any, where: str) -> Iterable[Any]:
    _require(isinstance(value, list), where, "a list")
    return value


def _word(value: Any, where: str, allowed: tuple[str, ...] | None = None) -> str:
    _require(isinstance(value, str) and value != "", where, "a text")
    _require(allowed is None or value in allowed, where, f"one of {', '.join(allowed or ())}")
    return str(value)


def _number(value: Any, where: str) -> float:
    number = as_number(value)
    _require(number is not None, where, "a finite number")
    return float(number)  # type: ignore[arg-type]
