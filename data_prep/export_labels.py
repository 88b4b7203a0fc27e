"""Label files for other programs: COCO and YOLO of the reference labels of a data set."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml  # type: ignore[import-untyped]

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError, ShownAsText, counted, require_extra
from cxr_compare.data_prep.base.files import atomic_folder, make_folder, require_free_space
from cxr_compare.data_prep.base.ids import are_rows_of, is_member
from cxr_compare.data_prep.base.tables import FINDING_KEY
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.sources.label_names import Label, name_labels
from cxr_compare.data_prep.sources.words import dictionary, normal_classes


@dataclass(frozen=True, repr=False)
class ExportSummary(ShownAsText):
    """Result of an export: how many images and boxes were written, and what was left out."""

    format: str
    folder: Path
    n_images: int
    n_boxes: int
    n_left_out: int

    def __str__(self) -> str:
        done = f"{counted(self.n_images, 'image')}, {counted(self.n_boxes, 'box')}"
        written = f"{self.folder}: {done} in {self.format} format"
        if not self.n_left_out:
            return written
        return (
            f"{counted(self.n_left_out, 'image', 'were')} left out: a finding is not known or not "
            f"boxed there, which a file of boxes cannot say\n{written}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as values for JSON."""
        return {**vars(self), "folder": str(self.folder)}


