"""Format `via`: projects and annotations of the VGG Image Annotator 2, as JSON or CSV.

An attribute of regions names the finding of each region. An attribute of files may label whole
images, or state facts such as the patient.

Source:
    https://gitlab.com/vgg/via/-/blob/master/via-2.x.y/CodeDoc.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.column_names import column_names, find_column
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import read_header, read_text_table
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.sources.annotations import ImageLabels, Mark
from cxr_compare.data_prep.sources.image_files import contains, has_file
from cxr_compare.data_prep.sources.outlines import box_around, ellipse_points, pairs_of
from cxr_compare.data_prep.sources.own_table import TABLE
from cxr_compare.data_prep.sources.source_tables import Format
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.tool_files import (
    facts_of,
    read_tool_files,
)

_MARKS = (rb'"filename"\s*:', rb'"regions"\s*:', rb'"file_attributes"\s*:')
_SUFFIXES = (".json", ".csv")
_VIA_COLUMNS = {"filename", "region_shape_attributes", "region_attributes"}
_NO_SIZE = (None, None)  # the files state no size of their images
_NOTHING = ("", "undefined")  # what the tool writes for an attribute without a value


@dataclass
class _Image:
    """Attributes of one image in a file of the tool, with its regions (shape and attributes)."""

    name: str
    attributes: Mapping[str, Any]
    regions: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)


def _read_file(source: Source, path: Path) -> Iterator[ImageLabels]:
    read = _images_of_json if path.suffix.lower() == ".json" else _images_of_table
    entries = list(read(path))
    finding = _finding_attribute(path, entries)
    of_file = find_column(_names(entry.attributes for entry in entries), column_names("label"))
    for entry in entries:
        image = source.find_image(entry.name, path.name, ("", "images"))
        if image is None:
            continue
        labels = ImageLabels(image, path.name, absent=None, facts=facts_of(entry.attributes))
        named = _values(entry.attributes.get(of_file)) if of_file else []
        labels.marks = [Mark(label) for label in named]
        if of_file and not named and not entry.regions:
            labels.readers = ()  # where files have labels, a file without one was not labelled
        for number, (shape, attributes) in enumerate(entry.regions, start=1):
            names = _values(attributes.get(finding)) if finding else []
            with source.reading_mark(image, f"{path.name}: {entry.name}: region {number}"):
                if not names:
                    raise InputError("names no finding")
                box = _box_of_shape(shape)
                is_around = shape.get("name") != "rect"
                labels.marks += [Mark(name, box, is_around=is_around) for name in names]
        yield labels


def _finding_attribute(path: Path, entries: list[_Image]) -> str | None:
    """Return the attribute of regions that names their finding; None if no region has any."""
    names = _names(attributes for entry in entries for _, attributes in entry.regions)
    if len(names) <= 1:
        return next(iter(names), None)
    finding = find_column(names, column_names("label"))
    if finding is None:
        raise InputError(
            f"{path}: which attribute of regions names the finding: {', '.join(names)}? Call it "
            "'label' in the tool"
        )
    return finding


def _names(attributes: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in attributes for name in mapping))


def _values(value: Any) -> list[str]:
    """Return the names that an attribute has: one, those that are ticked, or none."""
    if isinstance(value, dict):
        return [str(name) for name, is_set in value.items() if is_set is True or is_set == "true"]
    return [] if value is None or str(value).strip() in _NOTHING else [str(value).strip()]


def _box_of_shape(shape: Mapping[str, Any]) -> list[float]:
    """Return the box around a shape."""

    def numbers(*names: str) -> np.ndarray:
        return np.array(finite_or_nan(map(shape.get, names)))

    kind = shape.get("name")
    if kind == "rect":
        low = numbers("x", "y")
        return [*low.tolist(), *(low + numbers("width", "height")).tolist()]
    if kind in ("circle", "ellipse"):
        centre = numbers("cx", "cy")
        radii = numbers("r", "r") if kind == "circle" else numbers("rx", "ry")
        degrees = np.rad2deg(numbers("theta")[0]) if shape.get("theta") else 0.0
        return box_around(ellipse_points(centre, radii), _NO_SIZE, degrees, centre)
    if kind == "polygon":
        xs = shape.get("all_points_x")
        ys = shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            return [np.nan] * 4
        return box_around(pairs_of([[x, y] for x, y in zip(xs, ys, strict=True)]), _NO_SIZE)
    raise InputError(f"a {str(kind)[:40]} has no extent; draw a rectangle, or remove it")


def _images_of_json(path: Path) -> Iterator[_Image]:
    content = read_json_file(path)
    if isinstance(content, dict):
        content = content.get("_via_img_metadata", content)
    for key, entry in _object(content, f"{path}").items():
        where = f"{path}: {str(key)[:80]}"
        regions = _object(entry, where).get("regions", [])
        if isinstance(regions, dict):  # of the tool's first version
            regions = list(regions.values())
        if not isinstance(regions, list) or not isinstance(entry.get("filename"), str):
            raise InputError(f"{where}: has no filename, or no list of regions")
        image = _Image(entry["filename"], _object(entry.get("file_attributes") or {}, where))
        for region in regions:
            parts = [_object(region, where).get(f"{part}_attributes") for part in _PARTS]
            shape, attributes = (_object(part or {}, where) for part in parts)
            image.regions.append((shape, attributes))
        yield image


_PARTS = ("shape", "region")
_COLUMNS = ("file_attributes", "region_shape_attributes", "region_attributes")


def _images_of_table(path: Path) -> Iterator[_Image]:
    table = read_text_table(path, _COLUMNS, ("region_count",))
    table = table.rename(columns={"#filename": "filename"})  # as version 1 writes it
    images: dict[str, _Image] = {}
    for line, row in zip(table.index + 2, table.to_dict("records"), strict=True):
        where = f"{path}: line {line}"
        if not row.get("filename"):
            raise InputError(f"{where}: no image is named; fill it in")
        of_file, shape, attributes = (_cell_object(row[name], where) for name in _COLUMNS)
        image = images.setdefault(row["filename"], _Image(row["filename"], of_file))
        if shape or attributes or row["region_count"] not in ("", "0"):
            image.regions.append((shape, attributes))
    yield from images.values()


def _cell_object(cell: str, where: str) -> dict[str, Any]:
    try:
        return _object(json.loads(cell or "{}"), where)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: {cell[:40]!r} is no JSON") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: is no object; save the annotations again")
    return value


def _is_via(path: Path) -> bool:
    """Return True if a file is a project or an export of the VGG Image Annotator."""
    if path.suffix.lower() == ".csv":
        return {name.lstrip("#") for name in read_header(path)} >= _VIA_COLUMNS
    return path.suffix.lower() == ".json" and contains(path, _MARKS)


VIA = Format(
    name="via",
    title="VGG Image Annotator (VIA 2)",
    detect=has_file(("*.json", "*/*.json", "*.csv"), _is_via),
    folder="a project (`.json`) or annotations (`.json`, `.csv`), images in any folders",
    read=partial(read_tool_files, "via", _SUFFIXES, _read_file, _is_via),
    options=TABLE.options,
    labels_alone=True,
)
