"""Format `cvat`: the XML that CVAT exports ("CVAT for images 1.1").

Source:
    https://docs.cvat.ai/docs/other/xml_format
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.formats.annotation_tools import (
    LabelRow,
    MarkNotes,
    box_cells,
    label_tables_of_tool,
)
from cxr_compare.data_prep.formats.folder_scan import has_match
from cxr_compare.data_prep.formats.label_values import finite_or_nan
from cxr_compare.data_prep.formats.table import TABLE
from cxr_compare.data_prep.formats.voc import parse_xml


def _cvat_rows(path: Path, notes: MarkNotes) -> Iterator[LabelRow]:
    root = parse_xml(path, "annotations")
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


CVAT = replace(
    TABLE,
    name="cvat",
    title="CVAT",
    detect=has_match("annotations.xml", "*/annotations.xml"),
    folder='`annotations.xml` ("CVAT for images 1.1"), images in any folders',
    make_label_tables=partial(label_tables_of_tool, suffix=".xml", read=_cvat_rows),
)