def export_labels(
    dataset: DataSet,
    out: Path,
    format: Literal["coco", "yolo"],  # noqa: A002 - the option's own name
    *,
    split: str | None = None,
    target: str | None = None,
    images: Literal["png", "none"] | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> ExportSummary:
    """Write the labels and boxes of a data set in the file format of another program.

    An image of which a finding is unknown, uncertain or boxed in part is left out: in a file of
    boxes it would be a negative. With a split, each role has files of its own. YOLO's programs do
    not read labels without images, which are written for them if the data set has any.
    """
    if format not in ("coco", "yolo") or images not in ("png", "none", None):
        raise InputError(f"format {format}, images {images}: use coco or yolo, and png or none")
    if images is None:
        images = "png" if format == "yolo" and dataset.has_pixels else "none"
    classes = _classes(dataset, target)
    rows = dataset.images[["image_id", "path", "width", "height"]]
    rows = rows[is_member(rows["image_id"], _complete_images(dataset, classes))]
    n_left_out = len(dataset.images) - len(rows)
    rows = rows.assign(role="", name=file_stems(rows["image_id"]) + ".png")
    if split is not None:
        role = dataset.split(split).set_index("image_id")["role"].replace("unused", None)
        rows = rows.assign(role=rows["image_id"].map(role)).dropna(subset="role")
        rows["name"] = rows["role"] + "/" + rows["name"]
    if rows.empty or rows[["width", "height"]].isna().any(axis=None):
        raise InputError(
            f"{dataset.folder}: on each image a finding is unknown, uncertain or not fully boxed, "
            "or the size is not known; choose a target of which more is known"
        )
    boxes = dataset.boxes[is_member(dataset.boxes["finding"], classes)]
    category = boxes["finding"].map(classes.index).astype("int64")  # texts where there is no box
    boxes = boxes.assign(category=category).merge(rows, on="image_id")
    with atomic_folder(out) as folder:
        _require_boxes(dataset, format, rows, boxes, split)
        if images == "png":
            require_extra(f"{out}: images as png", "images", "cv2")
            import cv2

            require_free_space(out, int((rows["width"] * rows["height"]).sum()))
            for image_id, name in zip(rows["image_id"], rows["name"], strict=True):
                pixels = dataset.read_original(image_id)
                path = folder / "images" / name
                make_folder(path.parent)
                path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
                advance(1)
        if format == "yolo":
            _write_yolo(folder, rows, boxes, classes)
        else:
            files = rows["name"] if images == "png" else rows["path"].fillna(rows["name"])
            _write_coco(folder, rows.assign(file_name=files), boxes, classes)
    return ExportSummary(format, out, len(rows), len(boxes), n_left_out)


def _require_boxes(
    dataset: DataSet, format_name: str, rows: pd.DataFrame, boxes: pd.DataFrame, split: str | None
) -> None:
    """Refuse label files without a box, which would call every image negative or say nothing."""
    if boxes.empty:
        raise InputError(
            f"{dataset.folder}: none of the images to write shows a finding with its boxes, and a "
            f"{format_name} file says by boxes alone that a finding is present; choose a target "
            "that has boxes, or use the table of labels of the source"
        )
    if format_name != "coco":
        return
    for role in rows["role"].unique():
        if not (boxes["role"] == role).any():
            raise InputError(
                f"{dataset.folder}: no {role} image of split '{split}' has a box, and a COCO file "
                "without one does not say that its images are negative; use yolo, or leave split "
                "out"
            )


def _classes(dataset: DataSet, target: str | None) -> list[str]:
    """Return the findings to write: those of a target, or all."""
    if target is None:
        classes = sorted(dataset.findings["finding"].unique())
    else:
        classes = list(dataset.target(target).any_of)
    for name in classes:
        if not name.isprintable():
            raise InputError(
                f"{dataset.folder}: finding {name!r} has characters that label files cannot hold; "
                "rename it in the source"
            )
    unusable = {*dictionary()["unknown"], *normal_classes()}
    label_of = name_labels(classes, str(dataset.folder), "class")
    for name in classes:
        if label_of.get(name) != Label(name) or name in unusable:
            raise InputError(
                f"{dataset.folder}: finding '{name}' would be read as another label if it were a "
                "class of a label file; rename it in the source"
            )
    return classes


def _complete_images(dataset: DataSet, classes: list[str]) -> pd.Index:
    """Return the images on which each class is absent, or present with all lesions boxed."""
    findings = dataset.findings[is_member(dataset.findings["finding"], classes)]
    covered = dataset.box_coverage[dataset.box_coverage["coverage"] == "all"]
    is_boxed = (findings["state"] == "present") & are_rows_of(
        findings[FINDING_KEY], covered[FINDING_KEY]
    )
    n_whole = findings.loc[is_boxed | (findings["state"] == "absent"), "image_id"].value_counts()
    return n_whole.index[n_whole == len(classes)]


def file_stems(ids: pd.Series) -> pd.Series:
    """Return a file name for each image; an id that is one keeps it, others may end in a number."""
    fits = ids.str.fullmatch(r"\w[\w.-]{0,149}")
    stems: dict[str, str] = {}
    used_stems: set[str] = set()  # in lower case, which some file systems do not distinguish
    for image_id in [*ids[fits], *ids[~fits]]:
        stem = re.sub(r"[^\w.-]|^[.-]", "_", image_id)[:150]
        while not stem or stem.lower() in used_stems:
            stem = f"{stem}_{len(used_stems)}"
        used_stems.add(stem.lower())
        stems[image_id] = stem
    return ids.map(stems)


def _write_coco(folder: Path, rows: pd.DataFrame, boxes: pd.DataFrame, classes: list[str]) -> None:
    """Write a JSON file for each role."""
    categories = [{"id": n, "name": name} for n, name in enumerate(classes, start=1)]
    for role, images in rows.groupby("role"):
        images = images.assign(id=range(1, len(images) + 1))
        number = images.set_index("image_id")["id"]
        marks = boxes[boxes["role"] == role]
        width, height = marks["x2"] - marks["x1"], marks["y2"] - marks["y1"]
        annotations = pd.DataFrame(
            {
                "id": range(1, len(marks) + 1),
                "image_id": marks["image_id"].map(number),
                "category_id": marks["category"] + 1,
                "bbox": np.column_stack([marks["x1"], marks["y1"], width, height]).tolist(),
                "area": width * height,
                "iscrowd": 0,
            }
        )
        content = {
            "images": images[["id", "file_name", "width", "height"]].to_dict("records"),
            "annotations": annotations.to_dict("records"),
            "categories": categories,
        }
        name = f"instances_{role!s}.json" if role else "instances.json"
        path = make_folder(folder / "annotations") / name
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _write_yolo(folder: Path, rows: pd.DataFrame, boxes: pd.DataFrame, classes: list[str]) -> None:
    """Write a text file for each image, and ``data.yaml``."""
    corners = boxes[EDGES].to_numpy(float)
    sides = boxes[["width", "height"]].to_numpy(float)
    first, last = corners[:, :2] / sides, corners[:, 2:] / sides
    shares = np.hstack([(first + last) / 2, last - first])
    lines: dict[str, list[str]] = {}
    for image_id, category, share in zip(boxes["image_id"], boxes["category"], shares, strict=True):
        numbers = " ".join(f"{number:.12f}" for number in share)
        lines.setdefault(image_id, []).append(f"{category} {numbers}\n")
    for image_id, name in zip(rows["image_id"], rows["name"], strict=True):
        path = (folder / "labels" / name).with_suffix(".txt")
        make_folder(path.parent)
        path.write_text("".join(lines.get(image_id, ())), encoding="utf-8")
    folders = {role or "train": f"images/{role}".rstrip("/") for role in rows["role"].unique()}
    content = {**folders, "names": dict(enumerate(classes))}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
