"""Format `voc`: Pascal VOC XML, an ``<annotation>`` for each image, as labelImg and Roboflow write.

The edges ``xmin, ymin, xmax, ymax`` are taken unchanged as x1, y1, x2, y2. In the challenge of 2007
to 2012, pixels were counted from 1 and the last pixel belonged to the box, which would make x1 and
y1 smaller by one. This convention is not applied: the challenge had no chest X-ray, nearly every
tool since then writes edges, and the ``<database>`` that could identify the challenge is copied
from one script to the next.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.errors import InputError
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
    stem,
)
from cxr_compare.data_prep.sources.image_label_files import read_image_files
from cxr_compare.data_prep.sources.markup_files import read_lines, read_xml_file, text_of
from cxr_compare.data_prep.sources.outlines import box_of_rectangle
from cxr_compare.data_prep.sources.source_tables import Format
from cxr_compare.data_prep.sources.statements import Source

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _read(source: Source) -> Iterator[ImageLabels]:
    """Yield the labels of a folder of Pascal VOC annotations and images."""
    root = source.root
    paths = files_below(root, ".xml")
    if not paths:
        raise InputError(f"{root}: holds no XML file")

    def read(path: str) -> tuple[Element, list[str]]:
        content = read_xml_file(root / path, "annotation")
        return content, [text_of(content, tag) for tag in ("path", "filename")]

    labelled = list(read_image_files(source, paths, read, _add_marks))
    _take_roles(root, labelled)
    yield from labelled


def _add_marks(source: Source, labels: ImageLabels, content: Element) -> None:
    with source.reading_mark(labels.image, labels.file):
        labels.facts = sides_of(text_of(content, "size/width"), text_of(content, "size/height"))
    sides = (labels.facts.get("width"), labels.facts.get("height"))
    for number, item in enumerate(content.findall("object"), start=1):
        with source.reading_mark(labels.image, f"{labels.file}: object {number}"):
            labels.marks.append(_mark(item, sides))


def _mark(item: Element, sides: Sequence[int | None]) -> Mark:
    name = text_of(item, "name")
    if not name:
        raise InputError("has no name")
    edges = np.array(finite_or_nan(text_of(item, f"bndbox/{side}") for side in _SIDES))
    if np.isnan(edges).any():
        raise InputError("has no bndbox of four numbers")
    turns = [
        text_of(attribute, "value")
        for attribute in item.iter("attribute")
        if text_of(attribute, "name").lower() == "rotation"  # as CVAT writes it
    ]
    degrees = np.nan_to_num(finite_or_nan(turns[:1] or [0]))[0]
    return Mark(name).with_box(*box_of_rectangle(edges[:2], edges[2:], sides, degrees))


def _take_roles(root: Path, labelled: list[ImageLabels]) -> None:
    """Give images the roles of the lists of ImageSets, if there are any."""
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
    if listed:
        for labels in labelled:
            labels.roles = sorted(listed.get(labels.image, ()))


VOC = Format(
    name="voc",
    title="Pascal VOC",
    folder="an XML an image, beside it or in `Annotations/`",
    detect=has_file(
        ("Annotations/*.xml", "*.xml", "*/*.xml"), partial(contains, texts=(rb"<annotation[\s>]",))
    ),
    read=partial(read_annotations, "voc", _read),
    options=("labels", "sheet", "reference", "columns", "raw_boxes", "patient_pattern"),
    found_in_folder=True,
)
