"""Formats of annotation tools: CVAT's XML ("CVAT for images 1.1") and Label Studio's JSON.

Each file becomes a label table (`data_prep.formats.table`): a row a shape or label of an image, and
one without a label where somebody looked and marked nothing; docs/formats.md says what counts.
Source: https://docs.cvat.ai/docs/other/xml_format and https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.coco import read_json_file
from cxr_compare.data_prep.formats.csv_tables import TABLE
from cxr_compare.data_prep.formats.cxr_extension import to_edges
from cxr_compare.data_prep.formats.label_files import STATE_WORDS
from cxr_compare.data_prep.formats.source import (
    IMAGE_SUFFIXES,
    SourceBuilder,
    files_below,
    has_match,
)
from cxr_compare.data_prep.formats.voc import parse_xml

PATIENTS = "patients.csv"
_MOST_BYTES = 1 << 26
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_ANGLES = np.deg2rad(np.arange(360))
_ELLIPSE = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_MOST_DEGREES = 360
_NAMED = 5
_UNKNOWN = "unknown"  # as a label: what the image shows beside its other labels is not known
_Row = dict[str, str]


@dataclass
class _Seen:
    """What the user must know of files of a tool."""

    counts: Counter[str] = field(default_factory=Counter)  # of each sentence, how often it holds
    unread: list[str] = field(default_factory=list)  # images with marks that say nothing to us

    def notes(self) -> list[str]:
        """A sentence for each."""
        notes = [counted_phrase(n, text) for text, n in self.counts.items() if n]
        images = list(dict.fromkeys(self.unread))
        if images:
            named = ", ".join(images[:_NAMED]) + (", ..." if len(images) > _NAMED else "")
            notes.append(
                f"WARNING: {counted(len(images), 'image', 'have')} marks that say nothing here, "
                f"such as a box without a class or a text: findings that no other mark names are "
                f"unknown there, not absent ({named}); give the marks a class, or remove them"
            )
        return notes


_Read = Callable[[Path, _Seen], Iterator[_Row]]


def _box(
    shape: Mapping[str, Any],
    size: Any,
    seen: _Seen,
    scale: Any = 1,
    *,
    turns: str = "middle",
) -> _Row:
    """Cells of a box, or of the box around a shape, whose numbers have the names of CVAT."""

    def numbers(*names: str) -> Any:
        return np.array(to_edges(map(shape.get, names))) * scale

    turn = np.deg2rad(_degrees(shape.get("rotation", 0)))
    low = numbers("xtl", "ytl")
    high = numbers("xbr", "ybr")
    if "left" in shape:
        low = numbers("left", "top")
        high = low + numbers("width", "height")
    edges = np.concatenate([low, high])
    points = low + (high - low) * _CORNERS
    pivot = low if turns == "corner" else (low + high) / 2
    if "rx" in shape:
        pivot = numbers("cx", "cy")
        points = pivot + numbers("rx", "ry") * _ELLIPSE
    elif "points" in shape:
        given = to_edges(shape["points"])
        whole = given if len(given) % 2 == 0 < len(given) else [np.nan, np.nan]
        points = np.reshape(whole, (-1, 2)) * scale
    if turn:
        # clockwise, as y runs down
        cos = np.cos(turn)
        sin = np.sin(turn)
        points = (points - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot
    if turn or shape.keys() & {"rx", "points", "rle"}:
        around = np.concatenate([points.min(axis=0), points.max(axis=0)])
        edges = np.clip(around, 0, [*size, *size])
        seen.counts["shapes have no upright box: the box around each is taken"] += 1
    edges = np.where(np.isnan(edges), np.inf, edges)  # which rules out the image
    return dict(zip(_SIDES, edges.round(4).astype(str), strict=True))


def _degrees(value: Any) -> float:
    """A rotation; NaN where it is none."""
    (degrees,) = to_edges([value])
    return degrees if abs(degrees) <= _MOST_DEGREES else np.nan


def _cvat_rows(path: Path, seen: _Seen) -> Iterator[_Row]:
    root = parse_xml(path, "annotations", _MOST_BYTES)
    if root.find("meta/predictions") is not None:
        raise InputError(f"{path}: predictions, as cxr export wrote them; give CVAT's own export")
    for image in root.findall("image"):
        name, width, height = (image.get(key, "") for key in ("name", "width", "height"))
        facts = {"file": name, "split": image.get("subset", "")}
        facts |= {"image_width": width, "image_height": height}
        yield from () if len(image) else (facts,)
        for shape in image:
            by_model = shape.get("source") == "auto"
            seen.counts["shapes were drawn by a model: read like others"] += by_model
            said = {str(a.get("name")): a.text or "" for a in shape.findall("attribute")}
            given: dict[str, Any] = dict(shape.attrib)
            if "points" in given:
                given["points"] = re.split("[,;]", given["points"])
            elif shape.tag not in ("box", "ellipse", "mask", "tag"):
                raise InputError(f"{path}: image {name!r}: a <{shape.tag[:40]}> has no box")
            box = {} if shape.tag == "tag" else _box(given, to_edges([width, height]), seen)
            yield {**said, **facts, "label": shape.get("label", ""), **box}


def _label_studio_rows(path: Path, seen: _Seen) -> Iterator[_Row]:
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
                rows.append({"label": _UNKNOWN})
            yield from ({**facts, **own, **row} for row in rows or [{}])
        yield from () if readers else ({**facts, "label": _UNKNOWN},)


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
    results: list[dict[str, Any]], where: str, seen: _Seen
) -> tuple[list[_Row], bool]:
    """Rows of what an annotator marked on an image, and whether all that he marked is in them.

    A mark that is not understood (a box without a class, a key point) may be any finding. What
    belongs to a region that is understood says more of that alone, as a text does beside marks.
    """
    rows = list[_Row]()
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


def _result_rows(result: dict[str, Any], where: str, seen: _Seen) -> Iterator[_Row]:
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
    box = _box(shape, size, seen, size / 100, turns="corner")
    box |= {"image_width": str(size[0]), "image_height": str(size[1])}
    yield from ({**box, "label": name} for name in names)


def _flat_points(points: Any) -> list[Any]:
    """Numbers of a list of pairs; something that is no number where it is no such list."""
    pairs: list[Any] = points if isinstance(points, list) else [None]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return [None]
    return [number for pair in pairs for number in pair]


def _tables(builder: SourceBuilder, suffix: str, read: _Read) -> dict[Path, pd.DataFrame]:
    """The label tables of a tool's files: those that the user gave, else all in the folder."""
    root = builder.root
    seen = _Seen()
    tables = dict[Path, pd.DataFrame]()
    given = [path for path in builder.options.labels if path.suffix == suffix]
    for path in given or [root / name for name in files_below(root, suffix)]:
        frame = pd.DataFrame(list(read(path, seen)))
        if frame.empty:
            raise InputError(f"{path}: says nothing of an image")
        columns = list(dict.fromkeys([*frame.columns, "label", *_SIDES]))
        table = frame.reindex(columns=columns, fill_value="").fillna("").astype(TEXT)
        tables[path] = table.replace({"reader": {"": REFERENCE_READER}})
    if not tables:
        builder.require_format()
    builder.notes += seen.notes()
    named = Counter(name for t in tables.values() if "file" in t for name in t["file"].unique())
    if named and named.most_common(1)[0][1] > 1 and not builder.options.columns:
        raise InputError(
            f"{path}: another file marks the same images, such as {named.most_common(1)[0][0]!r}; "
            "is each a reader's? Say --columns reader=TABLE"
        )
    for path in {folder / PATIENTS: 0 for folder in [root, *(p.parent for p in tables)]}:
        tables |= {path: read_text_table(path, ())} if path.is_file() else {}
    return tables


CVAT = replace(
    TABLE,
    name="cvat",
    title="CVAT",
    detect=has_match("annotations.xml", "*/annotations.xml"),
    folder='`annotations.xml` ("CVAT for images 1.1"), images in any folders',
    own_tables=partial(_tables, suffix=".xml", read=_cvat_rows),
)
LABEL_STUDIO = replace(
    TABLE,
    name="label-studio",
    title="Label Studio",
    detect=has_match("tasks.json", "project-*-at-*.json"),
    folder="tasks exported as JSON, images in any folders",
    own_tables=partial(_tables, suffix=".json", read=_label_studio_rows),
)
