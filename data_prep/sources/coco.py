"""Format `coco`: COCO JSON (instances), as CVAT, Label Studio, Roboflow and `cxr export` write it.

docs/formats.md explains how images are found and what a missing annotation means. In addition:

- The first category of Roboflow only groups the others, and is no class.
- A crowd (``iscrowd``) is no single lesion: its finding is present, but its box is left out. An
  annotation with neither ``bbox`` nor outline excludes its image.
- A ``bbox`` and an outline are two statements about one lesion: they must agree.
- A missing annotation of a reader means absence only on images that the reader has read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.box_numbers import coco_rotation, finite_or_nan, four_numbers
from cxr_compare.data_prep.contracts.box_readings import BoxReading, values_of
from cxr_compare.data_prep.contracts.boxes import turned_bounds
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.limits import require_few_names
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    LabelFiles,
    Mark,
    parse_side,
    read_annotations,
)
from cxr_compare.data_prep.sources.image_files import files_below, has_text, role_from_path
from cxr_compare.data_prep.sources.label_values import class_finding, normal_classes, plain_facts
from cxr_compare.data_prep.sources.outlines import (
    Outline,
    compare_outlines,
    mask_edges,
    points_of,
    polygon_edges,
)
from cxr_compare.data_prep.sources.source_tables import Format
from cxr_compare.data_prep.sources.statements import user_reading

COCO_MARKS = (rb'"images"\s*:\s*\[', rb'"(?:annotations|categories)"\s*:\s*\[')
"""Keys by which a COCO annotation file is recognised."""
_READING = BoxReading(form="xywh")
_CROWDS = (1, "1")
_CROWD_FLAGS = (None, 0, "0", "", *_CROWDS)
_SAME_AREA = 0.01  # share by which an area may differ from that of its box
_MOST = 0.9


def _read(files: LabelFiles) -> Iterator[ImageLabels]:
    """Yield the labels of the COCO files of a folder, or of one file."""
    root = files.source.root
    read = []
    others = []
    for path in [""] if root.is_file() else files_below(root, ".json"):
        content = read_json_file(root / path)
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            read.append(_CocoFile(files, path, content))
        else:
            others.append(path)
    if not read:
        reason = f"{others[0]}: not COCO: it has no list of images" if others else "no JSON file"
        raise InputError(f"{root / reason}" if others else f"{root}: holds {reason}")
    files.counts["files are JSON but not COCO: these are ignored"] += len(others)
    boxed = [pair for file in read for pair in file.boxes_with_area()]
    if boxed and _are_sizes(boxed):
        files.reading = replace(files.reading, stated=True)
    used = {category for file in read for category in file.used_categories()}
    for file in read:
        yield from file.labels(used)
    compare_outlines(files, [pair for file in read for pair in file.outlines])


def _id_text(value: Any) -> str | None:
    """Return an id as text, or None if the value is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and value != "" else None


def _are_sizes(pairs: list[tuple[tuple[float, ...], float]]) -> bool:
    """Return True if areas of annotations are those of boxes of x, y, width and height."""
    fits = [abs(box[2] * box[3] - area) <= _SAME_AREA * area for box, area in pairs]
    return float(np.mean(fits)) >= _MOST


