"""Format `label-studio`: the JSON, JSON-MIN and CSV that Label Studio exports.

Source:
    https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
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
from cxr_compare.data_prep.sources.annotations import ImageLabels, Mark, sides_of
from cxr_compare.data_prep.sources.image_files import (
    IMAGE_SUFFIXES,
    contains,
    has_columns,
    has_file,
)
from cxr_compare.data_prep.sources.label_values import states_of_cells
from cxr_compare.data_prep.sources.outlines import (
    box_around,
    box_of_rectangle,
    ellipse_points,
    pairs_of,
)
from cxr_compare.data_prep.sources.own_table import TABLE
from cxr_compare.data_prep.sources.source_tables import Format
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.tool_files import (
    facts_of,
    read_tool_files,
)

_MARKS = (rb'"data"\s*:', rb'"annotations"\s*:', rb'"result"\s*:')
_FLAT_MARKS = (rb'"annotation_id"\s*:', rb'"lead_time"\s*:')
_SUFFIXES = (".json", ".csv")
_FLAT_FACTS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}


def _is_label_studio(path: Path) -> bool:
    """Return True if a file is an export of Label Studio: JSON, JSON-MIN or CSV."""
    if path.suffix.lower() == ".csv":
        return has_columns(path, "annotation_id", "lead_time")
    return path.suffix.lower() == ".json" and (
        contains(path, _MARKS) or contains(path, _FLAT_MARKS)
    )


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


def _read_file(source: Source, path: Path) -> Iterator[ImageLabels]:
    for number, task in enumerate(_tasks(path), start=1):
        where = f"{path}: task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise InputError(f"{where}: is no object with data; export from Label Studio as JSON")
        data = {k: v for k, v in task["data"].items() if isinstance(v, str | int | float)}
        name = _image_name(data, source)
        image = source.find_image(name, path.name, ("", "images"))
        if image is None:
            continue
        labels = ImageLabels(image, f"{path.name}, task {number}", absent=None, readers=())
        labels.facts = facts_of(data)
        readers: list[str] = []
        for annotation in _objects(task.get("annotations", []), where):
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
            labels.readers = [*labels.readers, reader]
            _add_marks(labels, results, reader, source, where)
        yield labels


def _image_name(data: Mapping[str, Any], source: Source) -> str:
    """Return the file of a task's image, without the digits that an upload puts before its name.

    They stay if one of the user's files has them.
    """
    texts = [str(data[key]) for key in sorted(data, key=lambda key: key != "image")]
    names = []
    for text in texts:
        is_address = text.startswith("/") or "://" in text
        names.append(unquote(re.sub(r"^.*[?&]d=|[?&#].*$", "", text)) if is_address else text)
    name = next((name for name in names if name.lower().endswith(IMAGE_SUFFIXES)), "")
    name = name or next(iter(names), "")
    if source.index is not None and source.index.by_name(name, ("", "images")):
        return name
    return re.sub(r"^(/data/upload/.*)\b[0-9a-f]{8}-", r"\1", name)


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"{where}: annotations and their results must be lists of objects")
    return value


def _add_marks(
    labels: ImageLabels,
    results: list[dict[str, Any]],
    reader: str,
    source: Source,
    where: str,
) -> None:
    """Add the marks of an annotation.

    A mark that is not understood (a box without a class, a key point) may be any finding: its image
    is left out. Texts alone leave the image unknown. A result of an understood region only
    describes that region further.
    """
    understood: set[str] = set()
    others = []
    marks: list[Mark] = []
    for result in results:
        own = list(_marks_of(result, reader, labels.facts, where))
        marks += own
        if own:
            understood.add(str(result.get("id")))
        elif result.get("type") != "relation":
            others.append(result)
    unclear = [r for r in others if "id" not in r or str(r["id"]) not in understood]
    for result in unclear:
        value = result.get("value")
        if isinstance(value, dict) and {"x", "points", "rle"} & value.keys():
            source.cannot_read(labels.image, f"{labels.file}: a mark has no class")
    if unclear and not marks:
        marks.append(Mark("unknown", reader=reader))
    labels.marks += marks


def _marks_of(
    result: dict[str, Any], reader: str, facts: dict[str, Any], where: str
) -> Iterator[Mark]:
    """Yield a mark for each label that a result names."""
    kind = str(result.get("type"))
    content = result.get("value")
    value: dict[str, Any] = content if isinstance(content, dict) else {}
    names = value.get(kind)
    of_region = kind == "choices" and bool({"x", "points"} & value.keys())
    if not names or of_region:
        return
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: {kind[:40]} is no list of names")
    if kind == "choices":
        states = states_of_cells(pd.Series(names, dtype=TEXT))
        if len(names) == 1 and states.notna().all():  # a question, such as "Pneumonia?"
            yield Mark(str(result.get("from_name")), reader=reader, state=states[0])
        else:
            yield from (Mark(name, reader=reader) for name in names)
        return
    size = np.array(finite_or_nan(map(result.get, ("original_width", "original_height"))))
    facts |= sides_of(*size)
    sides = (facts["width"], facts["height"])

    def numbers(*names: str) -> np.ndarray:
        return np.array(finite_or_nan(map(value.get, names))) * size / 100

    low = numbers("x", "y")
    (degrees,) = finite_or_nan([value.get("rotation", 0)])
    is_around = True
    if "points" in value:
        box = box_around(pairs_of(value["points"]) * size / 100, sides)
    elif "radiusX" in value:
        points = ellipse_points(low, numbers("radiusX", "radiusY"))
        box = box_around(points, sides, degrees, low)
    elif "height" in value:
        high = low + numbers("width", "height")
        box, is_around = box_of_rectangle(low, high, sides, degrees, low)
    else:
        raise InputError(f"{where}: {kind[:40]} has no box; remove it, or draw a rectangle")
    box = np.round(box, 4).tolist()
    yield from (Mark(name, box, reader, is_around=is_around) for name in names)


LABEL_STUDIO = Format(
    name="label-studio",
    title="Label Studio",
    detect=has_file(("*.json", "*/*.json", "*.csv"), _is_label_studio),
    folder="tasks exported as JSON, JSON-MIN or CSV, images in any folders",
    read=partial(read_tool_files, "label-studio", _SUFFIXES, _read_file, _is_label_studio),
    options=TABLE.options,
)
