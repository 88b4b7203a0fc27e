"""Detections of a batch as tables in original pixels, without torch: for every back end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from data_prep.contracts.boxes import Boxes
from data_prep.contracts.errors import InputError
from data_prep.store.predictions import image_status
from data_prep.store.preprocess import Placement


class PredictedBoxes(NamedTuple):
    """What one batch gives: rows for `data_prep.store.predictions.PredictionWriter.add`."""

    images: pd.DataFrame  # image_id, status, reason: one row an image
    boxes: pd.DataFrame  # image_id, finding, x1, y1, x2, y2, score; original px


def sizes_by_image(images: pd.DataFrame) -> pd.DataFrame:
    """``width, height`` of the originals, px, float64, by image id; once for all batches."""
    return images.set_index("image_id")[["width", "height"]].astype(np.float64)


def boxes_frames(
    image_ids: Sequence[str],
    detected: Sequence[Boxes | None],
    findings: Sequence[str],
    placement: Callable[[str], Placement],
    sizes: pd.DataFrame,
) -> PredictedBoxes:
    """The detections of a batch in original pixels.

    Args:
        image_ids: B images.
        detected: The boxes of each in store px, labels from 1; `None` where the network's output
            is not finite.
        findings: Names in label order.
        placement: How each image lies in the store, by image id.
        sizes: From `sizes_by_image`; boxes are clipped to them.

    Returns:
        Boxes image by image, in their order; those that lay in the letterbox's border have no
        area left and are dropped. An image without a finite output is ``failed``.

    Raises:
        InputError: An image with a finite output has no known size.

    Example:
        >>> one = Boxes(np.array([[8.0, 8.0, 24.0, 16.0]]), np.array([0.5]), np.array([1]))
        >>> sizes = sizes_by_image(pd.DataFrame({"image_id": ["a"], "width": 64, "height": 64}))
        >>> half = Placement(scale_x=0.5, scale_y=0.5, offset_x=0.0, offset_y=0.0)
        >>> boxes_frames(["a"], [one], ["opacity"], lambda _: half, sizes).boxes.values.tolist()
        [['a', 'opacity', 16.0, 16.0, 48.0, 32.0, 0.5]]
    """
    pairs = zip(image_ids, detected, strict=True)
    finite = [(image_id, boxes) for image_id, boxes in pairs if boxes is not None]
    names = [image_id for image_id, _ in finite]
    corners, scores, labels = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0, np.int64)]
    for (image_id, boxes), (width, height) in zip(finite, _sizes_of(sizes, names), strict=True):
        corners.append(placement(image_id).to_original(boxes.corners, width, height))
        scores.append(boxes.scores)
        labels.append(boxes.labels)
    owner = np.repeat(np.arange(len(names)), [len(boxes) for _, boxes in finite])
    original = Boxes(*(np.concatenate(part) for part in (corners, scores, labels)))
    has_area = (original.corners[:, 2:] > original.corners[:, :2]).all(axis=1)
    original = original[has_area]
    table = original.to_table(
        pd.array(names, dtype="str").take(owner[has_area]),
        pd.array(list(findings), dtype="str").take(original.labels - 1),
    )
    return PredictedBoxes(image_status(image_ids, [boxes is not None for boxes in detected]), table)


def _sizes_of(sizes: pd.DataFrame, image_ids: Sequence[str]) -> np.ndarray:
    """Width and height of each image, float64 (B, 2)."""
    wanted = sizes.reindex(list(image_ids)).to_numpy()
    if not np.isfinite(wanted).all():
        image_id = image_ids[int(np.flatnonzero(~np.isfinite(wanted).all(axis=1))[0])]
        raise InputError(f"images: no width and height for image {image_id!r}; prepare it again")
    return wanted
