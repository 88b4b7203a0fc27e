"""The JSON object under the key ``cxr``, which holds facts that COCO and VOC cannot express.

Each image has one object, which other programs ignore::

    {"image_id": "a", "patient_id": "nih:00019124", "patient_id_source": "mapped",
     "source": "rsna", "study_id": ..., "view": "PA", "sex": "F", "age_years": 51.0,
     "spacing_row_mm": ..., "spacing_col_mm": ..., "x_class": "normal",
     "findings": {"mass": {"state": "absent", "origin": "consensus", "coverage": "all"}},
     "readers": {"R1": {"findings": {...}, "boxes": [["mass", x1, y1, x2, y2]]}}}

Unknown values are left out. A finding that is not under ``findings`` is unknown. On an image with
this object a missing box therefore does not mean that a finding is absent. The boxes of the
reference are stored as the format stores boxes.
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
    """Rows of three label tables (findings, completeness of boxes, boxes) as lists of tuples.

    A reader is a person who labelled images.

    Attributes:
        states: Tuples ``image, finding, reader, state, origin``: the reader says that the finding
            (disease) is present, absent or uncertain; ``origin`` is the kind of label, such as
            ``consensus``.
        coverage: Tuples ``image, finding, reader, coverage``: ``all`` or ``some`` lesions of the
            image have a box.
        boxes: Tuples ``image, finding, reader, x1, y1, x2, y2``, edges in px of the original image.
    """

    states: list[tuple[str, ...]] = field(default_factory=list)
    coverage: list[tuple[str, ...]] = field(default_factory=list)
    boxes: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, other: LabelRows) -> None:
        """Append the rows of another object to the three lists.

        Args:
            other: Object with the rows to append.
        """
        self.states += other.states
        self.coverage += other.coverage
        self.boxes += other.boxes


def image_objects(
    images: pd.DataFrame, findings: pd.DataFrame, boxes: pd.DataFrame, box_coverage: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    """Yield for each image the facts and labels that standard formats such as COCO cannot hold.

    An exported file contains them as a JSON object under the key ``cxr``, so that this program can
    read them again.

    Args:
        images: Images table. The objects come in the order of its rows.
        findings: Findings table: the state of each finding, by image and reader (person who
            labelled).
        boxes: Boxes table of all readers. Boxes of the reader ``reference``, which the standard
            format itself holds, are not part of the objects.
        box_coverage: Table that says whether all or only some lesions of an image have a box, by
            finding and reader.

    Yields:
        A dictionary of facts, labels and boxes of one image, with values for JSON.
    """
    labels: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    for frame in (findings, box_coverage):
        columns = [c for c in ("state", "origin", "coverage") if c in frame.columns]
        rows = frame[["image_id", "finding", "reader", *columns]].itertuples(index=False, name=None)
        for image_id, finding, reader, *values in rows:
            reader_labels = labels.setdefault(image_id, {}).setdefault(reader, {})
            reader_labels.setdefault(finding, {}).update(zip(columns, values, strict=True))
    drawn: dict[str, dict[str, list[list[Any]]]] = {}
    others = boxes[boxes["reader"] != REFERENCE_READER]
    for image_id, reader, *box in others[
        ["image_id", "reader", "finding", "x1", "y1", "x2", "y2"]
    ].itertuples(index=False, name=None):
        drawn.setdefault(image_id, {}).setdefault(reader, []).append(box)
    free = [c for c in images.columns if c.startswith("x_")]
    columns_there = [c for c in (*_TEXTS, *_NUMBERS, *free) if c in images.columns]
    for row in images[columns_there].itertuples(index=False, name=None):
        filled = ((k, v) for k, v in zip(columns_there, row, strict=True) if not pd.isna(v))
        facts = {k: v.item() if isinstance(v, np.generic) else v for k, v in filled}
        image_labels = labels.get(row[0], {})
        image_boxes = drawn.get(row[0], {})
        facts["findings"] = image_labels.get(REFERENCE_READER, {})
        readers = sorted((set(image_labels) | set(image_boxes)) - {REFERENCE_READER})
        if readers:
            facts["readers"] = {
                name: {"findings": image_labels.get(name, {}), "boxes": image_boxes.get(name, [])}
                for name in readers
            }
        yield facts


def read_image_object(value: Any, image: str, where: str) -> tuple[dict[str, Any], LabelRows]:
    """Read the object under the key ``cxr`` of one image in a file that this program exported.

    Args:
        value: The object, as `json.loads` returns it.
        image: Path of the image, which becomes the first item of each row.
        where: Position of the object in the file, for messages.

    Returns:
        Two values: facts of the image by column of the images table, such as ``sex``, and rows of
        the label tables.

    Raises:
        InputError: The object does not have the form that `image_objects` writes.
    """
    content = _mapping(value, where)
    facts: dict[str, Any] = {}
    for key, item in content.items():
        position = f"{where}: {key}"
        if key in _TEXTS:
            facts[key] = _text(item, position, _ALLOWED.get(key))
        elif key in _NUMBERS:
            facts[key] = _number(item, position)
        elif key.startswith("x_"):
            _require(isinstance(item, str | int | float), position, "a text or a number")
            facts[key] = item
        else:
            _require(key in ("findings", "readers"), position, "a key of ours")
    _require({"image_id", "findings"} <= set(content), where, "with image_id and findings")
    rows = LabelRows()
    _read_labels(content["findings"], image, REFERENCE_READER, f"{where}: findings", rows)
    readers = _mapping(content.get("readers", {}), f"{where}: readers")
    for reader, labels in readers.items():
        position = f"{where}: readers: {reader}"
        reader_labels = _mapping(labels, position)
        _read_labels(reader_labels.get("findings", {}), image, reader, position, rows)
        for box in _rows(reader_labels.get("boxes", []), position):
            _require(isinstance(box, list) and len(box) == 5, position, "finding, x1, y1, x2, y2")
            edges = [_number(value, position) for value in box[1:]]
            rows.boxes.append((image, _text(box[0], position), reader, *edges))
    return facts, rows


def set_object(targets: dict[str, dict[str, Any]], **facts: Any) -> dict[str, Any]:
    """Build the object that holds facts about the whole data set in an exported file.

    The file, such as COCO JSON, has the object under the key ``cxr``. Standard formats cannot
    hold these facts.

    Args:
        targets: By name of a target (findings that together make an image positive), its findings
            and display name, as ``dataset.json`` stores them.
        **facts: Facts about the labels by name, such as ``labels="radiologists"``.

    Returns:
        The object with version, facts and targets, as values for JSON.

    Example:
        >>> sorted(set_object({}, labels="radiologists"))
        ['labels', 'targets', 'version']
    """
    return {"version": _VERSION, **facts, "targets": targets}


def read_set_object(value: Any, where: str) -> dict[str, Any]:
    """Read the object that holds facts about the whole data set in an exported file.

    The file, such as COCO JSON, has the object under the key ``cxr``.

    Args:
        value: The object, as `json.loads` returns it.
        where: File and position of the object in it, for messages.

    Returns:
        A dictionary with ``targets`` (by name: findings that together make an image positive), and
        with ``pixels``, which is False for a data set without image files.

    Raises:
        InputError: The object does not have the form that `set_object` writes.
    """
    content = _mapping(value, where)
    _require(content.get("version") == _VERSION, f"{where}: version", f"{_VERSION} to be read here")
    targets = {}
    for name, target in _mapping(content.get("targets", {}), f"{where}: targets").items():
        position = f"{where}: targets: {name}"
        spec = _mapping(target, position)
        members = [_text(member, position) for member in _rows(spec.get("any_of"), position)]
        _require(bool(members), position, "a target with any_of")
        shown = _text(spec.get("display_name", name), position)
        targets[name] = {"any_of": members, "display_name": shown}
    return {"targets": targets, "pixels": content.get("pixels") is not False}


def _read_labels(content: Any, image: str, reader: str, where: str, rows: LabelRows) -> None:
    for finding, label in _mapping(content, where).items():
        position = f"{where}: {finding}"
        _require(bool(finding), position, "a name")
        values = {
            k: _text(v, position, _LABELS.get(k)) for k, v in _mapping(label, position).items()
        }
        if "state" in values:
            origin = values.get("origin", "unknown")
            rows.states.append((image, finding, reader, values["state"], origin))
        if "coverage" in values:
            rows.coverage.append((image, finding, reader, values["coverage"]))


def _require(condition: bool, where: str, expected: str) -> None:
    if not condition:  # the value is not shown: it may say who the patient is
        raise InputError(f"{where}: must be {expected}; leave the 'cxr' object as it was written")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    _require(isinstance(value, dict), where, "an object")
    return value


def _rows(value: Any, where: str) -> Iterable[Any]:
    _require(isinstance(value, list), where, "a list")
    return value


def _text(value: Any, where: str, allowed: tuple[str, ...] | None = None) -> str:
    _require(isinstance(value, str) and value != "", where, "a text")
    _require(allowed is None or value in allowed, where, f"one of {', '.join(allowed or ())}")
    return str(value)


def _number(value: Any, where: str) -> float:
    number = as_number(value)
    _require(number is not None, where, "a finite number")
    return float(number)  # type: ignore[arg-type]
