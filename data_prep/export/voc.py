"""Export of labels as Pascal VOC XML."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.export.annotation_folder import AnnotationFolder
from cxr_compare.data_prep.export.content import MISREAD, AnnotationContent
from cxr_compare.data_prep.export.templates import render_template
from cxr_compare.data_prep.formats.cxr_extension import image_objects, set_object
from cxr_compare.data_prep.formats.voc import SET_FACTS

_IMAGES_FOLDER = "JPEGImages"


def write_voc(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write labels and boxes as Pascal VOC XML, one file for each image.

    The name of a file is the image id. Text files list the images of train, validation and test, if
    these are exported, and ``trainval`` all images that are not for testing.

    Args:
        content: Images, labels and boxes to export.
        folder: Folder to write into.
    """
    boxes = content.boxes_by_image()
    objects = image_objects(content.images, **content.labels)
    for image, facts in zip(content.entries(), objects, strict=True):
        name = folder.file_name_of(image)
        path = None
        folder.put_image(image, f"{_IMAGES_FOLDER}/{name}")
        if image.file is not None and folder.mode == "none":
            name = PurePosixPath(image.file).name
            path = image.file
        text = render_template(
            "voc.xml.jinja",
            image=image,
            folder=_IMAGES_FOLDER,
            name=name,
            path=path,
            how=content.how,
            boxes=boxes.get(image.image_id, ()),
            facts=json.dumps(facts, allow_nan=False),
        )
        folder.write(f"Annotations/{image.stem}.xml", text + "\n")
    for role, chosen in content.by_role():
        if role is not None:
            _write_list(role, chosen, folder)
    # Readers of VOC start from this list: all images that are not for testing.
    is_listed = ~is_member(content.images["role"], ["test", "unused"])
    _write_list("trainval", content.images[is_listed], folder)
    folder.write(SET_FACTS, json.dumps(set_object(content.targets, **content.how), indent=2))
    _note_losses(content, folder)


def _write_list(name: str, images: pd.DataFrame, folder: AnnotationFolder) -> None:
    folder.write(f"ImageSets/Main/{name}.txt", "".join(f"{stem}\n" for stem in images["stem"]))


def _note_losses(content: AnnotationContent, folder: AnnotationFolder) -> None:
    folder.note_loss(content.inexpressible_labels()["image_id"].nunique(), MISREAD)
    edges = content.dataset.boxes[["x1", "y1", "x2", "y2"]]
    broken = int((edges % 1 != 0).any(axis=1).sum())
    folder.note_loss(
        broken, "boxes have fractions of a pixel; some programs read whole pixels only"
    )
    if not content.dataset.has_pixels:
        folder.not_exported.append(
            "the data set has no images, so cxr prepare can read back the format coco only"
        )
