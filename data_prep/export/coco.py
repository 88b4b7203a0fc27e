"""Export of labels as COCO JSON."""

from __future__ import annotations

import json
from typing import Any

from cxr_compare.data_prep.export.annotation_folder import AnnotationFolder
from cxr_compare.data_prep.export.content import MISREAD, AnnotationContent
from cxr_compare.data_prep.formats.cxr_extension import KEY, image_objects, set_object


def write_coco(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write labels and boxes as COCO JSON, for object detection programs.

    The file is ``annotations/instances.json``. If train, validation and test are exported, there is
    one such file for each of them. The key ``file_name`` of an image is the path of its file below
    ``images/`` in the folder. If images are decoded to PNG or JPEG, it is the name of the decoded
    file, else the path of the original file relative to the folder of the data set's images.

    Args:
        content: Images, labels and boxes to export.
        folder: Folder to write into.
    """
    category_ids = {name: number for number, name in enumerate(content.classes, start=1)}
    categories = [
        {"id": number, "name": name, "supercategory": "finding"}
        for name, number in category_ids.items()
    ]
    boxes = content.boxes_by_image()
    first_image = first_box = 1
    for role, images in content.by_role():
        listed = list[dict[str, Any]]()
        annotations = list[dict[str, Any]]()
        objects = image_objects(images, **content.labels)
        for number, (image, facts) in enumerate(
            zip(content.entries(images), objects, strict=True), start=first_image
        ):
            name = folder.file_name_of(image) if folder.renders else image.file or image.image_id
            size = {"width": image.width, "height": image.height} if image.has_size else {}
            listed.append({"id": number, "file_name": name, **size, KEY: facts})
            for finding, x1, y1, x2, y2 in boxes.get(image.image_id, ()):
                width = x2 - x1
                height = y2 - y1
                annotations.append(
                    {
                        "id": first_box + len(annotations),
                        "image_id": number,
                        "category_id": category_ids[finding],
                        "bbox": [x1, y1, width, height],
                        "area": width * height,
                        "iscrowd": 0,
                        "segmentation": [],
                    }
                )
            folder.put_image(image, f"images/{name}")
        first_image = first_image + len(listed)
        first_box = first_box + len(annotations)
        facts_of_set = {"pixels": content.dataset.has_pixels, **content.how, "role": role}
        written = {
            "info": {
                "description": f"{content.dataset.name}, by cxr export",
                KEY: set_object(content.targets, **facts_of_set),
            },
            "images": listed,
            "annotations": annotations,
            "categories": categories,
        }
        name = "instances.json" if role is None else f"instances_{role}.json"
        text = json.dumps(written, ensure_ascii=False, allow_nan=False)
        folder.write(f"annotations/{name}", text)
    folder.note_loss(content.inexpressible_labels()["image_id"].nunique(), MISREAD)
