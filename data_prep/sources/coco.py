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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.box_numbers import coco_rotation, finite_or_nan, four_numbers
from cxr_compare.data_prep.contracts.box_readings import BoxReading, values_of
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import require_few_names
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    Mark,
    read_annotations,
    sides_of,
)
from cxr_compare.data_prep.sources.image_files import (
    contains,
    files_below,
    has_file,
    role_from_path,
)
from cxr_compare.data_prep.sources.label_values import class_finding, normal_classes, plain_facts
from cxr_compare.data_prep.sources.outlines import (
    box_of_rectangle,
    edges_around,
    mask_edges,
    polygon_points,
    require_same_place,
)
from cxr_compare.data_prep.sources.source_tables import Format
from cxr_compare.data_prep.sources.statements import Source, user_reading

_MARKS = (rb'"images"\s*:\s*\[', rb'"(?:annotations|categories)"\s*:\s*\[')
_READING = BoxReading(form="xywh")
_SAME_AREA = 0.01  # share by which an area may differ from that of its box
_MOST = 0.9


def _read(source: Source) -> Iterator[ImageLabels]:
    """Yield the labels of the COCO files of a folder, or of one file."""
    root = source.root
    read = []
    others = []
    for path in [""] if root.is_file() else files_below(root, ".json"):
        content = read_json_file(root / path)
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            read.append(_CocoFile(source, path or root.name, root / path, content))
        else:
            others.append(path)
    if not read:
        reason = f"{others[0]}: not COCO: it has no list of images" if others else "no JSON file"
        raise InputError(f"{root / reason}" if others else f"{root}: holds {reason}")
    source.counts["files are JSON but not COCO: these are ignored"] += len(others)
    stated = replace(source.statements.reading, stated=_are_sizes(read))
    source.statements.reading = user_reading(source.options, stated)
    used = {category for file in read for category in file.used_categories()}
    for file in read:
        yield from file.labels(used)


