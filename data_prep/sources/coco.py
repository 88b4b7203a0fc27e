"""Format `coco`: COCO JSON (instances), as CVAT, Label Studio, Roboflow and `cxr export` write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, model_validator

from cxr_compare.data_prep.base.box_check import (
    BoxForm,
    BoxReading,
    corners_of,
    finite_or_nan,
    four_numbers,
    numbers_in_form,
)
from cxr_compare.data_prep.base.boxes import NUMBERS
from cxr_compare.data_prep.base.errors import InputError, Remedy
from cxr_compare.data_prep.base.user_tables import PREDICTIONS, is_table_file, read_json_file
from cxr_compare.data_prep.sources.annotations import (
    OF_MODEL,
    ImageLabels,
    Mark,
    is_of_model,
    parsed,
    read_annotations,
    without_empty,
)
from cxr_compare.data_prep.sources.image_files import (
    contains,
    files_below,
    has_file,
    role_from_path,
)
from cxr_compare.data_prep.sources.shapes import (
    corners_around,
    outline_points,
    refuse_turned,
    sides_of,
)
from cxr_compare.data_prep.sources.source import TABLE_OPTIONS, Format, SourceTables
from cxr_compare.data_prep.sources.statements import Source, take_user_reading
from cxr_compare.data_prep.sources.words import class_finding, normal_classes

_MARKS = (rb'"images"\s*:\s*\[', rb'"(?:annotations|categories)"\s*:\s*\[')
_AGREE_PX = 2.0  # px, or share of the image's longer side, within which an outline and a bbox agree
_AGREE_SHARE = 0.01
_REFUSED = {
    "score": OF_MODEL,
    "reader": "has a reader; give a file of each reader's annotations",
    "neg_category_ids": (
        "lists neg_category_ids, which are not read; remove them if every finding without an "
        "annotation is absent"
    ),
}


def _as_text(value: Any) -> Any:
    """Return a number as text; 1.0 is 1."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) else value


Id = Annotated[str, BeforeValidator(_as_text)]


class _Entry(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, content: Any) -> Any:
        for key, reason in _REFUSED.items():
            value = content.get(key) if isinstance(content, dict) else None
            if is_of_model(value) if key == "score" else value is not None:
                raise ValueError(reason)
        return content


class _Category(_Entry):
    id: Id
    name: Id
    supercategory: Any = None


class _Image(_Entry):
    id: Id
    file_name: str
    width: Any = None
    height: Any = None
    patient_id: Any = None


class _Mark(BaseModel):
    """A mark on an image: an annotation of people, or a result of a system."""

    image_id: Annotated[Id, Field(min_length=1)]
    bbox: Any = None
    segmentation: Any = None
    iscrowd: Annotated[bool, BeforeValidator(lambda flag: flag or False)] = False
    attributes: Any = None


class _Annotation(_Mark, _Entry):
    category_id: Id


class _Result(_Mark):
    score: FiniteFloat | None = None
    category_id: Id | None = None
    category_name: Id | None = None
    file_name: Id | None = None


class _File(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation] = []
    categories: list[_Category] = []


def _read_files(source: Source) -> SourceTables:
    """Read the COCO files that the user names, or those of the folder, and tables beside them."""
    files = source.options.labels
    tables = tuple(path for path in files if is_table_file(path))
    coco_files = [path for path in files if path not in tables]
    source.options = replace(source.options, labels=tables)
    return read_annotations(partial(_read, coco_files=coco_files), source, BoxReading(form="xywh"))


def _read(source: Source, coco_files: Sequence[Path]) -> Iterator[ImageLabels]:
    """Yield the labels of COCO files."""
    contents: dict[str, _File] = {}
    others: list[Path] = []
    folder = source.root if source.root.is_dir() else source.root.parent
    listed = files_below(folder, ".json") if folder == source.root else [source.root.name]
    paths = {f"{path.parent.name}/{path.name}": path for path in coco_files}
    for file, path in (paths or {file: folder / file for file in listed}).items():
        content = read_json_file(path)
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            contents[file] = parsed(_File, content, str(path))
        else:
            others.append(path)
    if not contents:
        first = others[0] if others else source.root
        raise InputError(f"{first}: not COCO: no list of images")
    source.label_files = list(contents)
    source.counts["files are JSON but not COCO: these are ignored"] += len(others)
    names = {file: _category_names(content, folder / file) for file, content in contents.items()}
    for numbered in names.values():
        source.categories |= {key: class_finding(n, "categories") for key, n in numbered.items()}
    annotations = [(file, item) for file in contents for item in contents[file].annotations]
    used = {names[file].get(item.category_id) for file, item in annotations}
    take_user_reading(source)
    for file, content in contents.items():
        # Roboflow's first category only groups the others.
        groups = {str(category.supercategory) for category in content.categories}
        classes = {key: n for key, n in names[file].items() if n in used or n not in groups}
        yield from _labels(source, file, content, classes)


