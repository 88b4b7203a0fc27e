"""Outlines of lesions in COCO files, polygons and masks, and their agreement with a bbox."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.box_readings import MANY, corners_of, values_of
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.sources.annotations import LabelFiles
from cxr_compare.data_prep.sources.statements import user_reading

_LONGEST_MASK_SIDE = 10_000
_RUNS = re.compile(r"[0-o]*[0-O]")  # compressed runs: "P" to "o" are followed by further digits
_AGREE_PX = 2.0  # px, or share of the image's longer side, within which an outline and a bbox agree
_AGREE_SHARE = 0.01


@dataclass(frozen=True)
class Outline:
    """A bbox and the box around the outline of the same annotation."""

    image: str
    position: str
    values: tuple[float, ...]  # the bbox as written
    around: tuple[float, ...]  # x1, y1, x2, y2
    side: float  # longer side of the image, px; NaN if unknown


def compare_outlines(files: LabelFiles, outlines: Sequence[Outline]) -> None:
    """Leave out images on which a bbox and its outline are of two places; refuse a tenth of them.

    Raises:
        InputError: A tenth of the annotations contradict themselves.
    """
    reading = user_reading(files.source.options, files.reading)
    if not outlines or reading.unit != "px":
        return
    values = np.array([pair.values for pair in outlines])
    corners = corners_of(values, reading.form, "px", np.full((len(values), 2), np.nan))
    around = np.array([pair.around for pair in outlines])
    slack = np.fmax(_AGREE_PX, _AGREE_SHARE * np.array([pair.side for pair in outlines]))
    apart = np.abs(corners - around).max(axis=1) > slack
    wrong = [pair for pair, is_apart in zip(outlines, apart, strict=True) if is_apart]
    if not wrong:
        return
    if len(wrong) >= MANY * len(outlines) and (len(wrong) > 1 or len(outlines) == 1):
        first = wrong[0]
        as_corners = np.abs(values - around).max(axis=1) <= slack
        question = "which of them is right? Correct the other, or remove it"
        if as_corners.mean() >= 1 - MANY:
            question = reading.question("xyxy", "px")
        box = ", ".join(f"{value:g}" for value in first.values)
        outline = ", ".join(
            f"{value:g}" for value in values_of(np.array([first.around]), reading.form)[0]
        )
        raise InputError(
            f"{files.source.root}: {first.image}: {first.position}: its bbox [{box}] is not around "
            f"its segmentation ([{outline}]), as in {len(wrong)} of "
            f"{counted(len(outlines), 'annotation')}: {question}"
        )
    for pair in wrong:
        files.source.exclude([pair.image], f"{pair.position}: its bbox is not around its outline")


def polygon_edges(segmentation: Any) -> tuple[float, ...] | None:
    """Return the box around the polygons of an annotation, or None for a mask or nothing."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    xs: list[float] = []
    ys: list[float] = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        xs += finite_or_nan(polygon[::2])
        ys += finite_or_nan(polygon[1::2])
    corners = np.array([xs, ys])  # the minimum of numpy keeps a NaN
    return (*corners.min(axis=1).tolist(), *corners.max(axis=1).tolist())


def points_of(segmentation: Any) -> list[tuple[float, float]]:
    """Return the points of the polygons of an annotation; an empty list without polygons."""
    if polygon_edges(segmentation) is None:
        return []
    numbers = [finite_or_nan(polygon) for polygon in segmentation]
    return [point for flat in numbers for point in zip(flat[::2], flat[1::2], strict=True)]


def mask_edges(segmentation: Any, image: dict[str, Any]) -> tuple[float, ...] | None:
    """Return the box around a mask in run-length encoding (RLE) of the image, else None."""
    if not isinstance(segmentation, dict):
        return None
    size = segmentation.get("size")
    counts = segmentation.get("counts")
    if not isinstance(size, list) or not all(type(side) is int for side in size) or len(size) != 2:
        return None
    height, width = size
    stated = [image.get("height") or height, image.get("width") or width]
    if size != stated or not 0 < min(size) <= max(size) <= _LONGEST_MASK_SIDE:
        return None
    from pycocotools import mask  # 0.1 s, which files without masks are read without

    if isinstance(counts, list):
        are_runs = all(type(run) is int and run >= 0 for run in counts)
        if not are_runs or sum(counts) != height * width:
            return None
        encoded = mask.frPyObjects(segmentation, height, width)
    elif isinstance(counts, str) and _RUNS.fullmatch(counts):
        encoded = {"size": size, "counts": counts.encode()}
    else:
        return None
    x, y, box_width, box_height = mask.toBbox(encoded).tolist()
    is_inside = x + box_width <= width and y + box_height <= height
    return (x, y, x + box_width, y + box_height) if is_inside else None
