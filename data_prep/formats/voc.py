"""Format `voc`: Pascal VOC XML, an ``<annotation>`` for each image, as labelImg and Roboflow write.

The edges ``xmin, ymin, xmax, ymax`` are taken unchanged as x1, y1, x2, y2. In the challenge of 2007
to 2012, pixels were counted from 1 and the last pixel belonged to the box, which would make x1 and
y1 smaller by one. This convention is not applied: the challenge had no chest X-ray, nearly every
tool since then writes edges, and the ``<database>`` that could identify the challenge is copied
from one script to the next.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import numpy as np

from cxr_compare.data_prep.contracts.box_values import are_widths
from cxr_compare.data_prep.contracts.boxes import turned_bounds
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_XML_BYTES, require_depth
from cxr_compare.data_prep.contracts.text_files import read_bytes
from cxr_compare.data_prep.formats.class_names import class_finding
from cxr_compare.data_prep.formats.folder_scan import files_below, has_text
from cxr_compare.data_prep.formats.image_index import ImageIndex, role_from_path
from cxr_compare.data_prep.formats.image_label_files import (
    gather_label_files,
    roles_by_folder,
    stem,
)
from cxr_compare.data_prep.formats.label_files import LabelFiles, read_lines
from cxr_compare.data_prep.formats.label_names import Label
from cxr_compare.data_prep.formats.label_values import as_number, finite_or_nan, parse_side
from cxr_compare.data_prep.formats.source import Format, SourceBuilder, SourceTables
from cxr_compare.data_prep.images.image_limits import require_file

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _read_voc(builder: SourceBuilder) -> SourceTables:
    """Read a folder of Pascal VOC annotations and images."""
    source = builder.root
    files = files_below(source, ".xml")
    if not files:
        builder.require_format()
        raise InputError(f"{source}: holds no XML file")
    gathered = LabelFiles(builder)

    def read(path: str) -> tuple[ElementTree.Element, list[str]]:
        root = parse_xml(source / path, "annotation")
        return root, [_text(root, tag) for tag in ("path", "filename")]

    xml_files = gather_label_files(
        gathered,
        ImageIndex(source),
        files,
        read,
        partial(_gather, gathered=gathered),
        count=lambda root: len(root.findall("object")),
    )
    _sort_corners(gathered)
    gathered.name_boxes(str(source))
    names = tuple(sorted({row[1] for row in (*gathered.boxes, *gathered.denied)}))
    gathered.classes = dict.fromkeys(gathered.classes, names)
    gathered.roles = _roles(source, gathered, xml_files)
    return gathered.build_tables()


class _Builder(ElementTree.TreeBuilder):
    """Builder of elements that refuses a document type and deep nesting."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:
        self.depth += 1
        require_depth(self.depth, self.path)
        return super().start(tag, attrs)

    def end(self, tag: str) -> ElementTree.Element:
        self.depth -= 1
        return super().end(tag)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise InputError(f"{self.path}: has a document type, which no annotation needs; remove it")


def parse_xml(path: Path, kind: str) -> ElementTree.Element:
    """Read an XML file without following external references, and return its root element.

    Args:
        path: Path of the file.
        kind: Tag that the root element must have, such as ``annotation``.

    Raises:
        InputError: The file is larger or deeper than the limits, is no XML, has another root
            element, or has a document type or entities.
    """
    require_file(path)
    content = read_bytes(path, MAX_XML_BYTES)
    upper = content.upper()
    if b"<!DOCTYPE" in upper or b"<!ENTITY" in upper:
        raise InputError(f"{path}: has a document type or entities, which no annotation needs")
    # Without a document type expat expands nothing and opens no file; an encoding that hides the
    # words above from the search is met by the builder.
    parser = ElementTree.XMLParser(target=_Builder(path))  # noqa: S314
    try:
        parser.feed(content)
        root = parser.close()
    except InputError:
        raise
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"{path}: not readable as XML ({' '.join(str(error).split())})") from None
    if root.tag != kind:
        hint = {"annotation": "; give --format voc", "annotations": "; give --format cvat"}
        raise InputError(f"{path}: is <{root.tag[:40]}>, not <{kind}>{hint.get(root.tag, '')}")
    return root