def _id_text(value: Any) -> str | None:
    """Return an id as text, or None if the value is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and value != "" else None


def _are_sizes(read: Sequence[_CocoFile]) -> bool:
    """Return True if the areas of annotations are those of boxes of x, y, width and height."""
    fits = []
    for item in chain.from_iterable(file.content["annotations"] for file in read):
        (area,) = finite_or_nan([item.get("area")])
        numbers = four_numbers(item.get("bbox"))
        if numbers is not None and area > 0 and not item.get("segmentation"):
            fits.append(abs(numbers[2] * numbers[3] - area) <= _SAME_AREA * area)
    return bool(fits) and float(np.mean(fits)) >= _MOST


@dataclass
class _CocoFile:
    """One COCO file."""

    source: Source
    path: str
    full_path: Path
    content: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)  # category id -> name
    groups: set[str] = field(default_factory=set)  # names of supercategories

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
        require_few_names(self.names, self.full_path)
        self._items("annotations")

    def used_categories(self) -> set[str]:
        """Return the names of the categories that annotations have."""
        ids = {_id_text(item.get("category_id")) for item in self.content["annotations"]}
        return {self.names[key] for key in ids if key in self.names}

    def labels(self, used: set[str]) -> Iterator[ImageLabels]:
        """Yield the labels of each image; `used` are the categories that any file annotates."""
        named = {
            key: name for key, name in self.names.items() if name in used or name not in self.groups
        }
        annotations: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for number, item in enumerate(self.content["annotations"]):
            key = _id_text(item.get("image_id"))
            if key is None or _id_text(item.get("category_id")) is None:
                raise self._fail(f"annotations[{number}]", "must have image_id and category_id")
            if item.get("score") is not None:
                raise self._fail(
                    f"annotations[{number}]",
                    "has a score, as a model's output has; give the labels, or remove the scores "
                    "if people drew these boxes",
                )
            annotations.setdefault(key, []).append((number, item))
        everybody = {_reader_of(item) for item in self.content["annotations"]}
        everybody = everybody or {REFERENCE_READER}
        role = role_from_path(self.path)
        folder = self.path.rpartition("/")[0]
        folders = (folder, f"{folder}/images", "", "images")
        self.source.add_names(str(image.get("file_name")) for image in self._items("images"))
        listed = set()
        seen: dict[str, tuple[str, dict[str, Any]]] = {}
        for number, image in enumerate(self._items("images")):
            key = _id_text(image.get("id"))
            name = image.get("file_name")
            if key is None or not isinstance(name, str) or not name:
                raise self._fail(f"images[{number}]", "must have an id and a file_name")
            if "neg_category_ids" in image:  # of LVIS, where most categories are unknown
                raise self._fail(
                    f"images[{number}]",
                    "lists neg_category_ids, which are not read; remove them if every finding "
                    "without an annotation is absent",
                )
            listed.add(key)
            file = self.source.find_image(name, self.path, folders, role)
            if file is None:
                continue
            if key in seen:
                if seen[key] != (file, image):
                    twice = f"image id {key} appears more than once"
                    self.source.exclude([file, seen[key][0]], twice)
                continue
            seen[key] = (file, image)
            labels = ImageLabels(file, self.path, absent=list(named.values()))
            labels.facts = plain_facts(image)
            labels.roles = [role] if role else []
            with self.source.reading_mark(file, f"{self.path}: image {key}"):
                labels.facts |= sides_of(image.get("width"), image.get("height"))
            own = annotations.get(key, [])
            annotators = {_reader_of(item) for _, item in own} or everybody
            readers = self._readers(key, image, annotators, everybody)
            labels.readers = sorted(readers) if annotations else ()
            for position, item in own:
                with self.source.reading_mark(file, f"{self.path}: annotations[{position}]"):
                    labels.marks.append(self._mark(item, image, named))
            yield labels
        for key in annotations.keys() - listed:
            text = "annotated, but not among the images"
            self.source.exclude([f"{self.path}: image {key}"], text)

    def _readers(
        self, key: str, image: dict[str, Any], annotators: set[str], everybody: set[str]
    ) -> set[str]:
        """Return the readers of an image: those that it lists, else all readers of the file.

        An image that lists none, and that only some readers annotated, is refused.
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

    def _mark(self, item: dict[str, Any], image: dict[str, Any], named: dict[str, str]) -> Mark:
        """Return the mark of an annotation; `named` are the names of the categories."""
        category = _id_text(item.get("category_id"))
        if category not in named:
            raise InputError(f"category_id {category} is not among the categories")
        label = named[category]
        mark = Mark(label, None, _reader_of(item))
        if item.get("iscrowd") not in (None, 0, "0", ""):
            counts = self.source.counts
            counts["annotations are crowds: findings of these are boxed in part"] += 1
            return replace(mark, shares_box=True)
        numbers = four_numbers(item.get("bbox"))
        segmentation = item.get("segmentation")
        outline = polygon_points(segmentation)
        around = edges_around(outline) or mask_edges(segmentation, image)
        reading = self.source.statements.reading
        if numbers is None and around is None:
            if class_finding(label, self.path) in normal_classes():
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

    def _items(self, name: str, *, required: bool = True) -> list[dict[str, Any]]:
        items = self.content.get(name, None if required else [])
        if not isinstance(items, list):
            raise self._fail(name, "is no list; is this a COCO instances file?")
        wrong = next((n for n, item in enumerate(items) if not isinstance(item, dict)), None)
        if wrong is not None:
            raise self._fail(f"{name}[{wrong}]", "is no object")
        return items

    def _fail(self, position: str, reason: str) -> InputError:
        return InputError(f"{self.full_path}: {position}: {reason}")


def _turned(
    numbers: tuple[float, ...],
    degrees: float,
    outline: np.ndarray | None,
    sides: Sequence[float],
) -> tuple[float, ...]:
    """Return the box around a box that CVAT turned, in the form of the file."""
    x, y, width, height = numbers
    low = np.array([x, y])
    high = np.array([x + width, y + height])
    is_turned = outline is not None and not (
        np.isin(outline[:, 0], (low[0], high[0])).all()
        and np.isin(outline[:, 1], (low[1], high[1])).all()
    )
    limits = np.nan_to_num(sides, nan=np.inf).tolist()
    around = box_of_rectangle(low, high, limits, degrees)[0]
    return tuple(values_of(np.array([edges_around(outline) if is_turned else around]), "xywh")[0])


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


def _is_coco(path: Path) -> bool:
    return path.suffix.lower() == ".json" and contains(path, _MARKS)


COCO = Format(
    name="coco",
    title="COCO",
    folder="`.json` files that list `images`, and the images",
    detect=has_file(("annotations/*.json", "*.json", "*/_annotations.coco.json"), _is_coco),
    read=partial(read_annotations, "coco", _read, reading=_READING),
    options=("labels", "sheet", "reference", "columns", "raw_boxes", "patient_pattern"),
    labels_alone=True,
    found_in_folder=True,
)
