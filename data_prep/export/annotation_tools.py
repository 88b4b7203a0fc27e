"""Export of tasks for the annotation tools CVAT and Label Studio."""

from __future__ import annotations

import json
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.export.annotation_folder import AnnotationFolder
from cxr_compare.data_prep.export.content import AnnotationContent
from cxr_compare.data_prep.export.templates import render_template
from cxr_compare.data_prep.formats.annotation_tools import PATIENTS


def write_cvat(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write files with which the annotation tool CVAT shows images with their labels and boxes.

    They are ``annotations.xml`` and ``labels.json``, which CVAT needs to make a task.

    Args:
        content: Images, labels and boxes to export.
        folder: Folder to write into.

    Raises:
        InputError: The width and height of an image are unknown.
    """
    images, classes = _marked_images(content, folder)
    system = content.how.get("system")
    if any(marks is None for *_, marks in images):
        classes.append("unknown")
    text = render_template("cvat.xml.jinja", images=images, classes=classes, system=system)
    folder.write("annotations.xml", text)
    score = {"name": "score", "input_type": "text", "mutable": False, "values": [""]}
    labels = [{"name": name, "attributes": [score] if system else []} for name in classes]
    folder.write("labels.json", json.dumps(labels, indent=2))


def write_label_studio(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write files with which the annotation tool Label Studio shows images with labels and boxes.

    They are ``tasks.json`` and ``labels.xml``, the labelling interface of a project.

    Args:
        content: Images, labels and boxes to export.
        folder: Folder to write into.

    Raises:
        InputError: The width and height of an image are unknown.
    """
    images, classes = _marked_images(content, folder)
    values = {"images": images, "system": content.how.get("system")}
    image_folder = "" if folder.mode == "none" else "images/"
    folder.write(
        "tasks.json", render_template("label_studio.json.jinja", folder=image_folder, **values)
    )
    folder.write("labels.xml", render_template("label_studio.xml.jinja", classes=classes))


def _marked_images(
    content: AnnotationContent, folder: AnnotationFolder
) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Write the images and `PATIENTS`; return the images with their marks, and the classes."""
    marks = content.marks()
    listed = []
    for image in content.entries():
        name = (image.file or image.stem) if folder.mode == "none" else folder.file_name_of(image)
        if image.width is None or image.height is None:
            raise InputError(f"image {image.image_id!r}: has no size; annotation tools need it")
        image_marks = marks.get(image.image_id)
        if image_marks is not None:
            image_marks = [_clip(mark, image.width, image.height) for mark in image_marks]
        listed.append((image, name, image_marks))
        folder.put_image(image, f"images/{name}")
    columns = ["patient_id", "study_id", "view", "sex", "age_years", "role"]
    known = content.images.reindex(columns=columns).assign(file=[name for _, name, _ in listed])
    assumed = content.images["patient_id_source"] == "assumed_image"
    known["patient_id"] = known["patient_id"].mask(assumed)
    known = known.rename(columns={"role": "split"}).dropna(axis="columns", how="all")
    folder.write(PATIENTS, known.to_csv(index=False))
    inexpressible = content.inexpressible_labels()
    is_unknown = (inexpressible["why"] == "unknown") & inexpressible["image_id"].isin(list(marks))
    n_unknown = inexpressible.loc[is_unknown, "image_id"].nunique()
    folder.note_loss(n_unknown, "images have an unknown finding, which is read back as absent")
    others = sorted(set(content.labels["findings"]["reader"]) - {REFERENCE_READER})
    text = f"readers are not exported; --reader takes one of {', '.join(others)}"
    folder.note_loss(len(others), text)
    stored = {path.stem for path in (folder.dataset.folder / "splits").glob("*.parquet")}
    splits = sorted(stored - {content.how["split"]})
    text = f"splits are not exported; --split takes one of {', '.join(splits)}"
    folder.note_loss(len(splits), text)
    renamed = int((content.images["stem"] != content.images["image_id"]).sum())
    folder.note_loss(renamed, "ids were changed, since they are no file names")
    named = {mark[0] for image_marks in marks.values() for mark in image_marks}
    named -= set(content.classes)
    return listed, [*content.classes, *sorted(named)]


def _clip(mark: tuple[Any, ...], width: int, height: int) -> tuple[Any, ...]:
    """Clip a mark to the image, since a box that was cut out of a map may be larger."""
    finding, x1, y1, x2, y2, score = mark
    return (finding, max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height), score)
