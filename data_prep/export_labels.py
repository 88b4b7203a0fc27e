"""Label files for other programs: COCO and YOLO of the reference labels of a data set."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import yaml  # type: ignore[import-untyped]

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError, ShownAsText, counted
from cxr_compare.data_prep.base.files import atomic_folder, make_folder, require_free_space
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.images.refused_files import DECODER_CRASHED
from cxr_compare.data_prep.parallel import map_images
from cxr_compare.data_prep.pixels import ImageFile

FORMATS = ("coco", "yolo")


@dataclass(frozen=True, repr=False)
class ExportSummary(ShownAsText):
    """Result of an export: how many images and boxes were written, and what was left out."""

    format: str
    folder: Path
    n_images: int
    n_boxes: int
    n_left_out: int
    next_steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        left_out = ""
        if self.n_left_out:
            images = counted(self.n_left_out, "image", "were")
            left_out = (
                f"{images} left out: a finding is not known or not boxed there, which a file of "
                "boxes cannot say\n"
            )
        done = f"{counted(self.n_images, 'image')}, {counted(self.n_boxes, 'box')}"
        return f"{left_out}{self.folder}: {done} in {self.format} format"

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as values for JSON."""
        numbers = {"n_images": self.n_images, "n_boxes": self.n_boxes}
        folder = {"format": self.format, "folder": str(self.folder)}
        return {**folder, **numbers, "n_left_out": self.n_left_out}


def export(
    dataset: DataSet,
    out: str | Path,
    format: str,  # noqa: A002 - the option's own name
    *,
    split: str | None = None,
    target: str | None = None,
    images: str | None = None,
    workers: int = 1,
    advance: Callable[[int], None] = lambda n: None,
) -> ExportSummary:
    """Write the labels and boxes of a data set in the file format of another program.

    An image of which a finding is unknown, uncertain or boxed in part is left out: in a file of
    boxes it would be a negative. With a split, each role has files of its own. `images` is ``png``
    or ``none``.
    """
    out = Path(out)
    if format not in FORMATS:
        raise InputError(f"--format {format}: use one of {', '.join(FORMATS)}")
    if images is None:  # programs cannot read YOLO files without images
        images = "png" if format == "yolo" and dataset.has_pixels else "none"
    if images not in ("png", "none") or (images == "png" and not dataset.has_pixels):
        raise InputError(f"--images {images}: use png, if the data set has image files, or none")
    classes = _classes(dataset, target)
    rows = dataset.images[["image_id", "path", "width", "height"]]
    rows = rows[is_member(rows["image_id"], _complete_images(dataset, classes))]
    rows = rows.assign(role="all", stem=file_stems(rows["image_id"]))
    if split is not None:
        role = dataset.split(split).set_index("image_id")["role"]
        rows = rows.assign(role=rows["image_id"].map(role))
        rows = rows[is_member(rows["role"], ["train", "val", "test"])]
    if rows.empty or rows[["width", "height"]].isna().any(axis=None):
        raise InputError(f"{dataset.folder}: no image is labelled whole, or a size is not known")
    boxes = dataset.boxes
    is_chosen = is_member(boxes["finding"], classes) & is_member(
        boxes["image_id"], rows["image_id"]
    )
    boxes = boxes[is_chosen]
    if images == "png":
        require_free_space(out, int((rows["width"] * rows["height"]).sum()))
    with atomic_folder(out) as folder:
        write = _write_coco if format == "coco" else _write_yolo
        names = write(folder, rows, boxes, classes, has_images=images == "png")
        if images == "png":
            tasks = [(dataset.image_file(i), folder / name) for i, name in names.items()]
            for error in map_images(_write_png, tasks, workers, on_crash=_crashed):
                if error:
                    raise InputError(error)
                advance(1)
    n_left_out = len(dataset.images) - len(rows) if split is None else 0
    return ExportSummary(format, out, len(rows), len(boxes), n_left_out)


def _classes(dataset: DataSet, target: str | None) -> list[str]:
    """Return the findings to write: those of a target, else all that are boxed, else all."""
    if target is not None:
        return list(dataset.target(target).any_of)
    findings = sorted(set(dataset.findings["finding"]))
    boxed = [name for name in findings if (dataset.boxes["finding"] == name).any()]
    return boxed or findings


