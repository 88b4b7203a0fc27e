"""Outputs of a detector as tables, and views of an image that are predicted together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES, box_iou
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.ids import TEXT
from cxr_compare.data_prep.predictions import Part, image_status
from cxr_compare.data_prep.preprocess import Placement

MAX_PER_FINDING = 100
"""Largest number of boxes of a finding and image."""
_SAME_LESION = 0.5
_GRID = 32  # px that the side of a network's input is a multiple of


def original_boxes(
    image_id: str,
    rows: np.ndarray,
    findings: Sequence[str],
    placement: Placement,
    size: Sequence[float] | np.ndarray,
) -> np.ndarray | None:
    """Return the boxes of an image that have an area, in px of the original; None if not finite.

    A row is x1, y1, x2, y2, in px of the square before, score, and number of the finding from 1.
    `size` is width and height of the original.
    """
    if not np.isfinite(rows).all():
        return None
    width, height = size
    if not (math.isfinite(width) and math.isfinite(height)):
        raise InputError(f"images: image '{image_id}' has no width and height; prepare it")
    if not np.isin(rows[:, 5], np.arange(1, len(findings) + 1)).all():
        labels = ", ".join(f"{label:g}" for label in np.unique(rows[:, 5]))
        numbered = ", ".join(f"{n} is '{name}'" for n, name in enumerate(findings, start=1))
        raise InputError(f"model: image '{image_id}': boxes of class {labels}; {numbered}")
    corners = placement.to_original(rows[:, :4], width, height)
    has_area = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    return np.column_stack([corners, rows[:, 4:]])[has_area]


def box_tables(
    image_ids: Sequence[str],
    boxes_of_images: Sequence[np.ndarray],
    findings: Sequence[str],
    placement: Callable[[str], Placement],
    sizes: pd.DataFrame,
) -> Part:
    """Return the table of the boxes of images, in px of the originals, as `original_boxes`.

    `sizes` has width and height of the originals by ``image_id``. An image whose output is not
    finite is failed.
    """
    sides = sizes.reindex(list(image_ids))[["width", "height"]].to_numpy(
        np.float64, na_value=np.nan
    )
    boxes_or_none = [
        original_boxes(image_id, rows, findings, placement(image_id), size)
        for image_id, rows, size in zip(image_ids, boxes_of_images, sides, strict=True)
    ]
    parts = [np.empty((0, 6)) if boxes is None else boxes for boxes in boxes_or_none]
    rows = np.concatenate([np.empty((0, 6)), *parts])
    names = pd.array(list(findings), dtype=TEXT)
    ids = pd.array(list(image_ids), dtype=TEXT).repeat([len(boxes) for boxes in parts])
    table = pd.DataFrame({"image_id": ids, "finding": names.take(rows[:, 5].astype(int) - 1)})
    table[[*EDGES, "score"]] = rows[:, :5]
    is_finite = [boxes is not None for boxes in boxes_or_none]
    return Part(image_status(image_ids, is_finite), {"boxes": table})


def predict_views(
    detect: Callable[[Any], list[np.ndarray]], images: Any, views: Sequence[str]
) -> list[np.ndarray]:
    """Detect on the plain squares and on views of them, and join the boxes of one lesion.

    `images` is a tensor, uint8 ``(B, 1, S, S)``; views are ``flip`` and ``scaleF``. Boxes of one
    finding that overlap by more than half count as one lesion: its box is the mean of the best box
    of each view by score, and its score is the sum of theirs by the number of views.
    """
    size = images.shape[-1]
    by_view = [detect(images), *(_detect_view(detect, images, view) for view in views)]
    joined = []
    for of_image in zip(*by_view, strict=True):
        numbers = np.repeat(np.arange(len(of_image)), [len(rows) for rows in of_image])
        rows = np.concatenate(of_image)
        rows[:, :4] = rows[:, :4].clip(0, size)
        keep = (rows[:, 2:4] > rows[:, :2]).all(axis=1) | ~np.isfinite(rows).all(axis=1)
        joined.append(_join(rows[keep], numbers[keep], len(of_image)))
    return joined


def _detect_view(
    detect: Callable[[Any], list[np.ndarray]], images: Any, view: str
) -> list[np.ndarray]:
    from torch.nn import functional

    size = images.shape[-1]
    if view == "flip":
        boxes_of_view = detect(images.flip(3))
        return [
            np.column_stack([size - r[:, 2], r[:, 1], size - r[:, 0], r[:, 3:]])
            for r in boxes_of_view
        ]
    content = round(size * float(view.removeprefix("scale")))
    canvas = -(-content // _GRID) * _GRID
    before = (canvas - content) // 2
    after = canvas - content - before
    scaled = functional.interpolate(
        images.float(), (content, content), mode="bilinear", antialias=True
    )
    square = functional.pad(scaled.round().clamp(0, 255), (before, after, before, after))
    boxes_of_view = detect(square.to(images.dtype))
    for rows in boxes_of_view:
        rows[:, :4] = (rows[:, :4] - before) * (size / content)
    return boxes_of_view


def _join(rows: np.ndarray, views: np.ndarray, n_views: int) -> np.ndarray:
    if not np.isfinite(rows).all():
        return rows
    order = np.argsort(-rows[:, 4], kind="stable")
    rows, views = rows[order].astype(np.float64), views[order]
    lesions = []
    while len(rows):
        near = (box_iou(rows[0, :4], rows[:, :4]) > _SAME_LESION) & (rows[:, 5] == rows[0, 5])
        near[0] = True
        first = np.unique(views[near], return_index=True)[1]
        best = rows[near][first]
        corners = np.average(best[:, :4], axis=0, weights=best[:, 4])
        lesions.append([*corners, best[:, 4].sum() / n_views, rows[0, 5]])
        rows, views = rows[~near], views[~near]
    joined = np.array(lesions).reshape(-1, 6)
    joined = joined[np.argsort(-joined[:, 4], kind="stable")]
    highest = [
        np.flatnonzero(joined[:, 5] == label)[:MAX_PER_FINDING] for label in np.unique(joined[:, 5])
    ]
    return joined[np.sort(np.concatenate(highest))] if highest else joined
