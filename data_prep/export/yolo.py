"""Export of labels in YOLO's format."""

from __future__ import annotations

from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped]

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.export.annotation_folder import (
    AnnotationFolder,
    note_facts_without_columns,
)
from cxr_compare.data_prep.export.content import (
    AnnotationContent,
    ImageEntry,
    refuse_if_inexpressible,
)

_UNLABELLED = "unlabelled/images"


def write_yolo(content: AnnotationContent, folder: AnnotationFolder) -> int:
    """Write labels and boxes in the format of YOLO: one text file for each image.

    The file ``labels/IMAGE.txt`` (``labels/train/IMAGE.txt`` and so on, if train, validation and
    test are exported) has one line for each box: the number of its class (from 0), the x and y of
    the centre, the width and the height of the box. These four numbers are divided by the width or
    height of the image, so they are in [0, 1]. ``data.yaml`` has the names of the classes. An image
    on which all findings are absent gets an empty file. An image gets no file if a finding is
    unknown, uncertain or not fully outlined by boxes on it, because a missing box would mean that
    the finding is absent.

    Args:
        content: Images, labels and boxes to export.
        folder: Folder to write into.

    Returns:
        Number of boxes that were written.

    Raises:
        InputError: On every image some finding is unknown, uncertain or not outlined by boxes, or
            an image with boxes has no known width and height.
    """
    boxes = content.boxes_by_image()
    inexpressible_labels = content.inexpressible_labels()
    refuse_if_inexpressible(content, inexpressible_labels, "yolo")
    is_unlabelled = is_member(content.images["image_id"], inexpressible_labels["image_id"])
    numbers = {name: number for number, name in enumerate(content.classes)}
    n_boxes = 0
    for image, unlabelled in zip(content.entries(), is_unlabelled, strict=True):
        under = f"{image.role}/" if image.role else ""
        # Programs take images in images/ without a label file for negatives.
        images = _UNLABELLED if unlabelled else f"images/{image.role}" if image.role else "images"
        if not unlabelled:
            lines = [
                _line(numbers[name], edges, image) for name, *edges in boxes.get(image.image_id, ())
            ]
            folder.write(f"labels/{under}{image.stem}.txt", "".join(lines))
            n_boxes += len(lines)
        folder.put_image(image, f"{images}/{folder.file_name_of(image)}")
    text = yaml.safe_dump(_description(content), sort_keys=False, allow_unicode=True)
    folder.write("data.yaml", text)
    _note_losses(content, folder, inexpressible_labels)
    return n_boxes


def _line(number: int, edges: list[float], image: ImageEntry) -> str:
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


def _note_losses(
    content: AnnotationContent, folder: AnnotationFolder, inexpressible_labels: pd.DataFrame
) -> None:
    counts = inexpressible_labels["why"].value_counts()
    reasons = ", ".join(f"{count:,} {why}" for why, count in counts.items())
    folder.note_loss(
        inexpressible_labels["image_id"].nunique(),
        f"images have no label file, since a finding is neither present nor absent ({reasons})",
    )
    note_facts_without_columns(content, folder)
    images = content.images
    renamed = int((images["stem"] != images["image_id"]).sum())
    folder.note_loss(renamed, "ids were changed, since they are no file names")
    if folder.mode == "none":
        folder.not_exported.append(
            "images are not exported; programs expect them in images/ beside labels/ (--images png)"
        )