def _category_names(file: _File, path: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for number, category in enumerate(file.categories):
        if names.setdefault(category.id, category.name) != category.name:
            raise InputError(f"{path}: categories[{number}]: another has the id {category.id}")
    return names


def _labels(
    source: Source, file: str, content: _File, classes: dict[str, str]
) -> Iterator[ImageLabels]:
    """Yield the labels of each image of a file."""
    by_image: dict[str, list[tuple[int, _Annotation]]] = {}
    for number, item in enumerate(content.annotations):
        by_image.setdefault(item.image_id, []).append((number, item))
    role = role_from_path(file)
    folder = file.rpartition("/")[0]
    folders = (folder, f"{folder}/images", "", "images")
    path_of = source.find_images((image.file_name for image in content.images), file, folders, role)
    first_of: dict[str, _Image] = {}
    repeated = {i.id for i in content.images if first_of.setdefault(i.id, i) != i}
    for image in content.images:
        path = path_of.get(image.file_name)
        if path is None:
            continue
        if image.id in repeated:
            source.exclude([path], f"image id {image.id} appears more than once")
        labels = ImageLabels(path, file, absent=list(classes.values()), role=role)
        if source.labels_alone:  # results of cxr compare name images by these
            labels.facts["coco_id"] = image.id
        if not content.annotations:
            labels.is_read = False
        patient = "" if image.patient_id is None else str(image.patient_id).strip()
        labels.facts["patient_id"] = patient or None
        with source.reading_mark(path, f"{file}: image {image.id}"):
            labels.facts |= sides_of(image.width, image.height)
        for number, item in by_image.get(image.id, []):
            with source.reading_mark(path, f"{file}: annotations[{number}]"):
                labels.marks.append(_mark(source, item, image, classes))
        yield labels
    for key in by_image.keys() - first_of.keys():
        source.exclude([f"{file}: image {key}"], "annotated, but not among the images")


def _mark(source: Source, item: _Annotation, image: _Image, classes: dict[str, str]) -> Mark:
    """Return the mark of an annotation."""
    if item.category_id not in classes:
        raise InputError(f"category_id {item.category_id} is not among the categories")
    text = classes[item.category_id]
    if item.iscrowd:
        source.counts["annotations are crowds: findings of these are boxed in part"] += 1
        return Mark(text, is_crowd=True)
    reading = source.reading
    box = _box(item, reading.form)
    if box is None and class_finding(text, "categories") in normal_classes():
        return Mark(text)
    if box is None:
        raise InputError(_no_box(item))
    numbers, is_around = box
    if isinstance(item.segmentation, dict):
        source.counts["annotations have a mask (RLE): of these the bbox alone is read"] += 1
    if not is_around and reading.unit == "px":
        _refuse_other_outline(item, image, numbers, reading)
    return Mark(text, numbers, is_around)


def _box(item: _Mark, form: BoxForm) -> tuple[Sequence[float], bool] | None:
    """Return the box of a mark in a form, True if it is around its polygons; None without one."""
    numbers = four_numbers(item.bbox)
    if numbers is not None:
        refuse_turned(_rotation(item.attributes))
        return numbers, False
    outline = outline_points(item.segmentation)
    return None if outline is None else (_as_written(corners_around(outline), form), True)


def _no_box(item: _Mark) -> str:
    """Return what a mark has in place of a box."""
    return (
        f"bbox is {json.dumps(item.bbox, default=str)[:60]}, not [x, y, width, height] in px, and "
        "its segmentation is no polygon; write the bbox, of a mask (RLE) by "
        "pycocotools.mask.toBbox"
    )


def _refuse_other_outline(
    item: _Mark, image: _Image, numbers: Sequence[float], reading: BoxReading
) -> None:
    """Refuse a bbox in px that is not around the outline of the same annotation."""
    outline = outline_points(item.segmentation)
    if outline is None:
        return
    sides = np.array([finite_or_nan([image.width, image.height])])
    corners = corners_of(np.array([numbers]), reading.form, "px", sides)[0]
    around = corners_around(outline)
    slack = np.fmax(_AGREE_PX, _AGREE_SHARE * sides.max())
    if np.abs(corners - around).max() > slack:
        is_corners = np.abs(np.subtract(numbers, around)).max() <= slack
        outside = f"its bbox {list(numbers)} is not around its segmentation"
        right = Remedy(words="correct that which is wrong")
        raise InputError(
            f"{outside} ({_as_written(around, reading.form)})",
            [reading.way("xyxy", "px") if is_corners else right],
        )


def coco_results(entries: Any, where: str, form: BoxForm = "xywh") -> pd.DataFrame:
    """Return COCO results, a dictionary for each box, as rows of ``image_id, position`` and a box.

    The rows have ``score``, ``category``, ``category_name``, ``file_name`` and ``crowd`` if the
    results have them; ``finding`` is the name of the category, or else its number.
    """
    if isinstance(entries, Mapping) and "annotations" in entries:
        entries = _with_names(entries)
    are_listed = isinstance(entries, list | tuple)
    first = next(iter(entries if are_listed else [entries]), {"image_id": ""})
    if not (are_listed and isinstance(first, Mapping) and "image_id" in first):
        holds = f" of {', '.join(map(str, first))}"[:200] if isinstance(first, Mapping) else ""
        kind = f"{type(first).__name__}{holds}"
        kind = f"a list that begins with a {kind}" if are_listed else f"a {kind}"
        raise InputError(f"{where}: holds {kind}; {PREDICTIONS}")
    items = [parsed(_Result, item, f"{where}: entry {n}") for n, item in enumerate(entries)]
    for n, item in enumerate(items):
        refuse_turned(_rotation(item.attributes), f"{where}: entry {n}: ")
    boxes = [_box(item, form) for item in items]
    numbers = np.reshape([box[0] if box else [np.nan] * 4 for box in boxes], (-1, 4))
    is_missing = np.isnan(numbers).any(axis=1)
    if is_missing.any():
        number = int(is_missing.argmax())
        raise InputError(f"{where}: entry {number}: {_no_box(items[number])}")
    names = ["image_id", "score", "category_id"]
    for name in ("category_name", "file_name"):  # names of some results only are not used
        names += [name] if all(getattr(item, name) for item in items) else []
    if any("iscrowd" in item.model_fields_set for item in items):
        names.append("iscrowd")
    table = pd.DataFrame([vars(item) for item in items], columns=names)
    table[NUMBERS] = numbers
    table["position"] = [f"entry {number}" for number in table.index]
    table = without_empty(table, ("score", "category_id"), where)
    table = table.rename(columns={"category_id": "category", "iscrowd": "crowd"})
    class_columns = [name for name in ("category_name", "category") if name in table]
    return table.assign(finding=table[class_columns[0]]) if class_columns else table


def _with_names(file: Mapping[str, Any]) -> list[Any]:
    """Return the annotations of a COCO file with the names of its images and categories."""
    files = {image.get("id"): image.get("file_name") for image in file.get("images", ())}
    classes = {category.get("id"): category.get("name") for category in file.get("categories", ())}
    annotations = []
    for item in file["annotations"]:
        if isinstance(item, Mapping):
            names = {
                "file_name": files.get(item.get("image_id")),
                "category_name": classes.get(item.get("category_id")),
            }
            item = {**{key: name for key, name in names.items() if name}, **item}
        annotations.append(item)
    return annotations


def is_result(entry: Any) -> bool:
    """Return True for a dictionary that is one of COCO's results or annotations."""
    return isinstance(entry, Mapping) and not entry.keys().isdisjoint(("bbox", "segmentation"))


def _as_written(corners: Sequence[float], form: BoxForm) -> list[float]:
    """Return corners in the form of the file."""
    numbers: list[float] = numbers_in_form(np.array([corners]), form)[0].tolist()
    return numbers


def _rotation(attributes: Any) -> float:
    """Return the clockwise rotation of an annotation in degrees, as CVAT writes it; 0 without."""
    value = attributes.get("rotation") if isinstance(attributes, dict) else None
    (number,) = finite_or_nan([None if isinstance(value, str) else value])
    return 0.0 if np.isnan(number) else number


def _is_coco(path: Path) -> bool:
    return path.suffix.lower() == ".json" and contains(path, _MARKS)


COCO = Format(
    name="coco",
    title="COCO",
    folder="`.json` files that list `images`, and the images",
    detect=has_file(".json", _is_coco),
    reader=_read_files,
    options=TABLE_OPTIONS,
    shows_nothing="list each in images, without annotations",
)