def _complete_images(dataset: DataSet, classes: list[str]) -> pd.Index:
    """Return the images on which each class is absent, or present with all lesions boxed."""
    findings = dataset.findings[is_member(dataset.findings["finding"], classes)]
    key = ["image_id", "finding"]
    complete = dataset.box_coverage.loc[dataset.box_coverage["coverage"] == "all", key]
    boxed = findings.merge(complete, on=key, how="left", indicator="_where")["_where"] == "both"
    is_whole = (findings["state"] == "absent").to_numpy() | (
        (findings["state"] == "present").to_numpy() & boxed.to_numpy()
    )
    n_whole = findings.loc[is_whole, "image_id"].value_counts()
    return pd.Index(n_whole.index[n_whole == len(classes)])


def file_stems(ids: pd.Series) -> list[str]:
    """Return a file name for each image; an id with other characters gets a number."""
    plain = [re.sub(r"[^\w.-]", "_", image_id) for image_id in ids]
    repeated = pd.Series(plain).str.lower().duplicated(keep=False)
    pairs = zip(plain, repeated, strict=True)
    return [f"{name}_{n}" if is_twice else name for n, (name, is_twice) in enumerate(pairs)]


def _write_coco(
    folder: Path, rows: pd.DataFrame, boxes: pd.DataFrame, classes: list[str], *, has_images: bool
) -> dict[str, str]:
    """Write a JSON file for each role, and return the name of each image's file."""
    number = {name: n for n, name in enumerate(classes, start=1)}
    names: dict[str, str] = {}
    for role, own in rows.groupby("role", sort=False):
        entries: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        by_image: dict[Any, Any] = dict(tuple(boxes.groupby("image_id")))
        row: Any
        for image_number, row in enumerate(own.itertuples(), start=1):
            name = f"{row.stem}.png"
            names[row.image_id] = f"images/{name}"
            file_name = name if has_images or not isinstance(row.path, str) else row.path
            size = {"width": int(row.width), "height": int(row.height)}
            entries.append({"id": image_number, "file_name": file_name, **size})
            for box in by_image.get(row.image_id, boxes[:0]).itertuples():
                x1, y1, x2, y2 = (float(getattr(box, edge)) for edge in EDGES)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_number,
                        "category_id": number[box.finding],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": n, "name": name} for name, n in number.items()]
        content = {"images": entries, "annotations": annotations, "categories": categories}
        file = "instances.json" if role == "all" else f"instances_{role}.json"
        text = json.dumps(content, ensure_ascii=False)
        (make_folder(folder / "annotations") / file).write_text(text, encoding="utf-8")
    return names


def _write_yolo(
    folder: Path, rows: pd.DataFrame, boxes: pd.DataFrame, classes: list[str], *, has_images: bool
) -> dict[str, str]:
    """Write a text file for each image, and return the name of each image's file."""
    del has_images
    names: dict[str, str] = {}
    by_image: dict[Any, Any] = dict(tuple(boxes.groupby("image_id")))
    row: Any
    for row in rows.itertuples():
        part = "" if row.role == "all" else f"/{row.role}"
        lines = []
        for box in by_image.get(row.image_id, boxes[:0]).itertuples():
            corners = np.array([getattr(box, edge) for edge in EDGES], dtype=float)
            centre, size = (corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]
            sides = np.array([row.width, row.height] * 2, dtype=float)
            shares = np.concatenate([centre, size]) / sides
            numbers = " ".join(f"{share:.12f}" for share in shares)
            lines.append(f"{classes.index(box.finding)} {numbers}\n")
        label_folder = make_folder(folder / f"labels{part}")
        (label_folder / f"{row.stem}.txt").write_text("".join(lines), encoding="utf-8")
        names[row.image_id] = f"images{part}/{row.stem}.png"
    places = {role: f"images/{role}" for role in rows["role"].unique() if role != "all"}
    content = {**(places or {"train": "images"}), "names": dict(enumerate(classes))}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return names


def _write_png(task: tuple[ImageFile, Path]) -> str:
    """Write one image; return the error message, if any."""
    file, target = task
    try:
        pixels = file.read()
    except InputError as error:
        return str(error)
    make_folder(target.parent)
    target.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return ""


def _crashed(task: tuple[ImageFile, Path]) -> str:
    return f"{task[0].path}: {DECODER_CRASHED}"
