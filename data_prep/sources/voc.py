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
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.boxes import turned_bounds
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    LabelFiles,
    Mark,
    parse_side,
    read_annotations,
)
from cxr_compare.data_prep.sources.image_files import files_below, has_text, role_from_path, stem
from cxr_compare.data_prep.sources.image_label_files import read_image_files
from cxr_compare.data_prep.sources.label_values import class_finding
from cxr_compare.data_prep.sources.markup_files import read_lines, read_xml_file, text_of
from cxr_compare.data_prep.sources.source_tables import Format

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _read(files: LabelFiles) -> Iterator[ImageLabels]:
    """Yield the labels of a folder of Pascal VOC annotations and images."""
    root = files.source.root
    paths = files_below(root, ".xml")
    if not paths:
        raise InputError(f"{root}: holds no XML file")

    def read(path: str) -> tuple[Element, list[str]]:
        content = read_xml_file(root / path, "annotation")
        return content, [text_of(content, tag) for tag in ("path", "filename")]

    labelled = read_image_files(
        files,
        paths,
        read,
        partial(_labels, files.counts),
        count=lambda content: len(content.findall("object")),
    )
    yield from _with_roles(root, list(labelled))


def _labels(counts: Counter[str], image: str, path: str, content: Element) -> ImageLabels:
    """Return the labels of one file: all of them, or none if a part is wrong."""
    facts: dict[str, Any] = {
        side: parse_side(text_of(content, f"size/{side}")) for side in ("height", "width")
    }
    marks = []
    flags: Counter[str] = Counter()
    for number, item in enumerate(content.findall("object"), start=1):
        name = text_of(item, "name")
        box = item.find("bndbox")
        if not name:
            raise InputError(f"object {number}: has no name")
        if box is None:
            rotated = "; its box is rotated" if item.find("robndbox") is not None else ""
            raise InputError(f"object {number}: has no bndbox{rotated}")
        edges = finite_or_nan(text_of(box, side) for side in _SIDES)
        if np.isnan(edges).any():
            raise InputError(f"object {number}: bndbox is not of numbers")
        turn = _rotation(item)
        if turn % 360:
            size = (facts["width"] or np.nan, facts["height"] or np.nan)
            edges = turned_bounds(np.array(edges), turn, size).round(4).tolist()
            flags["boxes are turned: the upright box around each of these is taken"] += 1
        class_finding(name, f"object {number}")
        marks.append(Mark(name, edges))
        for flag in ("difficult", "truncated"):
            flags[f"objects are marked {flag}: these are read like the others"] += (
                text_of(item, flag) == "1"
            )
    counts.update(flags)
    return ImageLabels(image, path, marks, absent=None, facts=facts)


def _rotation(item: Element) -> float:
    """Return the rotation (degrees) that CVAT gives an object as an attribute; 0 without."""
    for attribute in item.iter("attribute"):
        if text_of(attribute, "name").lower() == "rotation":
            (degrees,) = finite_or_nan([text_of(attribute, "value")])
            return 0.0 if np.isnan(degrees) else degrees
    return 0.0


def _with_roles(root: Path, labelled: list[ImageLabels]) -> Iterator[ImageLabels]:
    """Yield the labels with the roles of the lists of ImageSets, else with those of folders.

    An image with two roles is yielded once for each.
    """
    by_stem: dict[str, list[ImageLabels]] = {}
    for labels in labelled:
        for name in {stem(labels.image), stem(labels.file)}:
            by_stem.setdefault(name, []).append(labels)
    listed: dict[str, set[str]] = {}
    for path in files_below(root, ".txt"):
        role = role_from_path(stem(path)) if stem(path).isalpha() else None  # not mass_train.txt
        if role and posixpath.dirname(path).lower().endswith("imagesets/main"):
            for line in read_lines(root / path):
                for labels in by_stem.get(line.strip(), ()):
                    listed.setdefault(labels.image, set()).add(role)
    for labels in labelled:
        roles = sorted(listed.get(labels.image, ()))
        if listed:
            labels.role = roles[0] if roles else None
        yield labels
        for role in roles[1:]:
            yield ImageLabels(labels.image, labels.file, readers=(), role=role)


VOC = Format(
    name="voc",
    title="Pascal VOC",
    folder="an XML an image, beside it or in `Annotations/`",
    detect=has_text(("Annotations/*.xml", "*.xml", "*/*.xml"), (rb"<annotation[\s>]",)),
    read=partial(read_annotations, "voc", _read),
    options=("columns", "raw_boxes", "patient_pattern"),
)
