"""Writer of Pascal VOC XML: ``Annotations/``, ``ImageSets/Main/`` and, if asked, ``JPEGImages/``.

Edges are written as they are, whole numbers without a point. What VOC has no place for stands in
``<cxr>`` as JSON, and in ``cxr.json`` for the set (`data_prep.formats.cxr_extension`).
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from xml.etree import ElementTree

from data_prep.export.annotation_folder import AnnotationFolder
from data_prep.export.content import MISREAD, AnnotationContent
from data_prep.formats.cxr_extension import KEY, write_objects, write_set_facts
from data_prep.formats.voc import SET_FACTS

PICTURES = "JPEGImages"


def write_voc(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write an XML file an image, named by the image's id, and the lists of the roles.

    Args:
        content: What to write.
        folder: Where to.
    """
    boxes = content.boxes_by_image()
    objects = write_objects(content.images, **content.labels)
    for image, facts in zip(content.entries(), objects, strict=True):
        root = ElementTree.Element("annotation")
        _add(root, "folder", PICTURES)
        name = folder.picture_name(image)
        folder.put_picture(image, f"{PICTURES}/{name}")
        if image.picture is not None and folder.mode == "none":
            name = PurePosixPath(image.picture).name
            _add(root, "path", image.picture)
        _add(root, "filename", name)
        source = _add(root, "source")
        _add(source, "database", content.how["program"])
        _add(source, "annotation", f"{content.how['data_set']} {content.how['labels_id']}")
        if image.width is not None and image.height is not None:
            size = _add(root, "size")
            for tag, value in (("width", image.width), ("height", image.height), ("depth", 1)):
                _add(size, tag, str(value))
        for box in boxes.get(image.image_id, ()):
            _add_object(root, *box)
        _add(root, KEY, json.dumps(facts, allow_nan=False))
        ElementTree.indent(root)
        text = ElementTree.tostring(root, encoding="unicode")
        folder.write(f"Annotations/{image.stem}.xml", text + "\n")
        folder.advance(1)
    for role, chosen in content.by_role():
        if role is not None:
            folder.write(f"ImageSets/Main/{role}.txt", "\n".join(chosen["stem"]) + "\n")
    folder.write(SET_FACTS, json.dumps(write_set_facts(content.targets, **content.how), indent=2))
    _say_what_is_lost(content, folder)


def _say_what_is_lost(content: AnnotationContent, folder: AnnotationFolder) -> None:
    folder.cannot_say(content.unsayable()["image_id"].nunique(), MISREAD)
    edges = content.dataset.boxes[["x1", "y1", "x2", "y2"]]
    broken = int((edges % 1 != 0).any(axis=1).sum())
    folder.cannot_say(broken, "boxes have fractions of a pixel; some programs read whole ones only")
    if not content.dataset.has_pixels:
        folder.cannot.append("there are no pictures: cxr prepare can read back coco only")


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag)
    element.text = text
    return element


def _add_object(
    root: ElementTree.Element, finding: str, x1: float, y1: float, x2: float, y2: float
) -> None:
    element = _add(root, "object")
    _add(element, "name", finding)
    _add(element, "pose", "Unspecified")
    _add(element, "truncated", "0")
    _add(element, "difficult", "0")
    box = _add(element, "bndbox")
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), (x1, y1, x2, y2), strict=True):
        _add(box, tag, _decimal(value))


def _decimal(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
