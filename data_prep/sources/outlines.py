"""Outlines of lesions in COCO files, polygons and masks, and their agreement with a bbox."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.box_readings import BoxReading, corners_of, values_of
from cxr_compare.data_prep.contracts.boxes import turned_points
from cxr_compare.data_prep.contracts.errors import InputError

_LONGEST_MASK_SIDE = 10_000
_RUNS = re.compile(r"[0-o]*[0-O]")  # compressed runs: "P" to "o" are followed by further digits
_AGREE_PX = 2.0  # px, or share of the image's longer side, within which an outline and a bbox agree
_AGREE_SHARE = 0.01


def require_same_place(
    values: Sequence[float], around: Sequence[float], side: float, reading: BoxReading
) -> None:
    """Refuse a bbox that is not around the outline of the same annotation.

    `values` are the bbox as it is written and `reading` how it is read; `around` are the edges
    ``x1, y1, x2, y2`` of the box around the outline, px; `side` is the longer side of the image,
    px, NaN if unknown.
    """
    written = np.array([values])
    corners = corners_of(written, reading.form, "px", np.full((1, 2), np.nan))
    slack = np.fmax(_AGREE_PX, _AGREE_SHARE * side)
    gap = np.abs(corners - around).max()
    if gap <= slack or np.isnan(gap):  # a number that is missing is a fault of its own
        return
    question = "which of them is right?"
    if np.abs(written - around).max() <= slack:
        question = reading.question("xyxy", "px")
    box, outline = (
        ", ".join(f"{value:g}" for value in numbers)
        for numbers in (values, values_of(np.array([around]), reading.form)[0])
    )
    raise InputError(f"its bbox [{box}] is not around its segmentation ([{outline}]): {question}")


def polygon_points(segmentation: Any) -> np.ndarray | None:
    """Return the points of the polygons of an annotation, ``(N, 2)``; None without polygons."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    numbers: list[float] = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        numbers += finite_or_nan(polygon)
    return np.reshape(numbers, (-1, 2))


def edges_around(points: np.ndarray | None) -> tuple[float, ...] | None:
    """Return the box around points, which may leave its image; None without points."""
    return None if points is None else (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


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


_CIRCLE = np.column_stack(
    [np.cos(np.deg2rad(np.arange(360))), np.sin(np.deg2rad(np.arange(360)))]
)  # (360, 2)
_MOST_DEGREES = 360


def ellipse_points(centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return points of an ellipse, shape ``(360, 2)``."""
    points: np.ndarray = centre + radii * _CIRCLE
    return points


def pairs_of(pairs: Any) -> np.ndarray:
    """Return points x, y as numbers, shape ``(N, 2)``; one of NaN if these are no pairs."""
    if not isinstance(pairs, list) or not pairs:
        return np.full((1, 2), np.nan)
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return np.full((1, 2), np.nan)
    return np.array([finite_or_nan(pair) for pair in pairs])


def box_around(
    points: np.ndarray,
    sides: Sequence[float | None],
    degrees: float = 0.0,
    pivot: np.ndarray | None = None,
) -> list[float]:
    """Return the upright box around the points of a shape, cut at the border of its image.

    The points, ``(N, 2)``, are x, y in px; a NaN gives a box of NaN. The sides are the width and
    height of the image, px; None if unknown. The shape is turned clockwise about the pivot.

    Example:
        >>> box_around(np.array([[10.0, 20], [40, 60]]), (30, None))
        [10.0, 20.0, 30.0, 60.0]
    """
    if degrees and pivot is not None:
        points = turned_points(points, degrees, pivot)
    if not abs(degrees) <= _MOST_DEGREES:
        points = np.full((1, 2), np.nan)
    limits = [side or np.inf for side in sides]
    corners = np.clip([points.min(axis=0), points.max(axis=0)], 0, limits)  # (2, 2)
    return corners.ravel().round(4).tolist()


def box_of_rectangle(
    low: np.ndarray,
    high: np.ndarray,
    sides: Sequence[float | None],
    degrees: float = 0.0,
    pivot: np.ndarray | None = None,
) -> tuple[list[float], bool]:
    """Return the upright box around a turned rectangle, and True if it was turned.

    The rectangle was drawn from `low` to the opposite corner `high` (x, y in px), and is turned
    clockwise about the pivot, or without one about its middle. The sides are as in `box_around`.
    """
    if degrees in (0, 360, -360):
        return [*low.tolist(), *high.tolist()], False
    corners = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    middle = (low + high) / 2
    return box_around(corners, sides, degrees, middle if pivot is None else pivot), True