@dataclass
class _CocoFile:
    """One COCO file."""

    files: LabelFiles
    path: str
    content: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)  # category id -> name
    groups: set[str] = field(default_factory=set)  # names of supercategories
    outlines: list[Outline] = field(default_factory=list)

    def __post_init__(self) -> None:
        if "annotations" not in self.content:
            self.content["annotations"] = []
        for number, item in enumerate(self._items("categories", required=False)):
            key = _id_text(item.get("id"))
            name = item.get("name")
            if key is None or not isinstance(name, str | int) or self.names.get(key, name) != name:
                raise self._fail(f"categories[{number}]", "must have an id of its own and a name")
            self.names[key] = str(name)
            self.groups.add(str(item.get("supercategory")))
        require_few_names(self.names, self.files.source.root / self.path)
        self._items("annotations")

    def used_categories(self) -> set[str]:
        """Return the names of the categories that annotations have."""
        ids = {_id_text(item.get("category_id")) for item in self.content["annotations"]}
        return {self.names[key] for key in ids if key in self.names}

    def boxes_with_area(self) -> Iterator[tuple[tuple[float, ...], float]]:
        """Yield the boxes of annotations that state an area and no outline."""
        for item in self.content["annotations"]:
            (area,) = finite_or_nan([item.get("area")])
            numbers = four_numbers(item.get("bbox"))
            if numbers is not None and area > 0 and not item.get("segmentation"):
                yield numbers, area

    def labels(self, used: set[str]) -> Iterator[ImageLabels]:
        """Yield the labels of each image; `used` are the categories that any file annotates."""
        named = {
            key: name for key, name in self.names.items() if name in used or name not in self.groups
        }
        for name in named.values():
            class_finding(name, str(self.files.source.root / self.path))
        complete = bool(self.content["annotations"])
        images = self._images()
        marks = self._marks(images, named)
        annotators: dict[str | None, set[str]] = {}
        for item in self.content["annotations"]:
            readers = annotators.setdefault(_id_text(item.get("image_id")), set())
            readers.add(_reader_of(item))
        everybody = set().union(*annotators.values()) or {REFERENCE_READER}
        for key, (file, image) in images.items():
            readers = self._readers(key, image, annotators.get(key, everybody), everybody)
            try:
                facts: dict[str, Any] = {s: parse_side(image.get(s)) for s in ("height", "width")}
            except InputError as error:
                self.files.source.exclude([file], str(error))
                facts = {}
            labels = ImageLabels(
                file,
                self.path,
                marks.get(key, []),
                absent=list(named.values()),
                readers=sorted(readers) if complete else (),
                facts=facts | plain_facts(image),
                role=role_from_path(self.path),
            )
            self._take_lvis(labels, image, named)
            yield labels

    def _take_lvis(self, labels: ImageLabels, image: dict[str, Any], named: dict[str, str]) -> None:
        """Take what LVIS lists as absent, and as annotated in part."""
        listed = image.get("neg_category_ids")
        if not isinstance(listed, list) or not labels.readers:
            return
        labels.absent = [named[key] for key in map(_id_text, listed) if key in named]
        partly = image.get("not_exhaustive_category_ids")
        names = {
            named.get(_id_text(item) or "") for item in (partly if isinstance(partly, list) else [])
        }
        labels.marks = [
            replace(mark, shares_box=True) if mark.label in names else mark for mark in labels.marks
        ]

    def _readers(
        self, key: str, image: dict[str, Any], annotators: set[str], everybody: set[str]
    ) -> set[str]:
        """Return the readers of an image: those that it lists, else all readers of the file.

        Raises:
            InputError: The image lists no readers and only some readers annotated it.
        """
        listed = image.get("readers")
        if isinstance(listed, list):
            return {str(reader) for reader in listed}
        if annotators != everybody:
            missing = min(everybody - annotators)
            raise self._fail(
                f"image {key}",
                f"has annotations of {min(annotators)}, none of {missing}: did {missing} read it? "
                'Give each image a list "readers"',
            )
        return everybody

    def _images(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return the path and entry of each image by its id; exclude those that are not found."""
        role = role_from_path(self.path)
        folder = self.path.rpartition("/")[0]
        folders = (folder, f"{folder}/images", "", "images")
        images: dict[str, tuple[str, dict[str, Any]]] = {}
        for number, image in enumerate(self._items("images")):
            key = _id_text(image.get("id"))
            name = image.get("file_name")
            if key is None or not isinstance(name, str) or not name:
                raise self._fail(f"images[{number}]", "must have an id and a file_name")
            # The images of a single file need not exist.
            index = self.files.index
            matches = [name] if index is None else index.by_name(name, folders, role)
            file = matches[0] if len(matches) == 1 else f"{self.path}: {name}"
            if len(matches) != 1:
                fits = f"file_name fits {counted(len(matches), 'image')}"
                self.files.source.exclude([file], fits if matches else "no such image")
                continue
            if key in images and images[key] != (file, image):
                twice = f"image id {key} appears more than once"
                self.files.source.exclude([file, images[key][0]], twice)
            images[key] = (file, image)
        return images

    def _marks(
        self, images: dict[str, tuple[str, dict[str, Any]]], named: dict[str, str]
    ) -> dict[str, list[Mark]]:
        """Return the marks of each image by its id; exclude images of unreadable annotations."""
        marks: dict[str, list[Mark]] = {}
        listed = {_id_text(image.get("id")) for image in self.content["images"]}
        exclude = self.files.source.exclude
        ids = set()
        for number, item in enumerate(self.content["annotations"]):
            key = _id_text(item.get("image_id"))
            category = _id_text(item.get("category_id"))
            if key is None or category is None:
                raise self._fail(f"annotations[{number}]", "must have image_id and category_id")
            ids.add((_reader_of(item), _id_text(item.get("id"))))
            if key not in images:
                if key not in listed:
                    where = f"{self.path}: image {key}"
                    exclude([where], "annotated, but not among the images")
                continue
            file, image = images[key]
            crowd = item.get("iscrowd")
            if category not in named:
                exclude([file], f"category_id {category} is not among the categories")
            elif crowd not in _CROWD_FLAGS:
                exclude([file], f"iscrowd is {str(crowd)[:40]!r}, neither 0 nor 1")
            else:
                mark = self._mark(item, number, file, image, named[category])
                if mark is not None:
                    marks.setdefault(key, []).append(mark)
        self.files.counts[
            "annotations have the id of another one: these are read as separate annotations"
        ] += len(self.content["annotations"]) - len(ids)
        return marks

    def _mark(
        self, item: dict[str, Any], number: int, file: str, image: dict[str, Any], label: str
    ) -> Mark | None:
        """Return the mark of an annotation; None if it has no box that is read."""
        counts = self.files.counts
        reader = _reader_of(item)
        if item.get("iscrowd") in _CROWDS:
            counts["annotations are crowds: findings of these are boxed in part"] += 1
            return Mark(label, reader=reader, shares_box=True)
        numbers = four_numbers(item.get("bbox"))
        segmentation = item.get("segmentation")
        polygon = polygon_edges(segmentation)
        around = polygon or mask_edges(segmentation, image)
        if numbers is None and around is None:
            if class_finding(label, self.path) in normal_classes():
                return Mark(label, reader=reader)
            position = f"{self.path or self.files.source.root.name}: annotations[{number}]"
            self.files.cannot_read(file, _without_box(item), position=position)
            return None
        if numbers is None:
            kind = "mask" if polygon is None else "polygon"
            counts[f"annotations have no bbox: the box around the {kind} is taken"] += 1
            reading = user_reading(self.files.source.options, self.files.reading)
            numbers = tuple(values_of(np.array([around]), reading.form)[0])
            return Mark(label, numbers, reader)
        if degrees := coco_rotation(item):
            return Mark(label, self._turned(numbers, degrees, segmentation, image), reader)
        if around is not None and np.isfinite([*numbers, *around]).all():
            sides = finite_or_nan(image.get(side) for side in ("width", "height"))
            position = f"annotations[{number}]"
            self.outlines.append(Outline(file, position, numbers, around, max(sides)))
        return Mark(label, numbers, reader)

    def _turned(
        self, numbers: tuple[float, ...], degrees: float, segmentation: Any, image: dict[str, Any]
    ) -> tuple[float, ...]:
        """Return the box around a box that CVAT turned, in the form of the file."""
        x, y, width, height = numbers
        corners = (x, y, x + width, y + height)
        outline = points_of(segmentation)
        if not all(px in corners[::2] and py in corners[1::2] for px, py in outline):
            # the outline is turned already, and the box is around it
            around = polygon_edges(segmentation) or corners
            return tuple(values_of(np.array([around]), "xywh")[0])
        sides = finite_or_nan(image.get(side) for side in ("width", "height"))
        size = (sides[0] or np.nan, sides[1] or np.nan)
        turned = turned_bounds(np.array(corners), degrees, size).round(4)
        self.files.counts["boxes are turned: the upright box around each of these is taken"] += 1
        return tuple(values_of(turned[None], "xywh")[0])

    def _items(self, name: str, *, required: bool = True) -> list[dict[str, Any]]:
        items = self.content.get(name, None if required else [])
        if not isinstance(items, list):
            raise self._fail(name, "is no list; is this a COCO instances file?")
        wrong = next((n for n, item in enumerate(items) if not isinstance(item, dict)), None)
        if wrong is not None:
            raise self._fail(f"{name}[{wrong}]", "is no object")
        return items

    def _fail(self, position: str, reason: str) -> InputError:
        return InputError(f"{self.files.source.root / self.path}: {position}: {reason}")


def _reader_of(annotation: dict[str, Any]) -> str:
    return str(annotation.get("reader") or REFERENCE_READER)


def _without_box(item: dict[str, Any]) -> str:
    """Return why an annotation has no box."""
    also = ""
    if item.get("segmentation"):
        also = ", and its segmentation is neither a polygon nor a mask (RLE) of the image"
    text = "missing" if "bbox" not in item else json.dumps(item["bbox"])
    return (
        f"bbox is {text[:60]}{'...' if len(text) > 60 else ''}, not [x, y, width, height] in px"
        f"{also}"
    )


COCO = Format(
    name="coco",
    title="COCO",
    folder="`.json` files that list `images`, and the images",
    detect=has_text(("annotations/*.json", "*.json", "*/_annotations.coco.json"), COCO_MARKS),
    read=partial(read_annotations, "coco", _read, reading=_READING),
    options=("reference", "columns", "raw_boxes", "patient_pattern"),
    labels_alone=True,
)
