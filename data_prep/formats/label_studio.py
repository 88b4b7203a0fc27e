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

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.formats.annotation_tools import (
    UNKNOWN,
    LabelRow,
    MarkNotes,
    box_cells,
    label_tables_of_tool,
)
from cxr_compare.data_prep.formats.class_names import STATE_WORDS
from cxr_compare.data_prep.formats.coco import read_json_file
from cxr_compare.data_prep.formats.folder_scan import IMAGE_SUFFIXES, has_match
from cxr_compare.data_prep.formats.label_values import to_edges
from cxr_compare.data_prep.formats.table import TABLE


def _label_studio_rows(path: Path, seen: MarkNotes) -> Iterator[LabelRow]:
    tasks = read_json_file(path)
    for number, task in enumerate(tasks if isinstance(tasks, list) else [None], start=1):
        where = f"{path}: task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise InputError(f"{where}: is no object with data; export from Label Studio as JSON")
        known = {k: v for k, v in task["data"].items() if isinstance(v, str | int | float)}
        facts = {key: _file_name(str(value)) for key, value in known.items()}
        given = _objects(task.get("annotations", []), where)
        readers: list[str] = []
        for annotation in (one for one in given if not one.get("was_cancelled")):
            by = annotation.get("completed_by")
            readers.append(str(by.get("id") if isinstance(by, dict) else by))
            reader = readers[-1] + "'" * (readers.count(readers[-1]) - 1)  # who read it once more
            own = {"reader": REFERENCE_READER if annotation.get("ground_truth") else reader}
            results = _objects(annotation.get("result", []), where)
            rows, is_whole = _annotation_rows(results, where, seen)
            if not is_whole:
                seen.unread.append(_image_name(facts) or f"task {number}")
                rows.append({"label": UNKNOWN})
            yield from ({**facts, **own, **row} for row in rows or [{}])
        yield from () if readers else ({**facts, "label": UNKNOWN},)


def _image_name(facts: Mapping[str, str]) -> str:
    """What a task's data call its image; nothing where they name no file."""
    return next((v for v in facts.values() if v.lower().endswith(IMAGE_SUFFIXES)), "")


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"{where}: annotations and their results must be lists of objects")
    return value


def _file_name(text: str) -> str:
    """Of a URL the file, without the digits that an upload puts before its name."""
    if text.startswith("/") or "://" in text:
        text = unquote(re.sub(r"^.*[?&]d=|[?&#].*$", "", text))
    return re.sub(r"^(/data/upload/.*)\b[0-9a-f]{8}-", r"\1", text)


def _annotation_rows(
    results: list[dict[str, Any]], where: str, seen: MarkNotes
) -> tuple[list[LabelRow], bool]:
    """Rows of what an annotator marked on an image, and whether all that he marked is in them.

    A mark that is not understood (a box without a class, a key point) may be any finding. What
    belongs to a region that is understood says more of that alone, as a text does beside marks.
    """
    rows = list[LabelRow]()
    understood = set[str]()
    others = list[dict[str, Any]]()
    for result in results:
        of_result = list(_result_rows(result, where, seen))
        rows += of_result
        if of_result:
            understood.add(str(result.get("id")))
        elif result.get("type") != "relation":
            others.append(result)
    loose = [one for one in others if "id" not in one or str(one["id"]) not in understood]
    return rows, not any(map(_is_drawn, loose)) and (bool(rows) or not loose)


def _is_drawn(result: dict[str, Any]) -> bool:
    """Whether a result marks a place in the image."""
    value = result.get("value")
    return isinstance(value, dict) and bool({"x", "points", "rle"} & value.keys())


def _result_rows(result: dict[str, Any], where: str, seen: MarkNotes) -> Iterator[LabelRow]:
    """A row for each label that a result names, with its box."""
    kind = str(result.get("type"))
    content = result.get("value")
    value: dict[str, Any] = content if isinstance(content, dict) else {}
    names = value.get(kind)
    of_region = kind == "choices" and bool({"x", "points"} & value.keys())
    if not names or of_region:
        seen.counts["results are neither boxes nor choices for an image: passed over"] += 1
        return
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: {kind[:40]} is no list of names")
    if kind == "choices":
        asked = all(name.lower() in STATE_WORDS for name in names)
        yield from ({str(result.get("from_name")) if asked else "label": name} for name in names)
        return
    if not {"points", "radiusX", "height"} & value.keys():
        raise InputError(f"{where}: {kind[:40]} has no box; remove it, or draw a rectangle")
    size = np.array(to_edges(map(result.get, ("original_width", "original_height"))))
    own = {"cx": "x", "cy": "y", "left": "x", "top": "y", "rx": "radiusX", "ry": "radiusY"}
    shape = value | {name: value[key] for name, key in own.items() if key in value}
    if "points" in value:
        shape["points"] = _flat_points(value["points"])
    box = box_cells(shape, size, seen, size / 100, turns="corner")
    box |= {"image_width": str(size[0]), "image_height": str(size[1])}
    yield from ({**box, "label": name} for name in names)


def _flat_points(points: Any) -> list[Any]:
    """Numbers of a list of pairs; something that is no number where it is no such list."""
    pairs: list[Any] = points if isinstance(points, list) else [None]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return [None]
    return [number for pair in pairs for number in pair]


LABEL_STUDIO = replace(
    TABLE,
    name="label-studio",
    title="Label Studio",
    detect=has_match("tasks.json", "project-*-at-*.json"),
    folder="tasks exported as JSON, images in any folders",
    own_tables=partial(label_tables_of_tool, suffix=".json", read=_label_studio_rows),
)
