"""Format `coco`: COCO JSON (instances), as CVAT, Label Studio, Roboflow and `cxr export` write it.

docs/formats.md explains how images are found and what a missing annotation means. In addition:

- The first category of Roboflow only groups the others, and is no class.
- A crowd (``iscrowd``) is no single lesion: its finding is present, but its box is left out. An
  annotation with neither ``bbox`` nor outline excludes its image.
- A missing annotation of a reader means absence only on images that the reader has read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.box_values import BoxReading, coco_bbox, coco_rotation
from cxr_compare.data_prep.contracts.boxes import turned_bounds
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.limits import require_few_names
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.formats.class_names import NO_FINDING_CLASSES
from cxr_compare.data_prep.formats.folder_scan import files_below, has_text
from cxr_compare.data_prep.formats.image_index import ImageIndex, role_from_path
from cxr_compare.data_prep.formats.label_file_kinds import COCO_MARKS
from cxr_compare.data_prep.formats.label_files import LabelFiles
from cxr_compare.data_prep.formats.label_names import Label, name_labels
from cxr_compare.data_prep.formats.label_values import finite_or_nan, parse_side, read_plain_facts
from cxr_compare.data_prep.formats.source import (
    Format,
    SourceBuilder,
    SourceTables,
    WrongFormatError,
)


def _id_text(value: Any) -> str | None:
    """Return an id as text, or None if the value is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and value != "" else None


def _box_edges(bbox: Any) -> tuple[float, ...] | None:
    """Return x1, y1, x2, y2 of a ``bbox``, or None if it is no bbox; NaN for non-numbers."""
    values = coco_bbox(bbox)
    if values is None:
        return None
    x, y, width, height = finite_or_nan(values)
    return (x, y, x + width, y + height)


