"""Format `label-studio`: the JSON, JSON-MIN and CSV that Label Studio exports.

Source:
    https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.sources.image_files import IMAGE_SUFFIXES, contains, has_columns
from cxr_compare.data_prep.sources.label_values import states_of_cells
from cxr_compare.data_prep.sources.own_table import TABLE
from cxr_compare.data_prep.sources.source_tables import Format
from cxr_compare.data_prep.sources.tool_tables import (
    UNKNOWN,
    LabelRow,
    MarkNotes,
    box_cells,
    read_tool_files,
)

_MARKS = (rb'"data"\s*:', rb'"annotations"\s*:', rb'"result"\s*:')
_FLAT_MARKS = (rb'"annotation_id"\s*:', rb'"lead_time"\s*:')
_FILES_OPENED = 20
_FLAT_FACTS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}


def is_label_studio(path: Path) -> bool:
    """Return True if a file is an export of Label Studio: JSON, JSON-MIN or CSV."""
    if path.suffix.lower() == ".csv":
        return has_columns(path, "annotation_id", "lead_time")
    return path.suffix.lower() == ".json" and (
        contains(path, _MARKS) or contains(path, _FLAT_MARKS)
    )


def _may_be_label_studio(path: Path) -> bool:
    return path.suffix.lower() == ".json" or is_label_studio(path)


def _tasks(path: Path) -> list[Any]:
    """Return the tasks of a file, as the full JSON writes them."""
    if path.suffix.lower() == ".csv":
        rows = read_text_table(path, ()).to_dict("records")
        return [
            _task_of_flat({str(key): _cell(value) for key, value in row.items()}) for row in rows
        ]
    tasks = read_json_file(path)
    if not isinstance(tasks, list):
        return [None]
    return [
        _task_of_flat(task) if isinstance(task, dict) and "annotation_id" in task else task
        for task in tasks
    ]


def _cell(text: str) -> Any:
    """Return the content of a cell of the CSV, which holds JSON where it begins like it."""
    if not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _task_of_flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task of JSON-MIN or CSV, whose results stand beside its data, as the full JSON."""
    results = []
    data = {}
    for name, value in entry.items():
        marks = value if isinstance(value, list) else [value]
        if name in _FLAT_FACTS:
            continue
        if not all(isinstance(mark, dict) for mark in marks):
            data[name] = value if not isinstance(value, list) else ", ".join(map(str, value))
            continue
        for mark in marks:
            kind = next((key for key in mark if key.endswith("labels") or key == "choices"), "")
            sizes = {key: mark.get(key) for key in ("original_width", "original_height")}
            results.append({"type": kind, "value": mark, "from_name": name, **sizes})
    annotation = {"completed_by": entry.get("annotator"), "result": results}
    is_annotated = entry.get("annotation_id") not in (None, "")
    return {"data": data, "annotations": [annotation] if is_annotated else []}


def _label_studio_rows(path: Path, notes: MarkNotes) -> Iterator[LabelRow]:
    for number, task in enumerate(_tasks(path), start=1):
        where = f"{path}: task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise InputError(f"{where}: is no object with data; export from Label Studio as JSON")
        plain = {k: v for k, v in task["data"].items() if isinstance(v, str | int | float)}
        facts = {key: _file_name(str(value), notes.files) for key, value in plain.items()}
        annotations = _objects(task.get("annotations", []), where)
        readers: list[str] = []
        for annotation in annotations:
            if annotation.get("was_cancelled"):
                continue
            annotator = annotation.get("completed_by")
            if isinstance(annotator, dict):
                annotator = annotator.get("id")
            readers.append(str(annotator))
            # A reader's second annotation of an image counts as another reader, named R'.
            reader = readers[-1] + "'" * (readers.count(readers[-1]) - 1)
            if annotation.get("ground_truth"):
                reader = REFERENCE_READER
            results = _objects(annotation.get("result", []), where)
            rows, is_whole = _annotation_rows(results, where, notes)
            if not is_whole:
                notes.unread.append(_image_name(facts) or f"task {number}")
                rows.append({"label": UNKNOWN})
            yield from ({**facts, "reader": reader, **row} for row in rows or [{}])
        if not readers:
            yield {**facts, "label": UNKNOWN}


def _image_name(facts: Mapping[str, str]) -> str:
    """Return the file name of a task's image, or "" if its data name no file."""
    return next((v for v in facts.values() if v.lower().endswith(IMAGE_SUFFIXES)), "")


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"{where}: annotations and their results must be lists of objects")
    return value


