"""Detections of a batch as tables in original pixels, without torch: for every back end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import EDGES
from data_prep.store.predictions import image_status
from data_prep.store.preprocess import Placement


class PredictedBoxes(NamedTuple):
    """What one batch gives: rows for `data_prep.store.predictions.PredictionWriter.add`.

    Attributes:
        images: ``image_id, status, reason``, one row an image.
        boxes: ``image_id, finding, x1, y1, x2, y2, score``, original px.
    """

    images: pd.DataFrame
    boxes: pd.DataFrame


def sizes_by_image(images: pd.DataFrame) -> pd.DataFrame:
    """``width, height`` by image id, float64, looked up once for all batches.

    Args:
        images: ``image_id, width, height`` of the originals, px.
    """
    return images.set_index("image_id")[["width", "height"]].astype(np.float64)


def boxes_frames(
    image_ids: Sequence[str],
    found: Sequence[Mapping[str, np.ndarray]],
    findings: Sequence[str],
    placement: Callable[[str], Placement],
    sizes: pd.DataFrame,
) -> PredictedBoxes:
    """The detections of a batch in original pixels.

    Args:
        image_ids: B images.
        found: Per image ``boxes`` (N, 4) xyxy, store px, ``scores`` (N,), ``labels`` (N,) from 1,
            and ``finite``, whether the network's output was.
        findings: Names in label order.
        placement: How each image lies in the store, by image id.
        sizes: From `sizes_by_image`; boxes are clipped to them.

    Returns:
        Boxes image by image, in the order of ``found``; those that lay in the letterbox's border
        have no area left and are dropped. An image without a finite output is ``failed``.

    Raises:
        InputError: An image with a finite output has no known size.

    Example:
        >>> one = {"boxes": np.array([[8.0, 8.0, 24.0, 16.0]]), "scores": np.array([0.5]),
        ...        "labels": np.array([1]), "finite": np.array(True)}
        >>> sizes = sizes_by_image(pd.DataFrame({"image_id": ["a"], "width": 64, "height": 64}))
        >>> half = Placement(scale_x=0.5, scale_y=0.5, offset_x=0.0, offset_y=0.0)
        >>> boxes_frames(["a"], [one], ["opacity"], lambda _: half, sizes).boxes.values.tolist()
        [['a', 'opacity', 16.0, 16.0, 48.0, 32.0, 0.5]]
    """
    finite = [bool(image["finite"]) for image in found]
    kept = [image_id for image_id, ok in zip(image_ids, finite, strict=True) if ok]
    images = image_status(image_ids, finite)
    if not kept:
        return PredictedBoxes(images, _as_frame([], np.zeros(0, int), findings, *_NO_BOXES))
    good = [image for image, ok in zip(found, finite, strict=True) if ok]
    boxes = np.concatenate([image["boxes"] for image in good]).astype(np.float64)  # (N, 4)
    scores = np.concatenate([image["scores"] for image in good]).astype(np.float64)
    labels = np.concatenate([image["labels"] for image in good])
    owner = np.repeat(np.arange(len(good)), [len(image["scores"]) for image in good])
    limits = np.tile(_sizes_of(sizes, kept), 2)  # (B, 4)
    places = [placement(image_id) for image_id in kept]
    scales = np.array([(p.scale_x, p.scale_y) * 2 for p in places])
    offsets = np.array([(p.offset_x, p.offset_y) * 2 for p in places])
    boxes = np.clip((boxes - offsets[owner]) / scales[owner], 0.0, limits[owner])  # original px
    shown = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return PredictedBoxes(
        images,
        _as_frame(kept, owner[shown], findings, labels[shown], boxes[shown], scores[shown]),
    )


_NO_BOXES = (np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))


def _as_frame(
    image_ids: Sequence[str],
    owner: np.ndarray,
    findings: Sequence[str],
    labels: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
) -> pd.DataFrame:
    columns = {
        "image_id": pd.array(list(image_ids), dtype="str").take(owner),
        "finding": pd.array(list(findings), dtype="str").take(labels - 1),
        **dict(zip(EDGES, boxes.T, strict=True)),
        "score": scores,
    }
    return pd.DataFrame(columns)


def _sizes_of(sizes: pd.DataFrame, image_ids: Sequence[str]) -> np.ndarray:
    """Width and height of each image, float64 (B, 2)."""
    found = sizes.reindex(list(image_ids)).to_numpy()
    if not np.isfinite(found).all():
        image_id = image_ids[int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])]
        raise InputError(f"images: no width and height for image {image_id!r}; prepare it again")
    return found
