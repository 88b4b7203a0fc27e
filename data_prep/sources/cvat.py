"""Format `cvat`: the XML that CVAT exports ("CVAT for images 1.1")."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from cxr_compare.data_prep.base.box_check import finite_or_nan
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.user_tables import read_xml_file
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    Mark,
    read_tool_files,
    value_of_role,
)
from cxr_compare.data_prep.sources.image_files import contains, has_file, role_from_path
from cxr_compare.data_prep.sources.own_table import TABLE
from cxr_compare.data_prep.sources.shapes import (
    Sides,
    box_around,
    box_of_rectangle,
    ellipse_points,
    pairs_of,
    sides_of,
)
from cxr_compare.data_prep.sources.source import Format
from cxr_compare.data_prep.sources.statements import Source


def _read_file(source: Source, file: Path) -> Iterator[ImageLabels]:
    entries = read_xml_file(file, "annotations").findall("image")
    path_of = source.find_images((entry.get("name", "") for entry in entries), file.name)
    for entry in entries:
        name = entry.get("name", "")
        path = path_of.get(name)
        if path is None:
            continue
        labels = ImageLabels(path, file.name)
        with source.reading_mark(path, f"{file.name}: {name}"):
            labels.facts |= sides_of(entry.get("width"), entry.get("height"))
        if role := role_from_path(entry.get("subset", "")):
            labels.facts["role"] = role
        sides = (labels.facts.get("width"), labels.facts.get("height"))
        for number, shape in enumerate(entry, start=1):
            text = "shapes were drawn by a model: these are read like the others"
            source.counts[text] += shape.get("source") == "auto"
            attributes = {str(a.get("name")): a.text for a in shape.findall("attribute")}
            if patient := value_of_role(attributes, "patient"):
                labels.facts.setdefault("patient_id", patient)
            with source.reading_mark(path, f"{file.name}: {name}: shape {number}"):
                for kind in ("reader", "state"):
                    if value_of_role(attributes, kind):
                        raise InputError(f"the attribute for the {kind} is not read; remove it")
                labels.marks.append(_mark(shape, sides))
        yield labels


def _mark(shape: Element, sides: Sides) -> Mark:
    """Return the mark of a shape or tag."""
    text = shape.get("label", "").strip()
    if not text:
        raise InputError(f"a <{shape.tag[:40]}> has no label")

    def numbers(*names: str) -> np.ndarray:
        return np.array(finite_or_nan(shape.get(name) for name in names))

    (degrees,) = finite_or_nan([shape.get("rotation", 0)])
    if shape.tag == "tag":
        return Mark(text)
    if shape.tag == "box":
        low, high = numbers("xtl", "ytl"), numbers("xbr", "ybr")
        return Mark(text, *box_of_rectangle(low, high, sides, degrees))
    if shape.tag == "ellipse":
        centre = numbers("cx", "cy")
        points = ellipse_points(centre, numbers("rx", "ry"))
        return Mark(text, *box_around(points, sides, degrees, centre))
    if shape.tag == "mask":
        low = numbers("left", "top")
        points = np.array([low, low + numbers("width", "height")])
    elif shape.tag == "polygon":
        points = pairs_of([pair.split(",") for pair in shape.get("points", "").split(";")])
    else:
        raise InputError(f"a <{shape.tag[:40]}> has no box")
    return Mark(text, *box_around(points, sides))


def _is_cvat(path: Path) -> bool:
    return path.suffix.lower() == ".xml" and contains(path, (rb"<annotations[\s>]",))


CVAT = Format(
    name="cvat",
    title="CVAT",
    detect=has_file(".xml", _is_cvat),
    folder='`annotations.xml` ("CVAT for images 1.1"), images in any folders',
    reader=partial(read_tool_files, ".xml", _read_file, _is_cvat),
    options=TABLE.options,
    shows_nothing="list each as an <image> without shapes",
)
