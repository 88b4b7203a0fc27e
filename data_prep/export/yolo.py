"""Write YOLO labels."""

from __future__ import annotations

from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped]

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.export.annotation_folder import AnnotationFolder
from cxr_compare.data_prep.export.content import AnnotationContent, ImageEntry
from cxr_compare.data_prep.formats.cxr_extension import KEY, write_set_facts

_UNLABELLED = "unlabelled/images"


def write_yolo(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write a label file an image, named by the image's id, shares with twelve decimals."""
    boxes = content.boxes_by_image()
    unsayable = content.unsayable()
    silent = is_member(content.images["image_id"], unsayable["image_id"])
    if silent.all():
        first = unsayable.iloc[0]
        raise InputError(
            f"{content.dataset.folder}: yolo can say nothing of it: on each image some finding is "
            f"unknown, uncertain or not fully boxed (image {first['image_id']!r}: "
            f"{first['finding']} is {first['why']}); choose one with --target"
        )
    numbers = {name: number for number, name in enumerate(content.classes)}
    for image, is_silent in zip(content.entries(), silent, strict=True):
        under = f"{image.role}/" if image.role else ""
        # Beside images/, not in it: programs take images there without a label file for negatives.
        images = _UNLABELLED if is_silent else f"images/{image.role}" if image.role else "images"
        if not is_silent:
            lines = [
                _line(numbers[name], edges, image) for name, *edges in boxes.get(image.image_id, ())
            ]
            folder.write(f"labels/{under}{image.stem}.txt", "".join(lines))
        folder.put_image(image, f"{images}/{folder.file_name_of(image)}")
    text = yaml.safe_dump(_description(content), sort_keys=False, allow_unicode=True)
    folder.write("data.yaml", text)
    _lost_in_yolo(content, folder, unsayable)


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
    facts = write_set_facts(content.targets, pixels=True, **content.how)
    names = dict(enumerate(content.classes))
    return {**places, "nc": len(names), "names": names, KEY: facts}


def _lost_in_yolo(
    content: AnnotationContent, folder: AnnotationFolder, unsayable: pd.DataFrame
) -> None:
    counts = unsayable["why"].value_counts()
    said = ", ".join(f"{count:,} {why}" for why, count in counts.items())
    folder.cannot_say(
        unsayable["image_id"].nunique(),
        f"images have no label file, for a finding is not simply there or not ({said})",
    )
    images = content.images
    folder.cannot_say(
        int(images["patient_id"].nunique()),
        "patients cannot be said: read it back with --patient-pattern if the ids tell them",
    )
    if content.facts_known():
        folder.cannot.append(f"cannot say {', '.join(content.facts_known())}")
    renamed = int((images["stem"] != images["image_id"]).sum())
    folder.cannot_say(renamed, "image ids are no file names: changed")
    if folder.mode == "none":
        folder.cannot.append(
            "labels alone: programs look for images in images/ beside labels/ (--images png)"
        )
