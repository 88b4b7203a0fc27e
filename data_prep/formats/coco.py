"""Format of COCO JSON (instances), as CVAT, Label Studio, Roboflow and `cxr export` write it.

docs/formats.md says how images are found and what silence means; beyond that:

- A first category of Roboflow that only groups the others is none.
- A crowd (``iscrowd``) is no single lesion: its finding is present, its box is left out. An
  annotation with neither ``bbox`` nor polygon excludes its image.
- A reader is silent only on images that he read. `cxr_extension` under ``cxr`` stands in place of
  what silence says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text_files import decode_text, text_encoding
from cxr_compare.data_prep.formats.class_names import class_finding
from cxr_compare.data_prep.formats.cxr_extension import KEY, read_object, read_set_facts
from cxr_compare.data_prep.formats.folder_scan import files_below, has_match
from cxr_compare.data_prep.formats.image_index import ImageIndex, role_of
from cxr_compare.data_prep.formats.label_files import LabelFiles
from cxr_compare.data_prep.formats.label_values import plain_facts, stated_size, to_edges
from cxr_compare.data_prep.formats.source import Format, SourceBuilder, SourceTables


def read_json_file(path: Path) -> Any:
    """Read any JSON file."""
    try:
        content = path.read_bytes()
        mark, encoding = text_encoding(content)
        if encoding == "utf-8":  # which the parser checks on its way
            return from_json(content.removeprefix(mark))
        return from_json(decode_text(content, str(path)))
    except InputError:
        raise
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not readable as JSON ({reason})") from None


def _id_text(value: Any) -> str | None:
    """An id as text; None where it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and value != "" else None


def _box_edges(given: Any) -> tuple[float, ...] | None:
    """x1, y1, x2, y2 of a ``bbox``, NaN for what is no number; None where it is no bbox."""
    if not isinstance(given, list) or len(given) != 4:
        return None
    x, y, width, height = to_edges(given)
    return (x, y, x + width, y + height)


