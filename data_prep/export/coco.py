"""Export of labels as COCO JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from cxr_compare.data_prep.export.content import AnnotationContent, LabelFiles

_UNLABELLED = "image_info_unlabelled.json"


def coco_files(content: AnnotationContent, images: str) -> LabelFiles:
    """Make COCO JSON of labels and boxes, for object detection programs.

    The file is ``annotations/instances.json``. If train, validation and test are exported, there is
    one such file for each of them. The key ``file_name`` of an image is the path of its file below
    ``images/`` in the folder. If `images` is png, it is the name of the decoded file, else the path
    of the original file relative to the folder of the data set's images.

    In these files an image without a box is a negative. An image on which a finding is unknown,
    uncertain or not fully outlined by boxes is therefore not in them, but in
    ``annotations/image_info_unlabelled.json``, which has no annotations.
    """
    files = content.begin_files(f"are in {_UNLABELLED} without labels")
    category_ids = {name: n for n, name in enumerate(content.classes, start=1)}
    categories = [
        {"id": number, "name": finding, "supercategory": "finding"}
        for finding, number in category_ids.items()
    ]
    parts: dict[str, pd.DataFrame] = {}
    for role, of_role in content.by_role():
        name = "instances.json" if role is None else f"instances_{role}.json"
        parts[name] = of_role[of_role["is_labelled"]]
    parts[_UNLABELLED] = content.images[~content.images["is_labelled"]]
    all_boxes = content.boxes_by_image()
    n_without_boxes = 0
    n_renamed = 0  # images whose id is not the name of their file
    for name, part in parts.items():
        boxes = all_boxes if name != _UNLABELLED else {}
        listed: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        rows: Iterable[Any] = part.itertuples()
        for image in rows:
            file = f"{image.stem}.png" if images == "png" else image.path or image.image_id
            n_renamed += PurePosixPath(file).stem != image.image_id
            files.images[image.image_id] = f"images/{file}"
            number = len(files.images)
            entry = {"id": number, "file_name": file}
            if image.width is not None and image.height is not None:
                entry |= {"width": image.width, "height": image.height}
            listed.append(entry)
            for finding, x1, y1, x2, y2 in boxes.get(image.image_id, ()):
                files.n_boxes += 1
                annotations.append(
                    {
                        "id": files.n_boxes,
                        "image_id": number,
                        "category_id": category_ids[finding],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                        "segmentation": [],
                    }
                )
        if not listed:
            continue
        if not annotations and name != _UNLABELLED:
            n_without_boxes += len(listed)
        written = {
            "info": {"description": f"{content.dataset.name}, by cxr export"},
            "images": listed,
            "annotations": annotations,
            "categories": categories,
        }
        text = json.dumps(written, ensure_ascii=False, allow_nan=False)
        files.texts[f"annotations/{name}"] = text
    files.lose(
        n_without_boxes,
        "images are in a file without any box; cxr prepare reads their findings as unknown",
    )
    files.lose(
        n_renamed,
        "images have another id than the name of their file, which cxr prepare reads as the id",
    )
    return files
