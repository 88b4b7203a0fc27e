"""Format `cvat`: the XML that CVAT exports ("CVAT for images 1.1").

Source:
    https://docs.cvat.ai/docs/other/xml_format
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.image_files import has_match
from cxr_compare.data_prep.sources.markup_files import read_xml_file
from cxr_compare.data_prep.sources.own_table import TABLE
from cxr_compare.data_prep.sources.source_tables import Format
from cxr_compare.data_prep.sources.tool_tables import (
    LabelRow,
    MarkNotes,
    box_cells,
    read_tool_files,
)


def _rows(path: Path, notes: MarkNotes) -> Iterator[LabelRow]:
    root = read_xml_file(path, "annotations")
    for image in root.findall("image"):
        name, width, height = (image.get(key, "") for key in ("name", "width", "height"))
        facts = {"file": name, "split": image.get("subset", "")}
        facts |= {"image_width": width, "image_height": height}
        if not len(image):
            yield facts
        for shape in image:
            by_model = shape.get("source") == "auto"
            notes.counts["shapes were drawn by a model: these are read like the others"] += by_model
            attributes = {str(a.get("name")): a.text or "" for a in shape.findall("attribute")}
            numbers: dict[str, Any] = dict(shape.attrib)
            if "points" in numbers:
                numbers["points"] = re.split("[,;]", numbers["points"])
            elif shape.tag not in ("box", "ellipse", "mask", "tag"):
                raise InputError(f"{path}: image {name!r}: a <{shape.tag[:40]}> has no box")
            box = (
                {}
                if shape.tag == "tag"
                else box_cells(numbers, finite_or_nan([width, height]), notes)
            )
            yield {**attributes, **facts, "label": shape.get("label", ""), **box}


def _looks_like_cvat(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() == ".xml"
    return has_match("annotations.xml", "*/annotations.xml")(path)


CVAT = Format(
    name="cvat",
    title="CVAT",
    detect=_looks_like_cvat,
    folder='`annotations.xml` ("CVAT for images 1.1"), images in any folders',
    read=partial(read_tool_files, "cvat", ".xml", _rows, lambda path: True),
    options=TABLE.options,
)
