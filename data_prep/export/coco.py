"""Export of labels as COCO JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.export.annotation_folder import (
    AnnotationFolder,
    note_facts_without_columns,
)
from cxr_compare.data_prep.export.content import AnnotationContent, refuse_if_inexpressible

_UNLABELLED = "image_info_unlabelled.json"


def write_coco(content: AnnotationContent, folder: AnnotationFolder) -> int:
    """Write labels and boxes as COCO JSON, for object detection programs.

    The file is ``annotations/instances.json``. If train, validation and test are exported, there is
    one such file for each of them. The key ``file_name`` of an image is the path of its file below
    ``images/`` in the folder. If images are decoded to PNG or JPEG, it is the name of the decoded
    file, else the path of the original file relative to the folder of the data set's images.

    In these files an image without a box is a negative. An image on which a finding is unknown,
    uncertain or not fully outlined by boxes is therefore not in them, but in
    ``annotations/image_info_unlabelled.json``, which has no annotations.

    Args:
        content: Images, labels and boxes to export.
        folder: Folder to write into.

    Returns:
        Number of boxes that were written.

    Raises:
        InputError: On every image some finding is unknown, uncertain or not outlined by boxes.
    """
    inexpressible_labels = content.inexpressible_labels()
    refuse_if_inexpressible(content, inexpressible_labels, "coco")
    unlabelled_ids = inexpressible_labels["image_id"]
    writer = _CocoWriter(content, folder)
    for role, images in content.by_role():
        labelled = images[~is_member(images["image_id"], unlabelled_ids)]
        if len(labelled):
            name = "instances.json" if role is None else f"instances_{role}.json"
            writer.write(name, labelled, content.boxes_by_image())
    unlabelled = content.images[is_member(content.images["image_id"], unlabelled_ids)]
    if len(unlabelled):
        writer.write(_UNLABELLED, unlabelled, {})
    _note_losses(content, folder, inexpressible_labels, writer)
    return writer.n_boxes


class _CocoWriter:
    """Writer of the COCO files of one export, in which all ids are unique."""

    def __init__(self, content: AnnotationContent, folder: AnnotationFolder) -> None:
        self.n_boxes = 0
        self.n_images = 0
        self.n_renamed = 0  # images whose id is not the name of their file
        self.n_in_files_without_boxes = 0
        self._folder = folder
        self._content = content
        self._category_ids = {name: n for n, name in enumerate(content.classes, start=1)}

    def write(
        self,
        name: str,
        images: pd.DataFrame,
        boxes: dict[str, list[tuple[str, float, float, float, float]]],
    ) -> None:
        """Write one COCO file of some images, and put these images into the folder."""
        folder = self._folder
        listed = list[dict[str, Any]]()
        annotations = list[dict[str, Any]]()
        for image in self._content.entries(images):
            self.n_images += 1
            file = (
                folder.file_name_of(image) if folder.mode == "png" else image.file or image.image_id
            )
            self.n_renamed += PurePosixPath(file).stem != image.image_id
            size = {"width": image.width, "height": image.height} if image.has_size else {}
            listed.append({"id": self.n_images, "file_name": file, **size})
            for finding, *edges in boxes.get(image.image_id, ()):
                self.n_boxes += 1
                annotations.append(self._annotation(finding, edges))
            folder.put_image(image, f"images/{file}")
        if not annotations and name != _UNLABELLED:
            self.n_in_files_without_boxes += len(listed)
        categories = [
            {"id": number, "name": finding, "supercategory": "finding"}
            for finding, number in self._category_ids.items()
        ]
        written = {
            "info": {"description": f"{self._content.dataset.name}, by cxr export"},
            "images": listed,
            "annotations": annotations,
            "categories": categories,
        }
        text = json.dumps(written, ensure_ascii=False, allow_nan=False)
        folder.write(f"annotations/{name}", text)

    def _annotation(self, finding: str, edges: Sequence[float]) -> dict[str, Any]:
        x1, y1, x2, y2 = edges
        return {
            "id": self.n_boxes,
            "image_id": self.n_images,
            "category_id": self._category_ids[finding],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            "segmentation": [],
        }


def _note_losses(
    content: AnnotationContent,
    folder: AnnotationFolder,
    inexpressible_labels: pd.DataFrame,
    writer: _CocoWriter,
) -> None:
    counts = inexpressible_labels["why"].value_counts()
    reasons = ", ".join(f"{count:,} {why}" for why, count in counts.items())
    folder.note_loss(
        inexpressible_labels["image_id"].nunique(),
        f"images are in {_UNLABELLED} without labels, since a finding is neither present nor "
        f"absent ({reasons})",
    )
    folder.note_loss(
        writer.n_in_files_without_boxes,
        "images are in a file without any box; cxr prepare reads their findings as unknown",
    )
    note_facts_without_columns(content, folder)
    folder.note_loss(
        writer.n_renamed,
        "images have another id than the name of their file, which cxr prepare reads as the id",
    )
