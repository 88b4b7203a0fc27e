"""Writer of COCO JSON: ``annotations/instances.json``, or a file a role with a split.

What COCO has no place for stands under ``cxr`` in each image and in ``info``
(`data_prep.formats.cxr_extension`), so reading it back loses nothing.
"""

from __future__ import annotations

import json
from typing import Any

from data_prep.export.annotation_folder import AnnotationFolder
from data_prep.export.content import MISREAD, AnnotationContent, ImageEntry
from data_prep.formats.cxr_extension import KEY, write_objects, write_set_facts


def write_coco(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write COCO files; ``file_name`` is the picture's path in the source or in ``images/``.

    Args:
        content: What to write.
        folder: Where to.
    """
    category_ids = {name: number for number, name in enumerate(content.classes, start=1)}
    categories = [
        {"id": number, "name": name, "supercategory": "finding"}
        for name, number in category_ids.items()
    ]
    boxes = content.boxes_by_image()
    first_image = first_box = 1
    for role, images in content.by_role():
        listed, annotations = [], []
        objects = write_objects(images, **content.labels)
        for number, (image, facts) in enumerate(
            zip(content.entries(images), objects, strict=True), start=first_image
        ):
            listed.append({"id": number, **_image(image), KEY: facts})
            for box in boxes.get(image.image_id, ()):
                annotation = _annotation(box, category_ids)
                annotations.append({"id": first_box, "image_id": number, **annotation})
                first_box += 1
            folder.put_picture(image, f"images/{image.picture}")
            folder.advance(1)
        first_image += len(listed)
        known = {"pixels": content.dataset.has_pixels, **content.how, "role": role}
        written = {
            "info": {
                "description": f"{content.dataset.name}, by cxr export",
                KEY: write_set_facts(content.targets, **known),
            },
            "images": listed,
            "annotations": annotations,
            "categories": categories,
        }
        name = "instances.json" if role is None else f"instances_{role}.json"
        text = json.dumps(written, ensure_ascii=False, allow_nan=False)
        folder.write(f"annotations/{name}", text)
    folder.cannot_say(content.unsayable()["image_id"].nunique(), MISREAD)


def _image(image: ImageEntry) -> dict[str, Any]:
    entry: dict[str, Any] = {"file_name": image.picture or image.image_id}
    if image.width is not None and image.height is not None:
        entry |= {"width": image.width, "height": image.height}
    return entry


def _annotation(
    box: tuple[str, float, float, float, float], category_ids: dict[str, int]
) -> dict[str, Any]:
    finding, x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    return {
        "category_id": category_ids[finding],
        "bbox": [x1, y1, width, height],
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [],
    }
