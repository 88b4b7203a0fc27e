"""Format `label-studio`: the JSON that Label Studio exports.

Source:
    https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.formats.annotation_tools import (
    UNKNOWN,
    LabelRow,
    MarkNotes,
    box_cells,
    label_tables_of_tool,
)
from cxr_compare.data_prep.formats.class_names import states_of_cells
from cxr_compare.data_prep.formats.folder_scan import IMAGE_SUFFIXES, has_text
from cxr_compare.data_prep.formats.label_file_kinds import LABEL_STUDIO_MARKS
from cxr_compare.data_prep.formats.label_values import as_number, finite_or_nan
from cxr_compare.data_prep.formats.table import TABLE


def _label_studio_rows(path: Path, notes: MarkNotes) -> Iterator[LabelRow]:
    tasks = read_json_file(path)
    for number, task in enumerate(tasks if isinstance(tasks, list) else [None], start=1):
        where = f"{path}: task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise InputError(f"{where}: is no object with data; export from Label Studio as JSON")
        plain = {k: v for k, v in task["data"].items() if isinstance(v, str | int | float)}
        facts = {key: _file_name(str(value)) for key, value in plain.items()}
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


def _file_name(text: str) -> str:
    """Return the file of a URL, without the digits that an upload puts before its name."""
    if text.startswith("/") or "://" in text:
        text = unquote(re.sub(r"^.*[?&]d=|[?&#].*$", "", text))
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
    if (as_number(result.get("image_rotation")) or 0) % 360:
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


LABEL_STUDIO = replace(
    TABLE,
    name="label-studio",
    title="Label Studio",
    detect=has_text(("*.json",), LABEL_STUDIO_MARKS),
    folder="tasks exported as JSON, images in any folders",
    make_label_tables=partial(label_tables_of_tool, suffix=".json", read=_label_studio_rows),
)