def _polygon_edges(segmentation: Any) -> tuple[float, ...] | None:
    """The box around the polygons of an annotation; None for a mask, or none."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    xs: list[float] = []
    ys: list[float] = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        xs += to_edges(polygon[::2])
        ys += to_edges(polygon[1::2])
    corners = np.array([xs, ys])  # numpy, for a NaN must not get lost on the way
    return (*corners.min(axis=1).tolist(), *corners.max(axis=1).tolist())


def _reader_of(annotation: dict[str, Any]) -> str:
    return str(annotation.get("reader") or REFERENCE_READER)


_CROWDS = (1, "1")
_CROWD_FLAGS = (None, 0, "0", "", *_CROWDS)


# What one file says of one image: per finding its boxes (none: absent), and whether that is all.
_Labels = dict[str, tuple[list[tuple[float, ...]], bool]]


def _read_coco(builder: SourceBuilder) -> SourceTables:
    """Read the COCO files of a folder; or one file, whose images need not be there."""
    source = builder.root
    gathered = LabelFiles(builder)
    files = []
    others = []
    for path in [""] if source.is_file() else files_below(source, ".json"):
        content = read_json_file(source / path)
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            files.append(_CocoFile(source, path, content, gathered))
        else:
            others.append(path)
    if not files:
        if not source.is_file():
            builder.require_format()
        if not others:
            raise InputError(f"{source}: holds no JSON file but hidden ones")
        raise InputError(f"{source / others[0]}: not COCO: it has no list of images")
    gathered.seen["JSON files are not COCO: passed over"] += len(others)
    used = {category for file in files for category in file.used_categories()}
    images = ImageIndex(source)
    earlier: dict[tuple[str, str], tuple[str, _Labels]] = {}
    for file in files:
        file.read(images, used, earlier)
    return gathered.tables()


@dataclass
class _CocoFile:
    """One JSON file, and where what it says is gathered."""

    root: Path
    path: str
    content: dict[str, Any]
    gathered: LabelFiles
    names: dict[str, str] = field(default_factory=dict)  # category id -> name
    groups: set[str] = field(default_factory=set)

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

    def used_categories(self) -> set[str]:
        """Names of the categories that an annotation has."""
        ids = {_id_text(item.get("category_id")) for item in self._items("annotations")}
        return {self.names[key] for key in ids if key in self.names}

    def read(
        self, files: ImageIndex, used: set[str], earlier: dict[tuple[str, str], tuple[str, _Labels]]
    ) -> None:
        """Gather what the file says."""
        own = self._set_facts()
        findings = {
            key: name if own else class_finding(name, str(self.root / self.path))
            for key, name in self.names.items()
            if own or name in used or name not in self.groups
        }
        may_have = not self.root.is_file()  # but where one file alone is read
        images = self._images(files, has_pixels=may_have and (own is None or own["pixels"]))
        complete = bool(self.content["annotations"])
        spoke: dict[str | None, set[str]] = {}
        for item in self.content["annotations"]:
            spoke.setdefault(_id_text(item.get("image_id")), set()).add(_reader_of(item))
        every = set().union(*spoke.values()) or {REFERENCE_READER}
        read_by = {
            key: self._readers(key, image, spoke.get(key, every), every)
            for key, (_, image) in images.items()
        }
        for reader in sorted(every.union(*read_by.values())):
            labels = self._labels(images, findings, reader)
            for key, (file, image) in images.items():
                said = labels.get(key, {})
                if complete and KEY not in image and reader in read_by[key]:
                    said = self._with_absent(file, image, said, findings)
                if reader != REFERENCE_READER and reader in read_by[key]:
                    self.gathered.read_by.setdefault(file, set()).add(reader)
                self._tell(file, image, said, earlier, reader)

    def _readers(
        self, key: str, image: dict[str, Any], spoke: set[str], every: set[str]
    ) -> set[str]:
        """Who read an image: as it says, else everyone, if no one was silent alone."""
        listed = image.get("readers")
        if isinstance(listed, list):
            return {str(reader) for reader in listed}
        if spoke != every:
            silent = min(every - spoke)
            spoken = min(spoke)
            raise self._fail(
                f"image {key}",
                f"has annotations of {spoken}, none of {silent}: did {silent} read it? Give each "
                'image a list "readers"',
            )
        return every

    def _set_facts(self) -> dict[str, Any] | None:
        """What `cxr export` says of the whole set; None in anybody else's file."""
        info = self.content.get("info")
        if not isinstance(info, dict) or KEY not in info:
            return None
        facts = read_set_facts(info[KEY], f"{self.root / self.path}: info: {KEY}")
        self.gathered.targets |= facts["targets"]
        return facts

    def _images(
        self, files: ImageIndex, *, has_pixels: bool
    ) -> dict[str, tuple[str, dict[str, Any]]]:
        """Id -> path of the file and the image's entry; roles and exclusions on the way."""
        role = role_of(self.path)
        folder = self.path.rpartition("/")[0]
        folders = (folder, f"{folder}/images", "", "images")
        images: dict[str, tuple[str, dict[str, Any]]] = {}
        for number, image in enumerate(self._items("images")):
            key = _id_text(image.get("id"))
            name = image.get("file_name")
            if key is None or not isinstance(name, str) or not name:
                raise self._fail(f"images[{number}]", "must have an id and a file_name")
            if not has_pixels:
                matches = [name]
                self.gathered.without_pixels.add(name)
            else:
                matches = files.by_name(name, folders, role)
            file = matches[0] if len(matches) == 1 else f"{self.path}: {name}"
            if len(matches) != 1:
                fits = f"file_name fits {counted(len(matches), 'image')}"
                self.gathered.out.add([file], fits if matches else "no such image")
                continue
            if key in images and images[key] != (file, image):
                self.gathered.out.add(
                    [file, images[key][0]], f"image id {key} appears more than once"
                )
            images[key] = (file, image)
            if role:
                self.gathered.roles.append((file, role))
        return images

    def _labels(
        self, images: dict[str, tuple[str, dict[str, Any]]], findings: dict[str, str], reader: str
    ) -> dict[str, _Labels]:
        """What the annotations say, by image id; one that cannot be read excludes its image."""
        labels: dict[str, _Labels] = {}
        listed = {_id_text(image.get("id")) for image in self.content["images"]}
        out = self.gathered.out
        seen = self.gathered.seen
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
                    out.add([f"{self.path}: image {key}"], "annotated, but not among the images")
                continue
            file = images[key][0]
            if category not in findings:
                out.add([file], f"category_id {category} is not among the categories")
                continue
            of_image = labels.setdefault(key, {})
            boxes = of_image.setdefault(findings[category], ([], True))[0]
            crowd = item.get("iscrowd")
            if crowd not in _CROWD_FLAGS:
                out.add([file], f"iscrowd is {str(crowd)[:40]!r}, neither 0 nor 1")
                continue
            if crowd in _CROWDS:
                of_image[findings[category]] = (boxes, False)
                seen["annotations are crowds: boxed in part"] += 1
                continue
            box = _box_edges(item.get("bbox"))
            if box is None:
                box = _polygon_edges(item.get("segmentation"))
                seen["annotations have no bbox: the box around the polygon is taken"] += 1
            if box is None:
                out.add([file], "annotation with neither bbox nor polygon")
            elif not (box[0] < box[2] and box[1] < box[3]):
                out.add([file], "bbox without size (x, y, width, height; all of them numbers)")
            else:
                boxes.append(box)
        items = self.content["annotations"]
        repeated = sum(_reader_of(item) == reader for item in items) - len(ids)
        seen["annotations have the id of another: read as two"] += repeated
        return labels

    def _with_absent(
        self, file: str, image: dict[str, Any], said: _Labels, findings: dict[str, str]
    ) -> _Labels:
        """Add what silence says: absent, for all categories or, in LVIS, for those listed."""
        listed = image.get("neg_category_ids")
        if isinstance(listed, list):
            absent = {findings.get(_id_text(item) or "") for item in listed} - {None}
            partly = image.get("not_exhaustive_category_ids")
            for item in partly if isinstance(partly, list) else []:
                finding = findings.get(_id_text(item) or "")
                if finding in said:
                    said[finding] = (said[finding][0], False)
        else:
            absent = set(findings.values())
        self.gathered.classes.setdefault(file, ())
        silent = sorted(str(finding) for finding in absent if finding not in said)
        return {**said, **{finding: ([], True) for finding in silent}}

    def _tell(
        self,
        file: str,
        image: dict[str, Any],
        said: _Labels,
        earlier: dict[tuple[str, str], tuple[str, _Labels]],
        reader: str,
    ) -> None:
        """Gather what a reader says in the file of one image, and said in no earlier file."""
        is_new = (file, reader) not in earlier
        before, known = earlier.get((file, reader), (self.path, {}))
        if any(sorted(known[f][0]) != sorted(said[f][0]) for f in known.keys() & said.keys()):
            self.gathered.out.add([file], f"boxed differently in {before} and {self.path}")
            return
        new = {finding: label for finding, label in said.items() if finding not in known}
        earlier[file, reader] = (before, {**known, **new})
        try:
            facts = {key: stated_size(image.get(key)) for key in ("height", "width")}
        except InputError as error:
            self.gathered.out.add([file], str(error))
            return
        if KEY in image and is_new:
            place = f"{self.root / self.path}: image {_id_text(image['id'])}: {KEY}"
            own, rows = read_object(image[KEY], file, place)
            facts |= own
            self.gathered.rows.add(rows)
        else:
            facts |= plain_facts(image)
        self.gathered.images.setdefault(file, facts)
        if file in self.gathered.classes:
            names = {*self.gathered.classes[file], *new}
            self.gathered.classes[file] = tuple(sorted(names))
        for finding, (boxes, whole) in new.items():
            if not whole:
                self.gathered.partial.add((file, finding))
            for box in boxes:
                self.gathered.add_box(file, finding, box, reader)

    def _items(self, name: str, *, required: bool = True) -> list[dict[str, Any]]:
        items = self.content.get(name, None if required else [])
        if not isinstance(items, list):
            raise self._fail(name, "is no list; is this a COCO instances file?")
        wrong = next((n for n, item in enumerate(items) if not isinstance(item, dict)), None)
        if wrong is not None:
            raise self._fail(f"{name}[{wrong}]", "is no object")
        return items

    def _fail(self, place: str, reason: str) -> InputError:
        return InputError(f"{self.root / self.path}: {place}: {reason}")


COCO = Format(
    name="coco",
    title="COCO",
    folder="`.json` files that list `images`, and the images",
    detect=has_match("annotations/*.json", "*.json", "*/_annotations.coco.json"),
    read=_read_coco,
    options=("reference", "patient_pattern"),
    is_deep=True,
)
