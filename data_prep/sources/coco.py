"""Format `coco`: COCO JSON (instances), as CVAT, Label Studio, Roboflow and `cxr export` write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.base.box_check import BoxReading, finite_or_nan, four_numbers, values_of
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.user_tables import read_json_file
from cxr_compare.data_prep.sources.annotations import ImageLabels, Mark, read_annotations
from cxr_compare.data_prep.sources.image_files import (
    contains,
    files_below,
    has_file,
    role_from_path,
)
from cxr_compare.data_prep.sources.shapes import (
    box_of_rectangle,
    edges_around,
    mask_edges,
    polygon_points,
    require_same_place,
    sides_of,
)
from cxr_compare.data_prep.sources.source import Format
from cxr_compare.data_prep.sources.statements import Source, user_reading
from cxr_compare.data_prep.sources.words import class_finding, normal_classes

_MARKS = (rb'"images"\s*:\s*\[', rb'"(?:annotations|categories)"\s*:\s*\[')
_SAME_AREA = 0.01  # share by which an area may differ from that of its box
Items = list[dict[str, Any]]


def _read(source: Source) -> Iterator[ImageLabels]:
    """Yield the labels of the COCO files of a folder, or of one file."""
    root = source.root
    files: dict[str, dict[str, Any]] = {}
    others = []
    for path in [""] if root.is_file() else files_below(root, ".json"):
        content = read_json_file(root / path)
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            files[path or root.name] = content
        else:
            others.append(path)
    if not files:
        if others:
            raise InputError(f"{root / others[0]}: not COCO: it has no list of images")
        raise InputError(f"{root}: holds no JSON file")
    source.counts["files are JSON but not COCO: these are ignored"] += len(others)
    for path, content in files.items():
        content.setdefault("annotations", [])
        for key in ("images", "annotations", "categories"):
            _require_objects(content.setdefault(key, []), key, root / path)
    annotations = [item for content in files.values() for item in content["annotations"]]
    reading = replace(source.statements.reading, stated=_have_areas(annotations))
    source.statements.reading = user_reading(source.options, reading)
    names = {path: _category_names(content, root / path) for path, content in files.items()}
    used = {
        names[path].get(str(_id(item.get("category_id"))))
        for path, content in files.items()
        for item in content["annotations"]
    }
    for path, content in files.items():
        yield from _labels(source, path, content, names[path], used)


def _require_objects(items: Any, key: str, path: Path) -> None:
    if not isinstance(items, list):
        raise InputError(f"{path}: {key}: is no list; is this a COCO instances file?")
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise InputError(f"{path}: {key}[{number}]: is no object")


def _id(value: Any) -> str | None:
    """Return an id as text, or None if the value is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and value != "" else None


