"""Write tasks for the annotation tools CVAT and Label Studio."""

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
    """Write ``annotations.xml``, and ``labels.json`` as a task's constructor takes it."""
    (images, classes), system = _marked_images(content, folder), content.how.get("system")
    classes += ["unknown"] * any(marks is None for *_, marks in images)
    text = render_template("cvat.xml.jinja", images=images, classes=classes, system=system)
    folder.write("annotations.xml", text)
    score = {"name": "score", "input_type": "text", "mutable": False, "values": [""]}
    labels = [{"name": name, "attributes": [score] if system else []} for name in classes]
    folder.write("labels.json", json.dumps(labels, indent=2))


def write_label_studio(content: AnnotationContent, folder: AnnotationFolder) -> None:
    """Write ``tasks.json``, and ``labels.xml`` as a project's labelling interface."""
    images, classes = _marked_images(content, folder)
    said = {"images": images, "system": content.how.get("system")}
    place = "" if folder.mode == "none" else "images/"
    folder.write("tasks.json", render_template("label_studio.json.jinja", folder=place, **said))
    folder.write("labels.xml", render_template("label_studio.xml.jinja", classes=classes))


def _marked_images(
    content: AnnotationContent, folder: AnnotationFolder
) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Images with file name and marks (if read), and names of marks; writes `PATIENTS`, too."""
    marks = content.marks()
    listed = []
    for image in content.entries():
        name = (image.file or image.stem) if folder.mode == "none" else folder.file_name_of(image)
        if image.width is None or image.height is None:
            raise InputError(f"image {image.image_id!r}: has no size; annotation tools need it")
        own = marks.get(image.image_id)
        ends = (image.width, image.height)
        if own is not None:  # boxes that were cut out of a map may be wider than the image
            own = [(f, max(x, 0.0), max(y, 0.0), *map(min, to, ends), s) for f, x, y, *to, s in own]
        listed.append((image, name, own))
        folder.put_image(image, f"images/{name}")
    columns = ["patient_id", "study_id", "view", "sex", "age_years", "role"]
    known = content.images.reindex(columns=columns).assign(file=[name for _, name, _ in listed])
    assumed = content.images["patient_id_source"] == "assumed_image"
    known["patient_id"] = known["patient_id"].mask(assumed)
    known = known.rename(columns={"role": "split"}).dropna(axis="columns", how="all")
    folder.write(PATIENTS, known.to_csv(index=False))
    lost = content.unsayable().query("why == 'unknown' and image_id in @marks.keys()")
    told = "images: a finding is unknown, which is read back as absent"
    folder.cannot_say(lost["image_id"].nunique(), told)
    others = sorted(set(content.labels["findings"]["reader"]) - {REFERENCE_READER})
    told = f"readers: the reference alone goes out; --reader takes one of {', '.join(others)}"
    folder.cannot_say(len(others), told)
    kept = {path.stem for path in (folder.dataset.folder / "splits").glob("*.parquet")}
    splits = sorted(kept - {content.how["split"]})
    told = f"splits stay behind; --split takes one of {', '.join(splits)}"
    folder.cannot_say(len(splits), told)
    renamed = int((content.images["stem"] != content.images["image_id"]).sum())
    folder.cannot_say(renamed, "image ids are no file names: changed")
    named = {mark[0] for own in marks.values() for mark in own} - set(content.classes)
    return listed, [*content.classes, *sorted(named)]