def _polygon_edges(segmentation: Any) -> tuple[float, ...] | None:
    """Return the box around the polygons of an annotation, or None for a mask or nothing."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    xs: list[float] = []
    ys: list[float] = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        xs += finite_or_nan(polygon[::2])
        ys += finite_or_nan(polygon[1::2])
    corners = np.array([xs, ys])  # the minimum of numpy keeps a NaN
    return (*corners.min(axis=1).tolist(), *corners.max(axis=1).tolist())


def _mask_edges(segmentation: Any, image: dict[str, Any]) -> tuple[float, ...] | None:
    """Return the box around a mask in run-length encoding (RLE) of the image, else None."""
    if not isinstance(segmentation, dict):
        return None
    size = segmentation.get("size")
    counts = segmentation.get("counts")
    if not isinstance(size, list) or not all(type(side) is int for side in size) or len(size) != 2:
        return None
    height, width = size
    stated = [image.get("height") or height, image.get("width") or width]
    if size != stated or not 0 < min(size) <= max(size) <= _LONGEST_MASK_SIDE:
        return None
    from pycocotools import mask  # 0.1 s, which files without masks are read without

    if isinstance(counts, list):
        are_runs = all(type(run) is int and run >= 0 for run in counts)
        if not are_runs or sum(counts) != height * width:
            return None
        encoded = mask.frPyObjects(segmentation, height, width)
    elif isinstance(counts, str) and _RUNS.fullmatch(counts):
        encoded = {"size": size, "counts": counts.encode()}
    else:
        return None
    x, y, box_width, box_height = mask.toBbox(encoded).tolist()
    is_inside = x + box_width <= width and y + box_height <= height
    return (x, y, x + box_width, y + box_height) if is_inside else None


def _turned_edges(
    box: tuple[float, ...], item: dict[str, Any], image: dict[str, Any]
) -> tuple[tuple[float, ...], bool]:
    """Return the box around a box that CVAT turned, and True if it was turned."""
    degrees = coco_rotation(item)
    if not degrees:
        return box, False
    x1, y1, x2, y2 = box
    outline = _points(item.get("segmentation"))
    is_upright = all(x in (x1, x2) and y in (y1, y2) for x, y in outline)
    if not is_upright:  # the outline is turned already, and the box is around it
        return _polygon_edges(item.get("segmentation")) or box, False
    width, height = finite_or_nan(image.get(side) for side in ("width", "height"))
    turned = turned_bounds(np.array(box), degrees, (width or np.nan, height or np.nan))
    return tuple(turned.round(4).tolist()), True


def _points(segmentation: Any) -> list[tuple[float, float]]:
    """Return the points of the polygons of an annotation; an empty list without polygons."""
    if _polygon_edges(segmentation) is None:
        return []
    numbers = [finite_or_nan(polygon) for polygon in segmentation]
    return [point for flat in numbers for point in zip(flat[::2], flat[1::2], strict=True)]


def _without_box(item: dict[str, Any]) -> str:
    """Return why an annotation has no box."""
    outline = item.get("segmentation")
    also = ""
    if outline:
        also = ", and its segmentation is neither a polygon nor a mask (RLE) of the image"
    text = "missing" if "bbox" not in item else json.dumps(item["bbox"])
    return (
        f"bbox is {text[:60]}{'...' if len(text) > 60 else ''}, not [x, y, width, height] in px"
        f"{also}"
    )


def _reader_of(annotation: dict[str, Any]) -> str:
    return str(annotation.get("reader") or REFERENCE_READER)


_LONGEST_MASK_SIDE = 10_000
_RUNS = re.compile(r"[0-o]*[0-O]")  # compressed runs: "P" to "o" are followed by further digits
_READING = BoxReading(form="xywh", sides="COCO's bbox is x, y, width, height")
_CROWDS = (1, "1")
_CROWD_FLAGS = (None, 0, "0", "", *_CROWDS)


# Labels of one image in one file, by finding: its boxes (none if it is absent), and True if the
# boxes show all of its lesions.
_Labels = dict[str, tuple[list[tuple[float, ...]], bool]]


def _read_coco(builder: SourceBuilder) -> SourceTables:
    """Read the COCO files of a folder, or one file whose images need not exist."""
    source = builder.root
    gathered = LabelFiles(builder, reading=_READING)
    files = []
    others = []
    for path in [""] if source.is_file() else files_below(source, ".json"):
        content = read_json_file(source / path)
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            files.append(_CocoFile(source, path, content, gathered))
        else:
            others.append(path)
    if not files:
        if others:
            raise WrongFormatError(f"{source / others[0]}: not COCO: it has no list of images")
        builder.require_format()
        raise InputError(f"{source}: holds no JSON file except hidden ones")
    gathered.counts["files are JSON but not COCO: these are ignored"] += len(others)
    used = {category for file in files for category in file.used_categories()}
    classes = [name for file in files for name in file.class_names(used)]
    where = str(source / files[0].path) if len(files) == 1 else str(source)
    named = name_labels(classes, where, "class")
    for note in named.notes:
        builder.show(note)
    images = ImageIndex(source)
    earlier: dict[tuple[str, str], tuple[str, _Labels]] = {}
    for file in files:
        file.read(images, named.labels, earlier)
    return gathered.build_tables()


@dataclass
class _CocoFile:
    """One COCO file, which adds its content to the gathered label files."""

    root: Path
    path: str
    content: dict[str, Any]
    gathered: LabelFiles
    names: dict[str, str] = field(default_factory=dict)  # category id -> name
    groups: set[str] = field(default_factory=set)  # names of supercategories

    def __post_init__(self) -> None:
        if "annotations" not in self.content:
            self.content["annotations"] = []
        categories = self._items("categories", required=False)
        require_few_names(categories, self.root / self.path)
        for number, item in enumerate(categories):
            key = _id_text(item.get("id"))
            name = item.get("name")
            if key is None or not isinstance(name, str | int) or self.names.get(key, name) != name:
                raise self._fail(f"categories[{number}]", "must have an id of its own and a name")
            self.names[key] = str(name)
            self.groups.add(str(item.get("supercategory")))

    def used_categories(self) -> set[str]:
        """Return the names of the categories that annotations have."""
        ids = {_id_text(item.get("category_id")) for item in self._items("annotations")}
        return {self.names[key] for key in ids if key in self.names}

    def class_names(self, used: set[str]) -> list[str]:
        """Return the names of the categories that do not only group others.

        Args:
            used: Names of the categories that annotations of any file have.
        """
        return [name for name in self.names.values() if name in used or name not in self.groups]

    def read(
        self,
        files: ImageIndex,
        labels_of_names: dict[str, Label],
        earlier: dict[tuple[str, str], tuple[str, _Labels]],
    ) -> None:
        """Gather the labels of the file.

        Args:
            files: Images of the source folder.
            labels_of_names: Finding and state of the categories of all files by their names.
            earlier: Labels of each image and reader in the files read before, with the file's path.
        """
        findings = {
            key: labels_of_names[name]
            for key, name in self.names.items()
            if name in labels_of_names
        }
        images = self._images(files)
        complete = bool(self.content["annotations"])
        annotators: dict[str | None, set[str]] = {}
        for item in self.content["annotations"]:
            image_id = _id_text(item.get("image_id"))
            annotators.setdefault(image_id, set()).add(_reader_of(item))
        all_readers = set().union(*annotators.values()) or {REFERENCE_READER}
        read_by = {
            key: self._readers(key, image, annotators.get(key, all_readers), all_readers)
            for key, (_, image) in images.items()
        }
        for reader in sorted(all_readers.union(*read_by.values())):
            labels = self._labels(images, findings, reader)
            for key, (file, image) in images.items():
                image_labels = labels.get(key, {})
                if complete and reader in read_by[key]:
                    image_labels = self._with_absent(file, image, image_labels, findings)
                if reader != REFERENCE_READER and reader in read_by[key]:
                    self.gathered.read_by.setdefault(file, set()).add(reader)
                self._gather(file, image, image_labels, earlier, reader)

    def _readers(
        self, key: str, image: dict[str, Any], annotators: set[str], all_readers: set[str]
    ) -> set[str]:
        """Return the readers of an image: those that it lists, else all readers of the file.

        Raises:
            InputError: The image lists no readers and only some readers annotated it.
        """
        listed = image.get("readers")
        if isinstance(listed, list):
            return {str(reader) for reader in listed}
        if annotators != all_readers:
            missing = min(all_readers - annotators)
            raise self._fail(
                f"image {key}",
                f"has annotations of {min(annotators)}, none of {missing}: did {missing} read it? "
                'Give each image a list "readers"',
            )
        return all_readers

    def _images(self, files: ImageIndex) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return the path and entry of each image by its id; gather roles and exclusions."""
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
            matches = [name] if self.root.is_file() else files.by_name(name, folders, role)
            file = matches[0] if len(matches) == 1 else f"{self.path}: {name}"
            if len(matches) != 1:
                fits = f"file_name fits {counted(len(matches), 'image')}"
                self.gathered.exclusions.add([file], fits if matches else "no such image")
                continue
            if key in images and images[key] != (file, image):
                self.gathered.exclusions.add(
                    [file, images[key][0]], f"image id {key} appears more than once"
                )
            images[key] = (file, image)
            if role:
                self.gathered.roles.append((file, role))
        return images

    def _labels(
        self, images: dict[str, tuple[str, dict[str, Any]]], findings: dict[str, Label], reader: str
    ) -> dict[str, _Labels]:
        """Return the labels of a reader by image id; exclude images of unreadable annotations."""
        labels: dict[str, _Labels] = {}
        listed = {_id_text(image.get("id")) for image in self.content["images"]}
        exclusions = self.gathered.exclusions
        counts = self.gathered.counts
        ids = set()
        for number, item in enumerate(self.content["annotations"]):
            if _reader_of(item) != reader:
                continue
            key = _id_text(item.get("image_id"))
            category = _id_text(item.get("category_id"))
            if key is None or category is None:
                raise self._fail(f"annotations[{number}]", "must have image_id and category_id")
            ids.add(_id_text(item.get("id")))
            if key not in images:
                if key not in listed:
                    exclusions.add(
                        [f"{self.path}: image {key}"], "annotated, but not among the images"
                    )
                continue
            file = images[key][0]
            if category not in findings:
                exclusions.add([file], f"category_id {category} is not among the categories")
                continue
            image_labels = labels.setdefault(key, {})
            finding, state = findings[category]
            boxes = image_labels.setdefault(finding, ([], True))[0]
            if state == "absent":
                self.gathered.add_box(file, findings[category], (), reader)
                continue
            crowd = item.get("iscrowd")
            if crowd not in _CROWD_FLAGS:
                exclusions.add([file], f"iscrowd is {str(crowd)[:40]!r}, neither 0 nor 1")
                continue
            if crowd in _CROWDS:
                image_labels[finding] = (boxes, False)
                counts["annotations are crowds: findings of these are boxed in part"] += 1
                continue
            box = self._box(item, images[key][1])
            if box is not None:
                boxes.append(box)
            elif finding not in NO_FINDING_CLASSES:
                place = f"{self.path or self.root.name}: annotations[{number}]"
                self.gathered.add_unread(file, _without_box(item), place=place)
        items = self.content["annotations"]
        repeated = sum(_reader_of(item) == reader for item in items) - len(ids)
        counts[
            "annotations have the id of another one: these are read as separate annotations"
        ] += repeated
        return labels

    def _box(self, item: dict[str, Any], image: dict[str, Any]) -> tuple[float, ...] | None:
        """Return x1, y1, x2, y2 (px) of an annotation, or None if it has no box that is read."""
        counts = self.gathered.counts
        box = _box_edges(item.get("bbox"))
        if box is not None:
            box, is_turned = _turned_edges(box, item, image)
            counts["boxes are turned: the upright box around each of these is taken"] += is_turned
            return box
        segmentation = item.get("segmentation")
        for outline, box in (
            ("polygon", _polygon_edges(segmentation)),
            ("mask", _mask_edges(segmentation, image)),
        ):
            if box is not None:
                counts[f"annotations have no bbox: the box around the {outline} is taken"] += 1
                return box
        return None

    def _with_absent(
        self, file: str, image: dict[str, Any], labels: _Labels, findings: dict[str, Label]
    ) -> _Labels:
        """Add absent findings: all categories without annotation or, in LVIS, those listed."""
        boxed = {key: label.finding for key, label in findings.items() if label.state == "present"}
        listed = image.get("neg_category_ids")
        if isinstance(listed, list):
            absent = {boxed.get(_id_text(item) or "") for item in listed} - {None}
            partly = image.get("not_exhaustive_category_ids")
            for item in partly if isinstance(partly, list) else []:
                finding = boxed.get(_id_text(item) or "")
                if finding in labels:
                    labels[finding] = (labels[finding][0], False)
        else:
            absent = set(boxed.values())
        self.gathered.classes.setdefault(file, ())
        unannotated = sorted(str(finding) for finding in absent if finding not in labels)
        return {**labels, **{finding: ([], True) for finding in unannotated}}

    def _gather(
        self,
        file: str,
        image: dict[str, Any],
        labels: _Labels,
        earlier: dict[tuple[str, str], tuple[str, _Labels]],
        reader: str,
    ) -> None:
        """Gather the labels of a reader on one image that no earlier file has."""
        first_path, first = earlier.get((file, reader), (self.path, {}))
        shared = first.keys() & labels.keys()
        if any(sorted(first[f][0]) != sorted(labels[f][0]) for f in shared):
            reason = f"boxed differently in {first_path} and {self.path}"
            self.gathered.exclusions.add([file], reason)
            return
        new = {finding: label for finding, label in labels.items() if finding not in first}
        earlier[file, reader] = (first_path, {**first, **new})
        try:
            facts = {key: parse_side(image.get(key)) for key in ("height", "width")}
        except InputError as error:
            self.gathered.exclusions.add([file], str(error))
            return
        facts |= read_plain_facts(image)
        self.gathered.images.setdefault(file, facts)
        if file in self.gathered.classes:
            names = {*self.gathered.classes[file], *new}
            self.gathered.classes[file] = tuple(sorted(names))
        for finding, (boxes, whole) in new.items():
            if not whole:
                self.gathered.partial.add((file, finding))
            for box in boxes:
                self.gathered.add_box(file, Label(finding), box, reader)

    def _items(self, name: str, *, required: bool = True) -> list[dict[str, Any]]:
        items = self.content.get(name, None if required else [])
        if not isinstance(items, list):
            raise self._fail(name, "is no list; is this a COCO instances file?")
        wrong = next((n for n, item in enumerate(items) if not isinstance(item, dict)), None)
        if wrong is not None:
            raise self._fail(f"{name}[{wrong}]", "is no object")
        return items

    def _fail(self, position: str, reason: str) -> InputError:
        return InputError(f"{self.root / self.path}: {position}: {reason}")


COCO = Format(
    name="coco",
    title="COCO",
    folder="`.json` files that list `images`, and the images",
    detect=has_text(("annotations/*.json", "*.json", "*/_annotations.coco.json"), COCO_MARKS),
    read=_read_coco,
    options=("reference", "raw_boxes", "patient_pattern"),
    is_deep=True,
)
