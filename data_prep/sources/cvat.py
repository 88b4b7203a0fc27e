"""Format `cvat`: the XML that CVAT exports ("CVAT for images 1.1").

Source:
    https://docs.cvat.ai/docs/other/xml_format
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.sources.annotations import ImageLabels, Mark, sides_of
from cxr_compare.data_prep.sources.image_files import contains, has_file
from cxr_compare.data_prep.sources.label_values import STATE_OF_TEXT
from cxr_compare.data_prep.sources.markup_files import read_xml_file
from cxr_compare.data_prep.sources.outlines import (
    box_around,
    box_of_rectangle,
    ellipse_points,
    pairs_of,
)
from cxr_compare.data_prep.sources.own_table import TABLE
from cxr_compare.data_prep.sources.source_tables import Format
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.tool_files import (
    facts_of,
    read_tool_files,
    value_of_role,
)


def _read_file(source: Source, path: Path) -> Iterator[ImageLabels]:
    for entry in read_xml_file(path, "annotations").findall("image"):
        name = entry.get("name", "")
        image = source.find_image(name, path.name, ("", "images"))
        if image is None:
            continue
        labels = ImageLabels(image, path.name, absent=None)
        with source.reading_mark(image, f"{path.name}: {name}"):
            labels.facts = sides_of(entry.get("width"), entry.get("height"))
        labels.facts |= facts_of({"split": entry.get("subset", "")})
        for number, shape in enumerate(entry, start=1):
            by_model = shape.get("source") == "auto"
            source.counts["shapes were drawn by a model: these are read like the others"] += (
                by_model
            )
            attributes = {str(a.get("name")): a.text or "" for a in shape.findall("attribute")}
            labels.facts = facts_of(attributes) | labels.facts
            with source.reading_mark(image, f"{path.name}: {name}: shape {number}"):
                labels.marks.append(_mark(shape, attributes, labels.facts))
        labels.readers = {mark.reader for mark in labels.marks} or {REFERENCE_READER}
        yield labels


def _mark(shape: Element, attributes: dict[str, str], facts: dict[str, Any]) -> Mark:
    """Return the mark of a shape or tag.

    One without a label or an extent, or with a state that is not understood, is refused.
    """
    label = shape.get("label", "").strip()
    if not label:
        raise InputError(f"a <{shape.tag[:40]}> has no label")
    written = str(value_of_role(attributes, "state") or "").strip()
    state = STATE_OF_TEXT.get(written.lower())
    if written and state is None:
        raise InputError(f"state {written[:40]!r} is not understood")
    reader = str(value_of_role(attributes, "reader") or REFERENCE_READER)
    mark = Mark(label, None, reader, state=state)
    if shape.tag == "tag":
        return mark

    def numbers(*names: str) -> np.ndarray:
        return np.array(finite_or_nan(shape.get(name) for name in names))

    sides = (facts.get("width"), facts.get("height"))
    (degrees,) = finite_or_nan([shape.get("rotation", 0)])
    if shape.tag == "box":
        low, high = numbers("xtl", "ytl"), numbers("xbr", "ybr")
        return mark.with_box(*box_of_rectangle(low, high, sides, degrees))
    if shape.tag == "ellipse":
        centre = numbers("cx", "cy")
        points = ellipse_points(centre, numbers("rx", "ry"))
        return mark.with_box(box_around(points, sides, degrees, centre))
    if shape.tag == "mask":
        low = numbers("left", "top")
        points = np.array([low, low + numbers("width", "height")])
        return mark.with_box(box_around(points, sides))
    if "points" not in shape.attrib:
        raise InputError(f"a <{shape.tag[:40]}> has no box")
    pairs = [pair.split(",") for pair in shape.attrib["points"].split(";")]
    return mark.with_box(box_around(pairs_of(pairs), sides))


def _is_cvat(path: Path) -> bool:
    return path.suffix.lower() == ".xml" and contains(path, (rb"<annotations[\s>]",))


CVAT = Format(
    name="cvat",
    title="CVAT",
    detect=has_file(("*.xml", "*/*.xml"), _is_cvat),
    folder='`annotations.xml` ("CVAT for images 1.1"), images in any folders',
    read=partial(read_tool_files, "cvat", (".xml",), _read_file, _is_cvat),
    options=TABLE.options,
)