def _gather(image: str, root: ElementTree.Element, gathered: LabelFiles) -> None:
    """Gather the labels of one file: all of them, or none if a part is wrong."""
    facts: dict[str, Any] = {
        side: parse_side(_text(root, f"size/{side}")) for side in ("height", "width")
    }
    boxes: list[tuple[str, list[float]]] = []
    flags: Counter[str] = Counter()
    for number, item in enumerate(root.findall("object"), start=1):
        name = _text(item, "name")
        box = item.find("bndbox")
        if not name:
            raise InputError(f"object {number}: has no name")
        if box is None:
            rotated = "; its box is rotated" if item.find("robndbox") is not None else ""
            raise InputError(f"object {number}: has no bndbox{rotated}")
        edges = finite_or_nan(_text(box, side) for side in _SIDES)
        if np.isnan(edges).any():
            raise InputError(f"object {number}: bndbox is not of numbers")
        turn = _rotation(item)
        if turn % 360:
            size = (facts["width"] or np.nan, facts["height"] or np.nan)
            edges = turned_bounds(np.array(edges), turn, size).round(4).tolist()
            flags["boxes are turned: the upright box around each of these is taken"] += 1
        class_finding(name, f"object {number}")  # without a letter it leaves out its image alone
        boxes.append((name, edges))
        for flag in ("difficult", "truncated"):
            flags[f"objects are marked {flag}: these are read like the others"] += (
                _text(item, flag) == "1"
            )
    gathered.counts.update(flags)
    gathered.images[image] = facts
    for name, edges in boxes:
        gathered.add_box(image, Label(name), edges)
    gathered.classes[image] = ()


def _rotation(item: ElementTree.Element) -> float:
    """Return the rotation (degrees) that CVAT gives an object as an attribute; 0 without."""
    for attribute in item.iter("attribute"):
        if _text(attribute, "name").lower() == "rotation":
            return as_number(_text(attribute, "value")) or 0.0
    return 0.0


def _sort_corners(gathered: LabelFiles) -> None:
    """Sort the corners of boxes that were drawn backwards, unless they may be widths."""
    corners = np.reshape([row[3:] for row in gathered.boxes], (-1, 4)).astype(np.float64)
    sizes = np.full((len(corners), 2), np.nan)
    for row, (image, *_) in enumerate(gathered.boxes):
        facts = gathered.images[image]
        sizes[row] = [facts["width"] or np.nan, facts["height"] or np.nan]
    first = np.minimum(corners[:, :2], corners[:, 2:])
    last = np.maximum(corners[:, :2], corners[:, 2:])
    is_backwards = (corners != np.hstack([first, last])).any(axis=1)
    if not is_backwards.any() or are_widths(corners, sizes):
        return
    text = "boxes were drawn from another corner than the upper left: their corners are sorted"
    gathered.counts[text] = int(is_backwards.sum())
    ordered = np.hstack([first, last]).tolist()
    gathered.boxes = [
        (*row[:3], *edges) for row, edges in zip(gathered.boxes, ordered, strict=True)
    ]


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _roles(root: Path, gathered: LabelFiles, xml_files: dict[str, str]) -> list[tuple[str, str]]:
    """Return the published role of each image: from the lists of ImageSets, else by folder."""
    by_stem: dict[str, list[str]] = {}
    for image in gathered.images:
        for name in {stem(image), stem(xml_files.get(image, image))}:
            by_stem.setdefault(name, []).append(image)
    roles = []
    for path in files_below(root, ".txt"):
        role = role_from_path(stem(path)) if stem(path).isalpha() else None  # not mass_train.txt
        if role and posixpath.dirname(path).lower().endswith("imagesets/main"):
            for line in read_lines(root / path):
                roles += [(image, role) for image in by_stem.get(line.strip(), ())]
    return roles or roles_by_folder(xml_files, gathered.images)


VOC = Format(
    name="voc",
    title="Pascal VOC",
    folder="an XML an image, beside it or in `Annotations/`",
    detect=has_text(("Annotations/*.xml", "*.xml", "*/*.xml"), (rb"<annotation[\s>]",)),
    read=_read_voc,
    options=("raw_boxes", "patient_pattern"),
    is_deep=True,
)
