"""Export of labels in YOLO's format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import yaml  # type: ignore[import-untyped]

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.export.content import AnnotationContent, LabelFiles
from cxr_compare.data_prep.sources.image_files import IMAGE_SUFFIXES


def yolo_files(content: AnnotationContent, images: str) -> LabelFiles:
    """Make files of labels and boxes in the format of YOLO: one text file for each image.

    The file ``labels/IMAGE.txt`` (``labels/train/IMAGE.txt`` and so on, if train, validation and
    test are exported) has one line for each box: the number of its class (from 0), the x and y of
    the centre, the width and the height of the box. These four numbers are divided by the width or
    height of the image, so they are in [0, 1]; an image with boxes and without a known size is
    refused. ``data.yaml`` has the names of the classes. An image on which all findings are absent
    gets an empty file. An image gets no file if a finding is unknown, uncertain or not fully
    outlined by boxes on it, because a missing box would mean that the finding is absent.
    """
    files = content.begin_files("have no label file")
    boxes = content.boxes_by_image()
    numbers = {name: number for number, name in enumerate(content.classes)}
    rows: Iterable[Any] = content.images.itertuples()
    for image in rows:
        role = f"/{image.role}" if image.role else ""
        if image.is_labelled:
            own = boxes.get(image.image_id, ())
            lines = [_line(numbers[name], edges, image) for name, *edges in own]
            files.texts[f"labels{role}/{image.stem}.txt"] = "".join(lines)
            files.n_boxes += len(lines)
        # Programs take images in images/ without a label file for negatives.
        folder = f"images{role}" if image.is_labelled else "unlabelled/images"
        suffix = PurePosixPath(image.path or "").suffix
        if images == "png":
            suffix = ".png"
        elif suffix.lower() not in IMAGE_SUFFIXES:
            suffix = ".dcm"
        files.images[image.image_id] = f"{folder}/{image.stem}{suffix}"
    description = _description(content)
    files.texts["data.yaml"] = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    renamed = int((content.images["stem"] != content.images["image_id"]).sum())
    files.lose(renamed, "ids were changed, since they are no file names")
    if images == "none":
        files.losses.append(
            "images are not exported; programs expect them in images/ beside labels/: copy them"
        )
    return files


def _line(number: int, edges: list[float], image: Any) -> str:
    if image.width is None or image.height is None:
        raise InputError(f"image {image.image_id!r}: has boxes, but no size; yolo needs it")
    x1, y1, x2, y2 = edges
    width = image.width
    height = image.height
    centre = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height)
    shares = (*centre, (x2 - x1) / width, (y2 - y1) / height)
    return f"{number} " + " ".join(f"{share:.12f}" for share in shares) + "\n"


def _description(content: AnnotationContent) -> dict[str, Any]:
    roles = [role for role, _ in content.by_role() if role in ("train", "val", "test")]
    places = {role: f"images/{role}" for role in roles} or {"train": "images"}
    names = dict(enumerate(content.classes))
    return {**places, "nc": len(names), "names": names}