def _category_names(content: dict[str, Any], path: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for number, item in enumerate(content["categories"]):
        key, name = _id(item.get("id")), item.get("name")
        if key is None or not isinstance(name, str | int) or names.get(key, name) != name:
            raise InputError(f"{path}: categories[{number}]: must have an id of its own and a name")
        names[key] = str(name)
    return names


def _have_areas(annotations: Items) -> bool:
    """Return True if the areas of annotations are those of boxes of x, y, width and height."""
    fits = []
    for item in annotations:
        (area,) = finite_or_nan([item.get("area")])
        numbers = four_numbers(item.get("bbox"))
        if numbers is not None and area > 0 and not item.get("segmentation"):
            fits.append(abs(numbers[2] * numbers[3] - area) <= _SAME_AREA * area)
    return bool(fits) and float(np.mean(fits)) >= 0.9


def _annotations_by_image(
    annotations: Items, path: Path
) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Return the annotations of each image with their numbers; refuse what is no label."""
    by_image: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, item in enumerate(annotations):
        key = _id(item.get("image_id"))
        where = f"{path}: annotations[{number}]"
        if key is None or _id(item.get("category_id")) is None:
            raise InputError(f"{where}: must have image_id and category_id")
        if item.get("score") is not None:
            raise InputError(
                f"{where}: has a score, as a model's output has; give the labels, or remove the "
                "scores if people drew these boxes"
            )
        if "reader" in item:
            raise InputError(f"{where}: has a reader; give a file of each reader's annotations")
        by_image.setdefault(key, []).append((number, item))
    return by_image


def _labels(
    source: Source, path: str, content: dict[str, Any], names: dict[str, str], used: set[str | None]
) -> Iterator[ImageLabels]:
    """Yield the labels of each image of a file; `used` are the categories that any file uses."""
    full_path = source.root / path if source.root.is_dir() else source.root
    groups = {str(item.get("supercategory")) for item in content["categories"]}
    classes = {key: name for key, name in names.items() if name in used or name not in groups}
    by_image = _annotations_by_image(content["annotations"], full_path)
    role = role_from_path(path)
    folder = path.rpartition("/")[0]
    seen: dict[str, tuple[str | None, dict[str, Any]]] = {}
    source.add_names(str(image.get("file_name")) for image in content["images"])
    for number, image in enumerate(content["images"]):
        key, name = _id(image.get("id")), image.get("file_name")
        if key is None or not isinstance(name, str) or not name:
            raise InputError(f"{full_path}: images[{number}]: must have an id and a file_name")
        if "neg_category_ids" in image:  # of LVIS, where most categories are unknown
            raise InputError(
                f"{full_path}: images[{number}]: lists neg_category_ids, which are not read; "
                "remove them if every finding without an annotation is absent"
            )
        file = source.find_image(name, path, (folder, f"{folder}/images", "", "images"), role)
        earlier, entry = seen.setdefault(key, (file, image))
        if file is None:
            continue
        if entry is not image:
            if (earlier, entry) != (file, image):
                source.exclude([file, earlier], f"image id {key} appears more than once")
            continue
        labels = ImageLabels(
            file, path, absent=list(classes.values()), roles=[role] if role else []
        )
        if not content["annotations"]:
            labels.readers = ()
        if isinstance(image.get("patient_id"), str | int | float):
            labels.facts["patient_id"] = str(image["patient_id"]).strip() or None
        with source.reading_mark(file, f"{path}: image {key}"):
            labels.facts |= sides_of(image.get("width"), image.get("height"))
        for position, item in by_image.get(key, []):
            with source.reading_mark(file, f"{path}: annotations[{position}]"):
                labels.marks.append(_mark(source, item, image, classes))
        yield labels
    for key in by_image.keys() - seen:
        source.exclude([f"{path}: image {key}"], "annotated, but not among the images")


def _mark(
    source: Source, item: dict[str, Any], image: dict[str, Any], classes: dict[str, str]
) -> Mark:
    """Return the mark of an annotation."""
    category = str(_id(item.get("category_id")))
    if category not in classes:
        raise InputError(f"category_id {category} is not among the categories")
    mark = Mark(classes[category])
    if item.get("iscrowd") not in (None, 0, "0", ""):
        text = "annotations are crowds: findings of these are boxed in part"
        source.counts[text] += 1
        return replace(mark, shares_box=True)
    reading = source.statements.reading
    numbers = four_numbers(item.get("bbox"))
    outline = polygon_points(item.get("segmentation"))
    around = edges_around(outline) or mask_edges(item.get("segmentation"), image)
    if numbers is None and around is None:
        if class_finding(mark.label, "categories") in normal_classes():
            return mark
        raise InputError(_without_box(item))
    if numbers is None:
        return mark.with_box(values_of(np.array([around]), reading.form)[0].tolist())
    sides = finite_or_nan(image.get(side) for side in ("width", "height"))
    if degrees := coco_rotation(item):
        return mark.with_box(_turned(numbers, degrees, outline, sides))
    if around is not None and reading.unit == "px":
        require_same_place(numbers, around, max(sides), reading)
    return mark.with_box(numbers, is_around=False)


def coco_rotation(item: Mapping[str, Any]) -> float:
    """Return the clockwise rotation of an annotation in degrees, as CVAT writes it; 0 without."""
    attributes = item.get("attributes")
    value = attributes.get("rotation") if isinstance(attributes, dict) else None
    (number,) = finite_or_nan([None if isinstance(value, str) else value])
    return 0.0 if np.isnan(number) else number % 360


def _turned(
    numbers: Sequence[float], degrees: float, outline: np.ndarray | None, sides: Sequence[float]
) -> Sequence[float]:
    """Return the box around a box that CVAT turned, in the form of the file."""
    low = np.array(numbers[:2])
    high = low + numbers[2:]
    limits = np.nan_to_num(sides, nan=np.inf).tolist()
    around: Sequence[float] | None = box_of_rectangle(low, high, limits, degrees)[0]
    if outline is not None:
        is_upright = np.isin(outline[:, 0], (low[0], high[0])).all()
        is_upright &= np.isin(outline[:, 1], (low[1], high[1])).all()
        around = around if is_upright else edges_around(outline)
    box: list[float] = values_of(np.array([around]), "xywh")[0].tolist()
    return box


def _without_box(item: dict[str, Any]) -> str:
    """Return why an annotation has no box."""
    text = "missing" if "bbox" not in item else json.dumps(item["bbox"])[:60]
    also = ""
    if item.get("segmentation"):
        also = ", and its segmentation is neither a polygon nor a mask (RLE) of the image"
    return f"bbox is {text}, not [x, y, width, height] in px{also}"


def _is_coco(path: Path) -> bool:
    return path.suffix.lower() == ".json" and contains(path, _MARKS)


COCO = Format(
    name="coco",
    title="COCO",
    folder="`.json` files that list `images`, and the images",
    detect=has_file(("annotations/*.json", "*.json", "*/_annotations.coco.json"), _is_coco),
    read=partial(read_annotations, "coco", _read, reading=BoxReading(form="xywh")),
    options=("labels", "sheet", "reference", "columns", "raw_boxes", "patient_pattern"),
    found_in_folder=True,
)