def _file_name(text: str, files: Collection[str]) -> str:
    """Return the file of a URL, without the digits that an upload puts before its name.

    They stay if one of the user's files has them.
    """
    if text.startswith("/") or "://" in text:
        text = unquote(re.sub(r"^.*[?&]d=|[?&#].*$", "", text))
    if text.rpartition("/")[2] in files:
        return text
    return re.sub(r"^(/data/upload/.*)\b[0-9a-f]{8}-", r"\1", text)


def _annotation_rows(
    results: list[dict[str, Any]], where: str, notes: MarkNotes
) -> tuple[list[LabelRow], bool]:
    """Return the rows of an annotation, and True if they hold all that was marked.

    A mark that is not understood (a box without a class, a key point) may be any finding. A result
    that belongs to an understood region only describes that region further.
    """
    rows = list[LabelRow]()
    understood = set[str]()
    others = list[dict[str, Any]]()
    for result in results:
        result_rows = list(_result_rows(result, where, notes))
        rows += result_rows
        if result_rows:
            understood.add(str(result.get("id")))
        elif result.get("type") != "relation":
            others.append(result)
    unclear = [r for r in others if "id" not in r or str(r["id"]) not in understood]
    has_unclear_mark = any(map(_is_drawn, unclear))
    return rows, not has_unclear_mark and (bool(rows) or not unclear)


def _is_drawn(result: dict[str, Any]) -> bool:
    """Return True if a result marks a position in the image."""
    value = result.get("value")
    return isinstance(value, dict) and bool({"x", "points", "rle"} & value.keys())


def _result_rows(result: dict[str, Any], where: str, notes: MarkNotes) -> Iterator[LabelRow]:
    """Yield a row for each label that a result names, with its box."""
    kind = str(result.get("type"))
    content = result.get("value")
    value: dict[str, Any] = content if isinstance(content, dict) else {}
    names = value.get(kind)
    of_region = kind == "choices" and bool({"x", "points"} & value.keys())
    if not names or of_region:
        notes.counts["results are neither boxes nor choices for an image: these are ignored"] += 1
        return
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: {kind[:40]} is no list of names")
    if kind == "choices":
        are_states = bool(states_of_cells(pd.Series(names, dtype=TEXT)).notna().all())
        column = str(result.get("from_name")) if are_states else "label"
        yield from ({column: name} for name in names)
        return
    if not {"points", "radiusX", "height"} & value.keys():
        raise InputError(f"{where}: {kind[:40]} has no box; remove it, or draw a rectangle")
    size = np.array(finite_or_nan(map(result.get, ("original_width", "original_height"))))
    names_of_cvat = {
        "cx": "x",
        "cy": "y",
        "left": "x",
        "top": "y",
        "rx": "radiusX",
        "ry": "radiusY",
    }
    shape = value | {name: value[key] for name, key in names_of_cvat.items() if key in value}
    if "points" in value:
        shape["points"] = _flat_points(value["points"])
    box = box_cells(shape, size, notes, size / 100, turns="corner")
    # Label Studio turns the view alone, and states regions on the unturned image.
    (view,) = finite_or_nan([result.get("image_rotation", 0)])
    if view == view and view % 360:
        notes.counts[
            "shapes were drawn on a turned view (image_rotation): these are read on the unturned "
            "image, as Label Studio states them"
        ] += 1
    box |= {"image_width": str(size[0]), "image_height": str(size[1])}
    yield from ({**box, "label": name} for name in names)


def _flat_points(points: Any) -> list[Any]:
    """Flatten a list of pairs; return ``[None]`` if it is no such list."""
    pairs: list[Any] = points if isinstance(points, list) else [None]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return [None]
    return [number for pair in pairs for number in pair]


def _looks_like_label_studio(path: Path) -> bool:
    if path.is_file():
        return is_label_studio(path)
    files = [
        *sorted(path.glob("*.json"))[:_FILES_OPENED],
        *sorted(path.glob("*.csv"))[:_FILES_OPENED],
    ]
    return any(map(is_label_studio, files))


LABEL_STUDIO = Format(
    name="label-studio",
    title="Label Studio",
    detect=_looks_like_label_studio,
    folder="tasks exported as JSON, JSON-MIN or CSV, images in any folders",
    read=partial(
        read_tool_files, "label-studio", (".json", ".csv"), _label_studio_rows, _may_be_label_studio
    ),
    options=TABLE.options,
)
