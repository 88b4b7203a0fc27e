"""Which predicted and true boxes share an image, and how far they overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.schemas import EDGES
from data_prep.contracts.text_lookup import positions
from evaluation.statistics.ranking import Floats, Integers

MAX_BOXES = 100


def box_iou(boxes: Floats, others: Floats) -> Floats:
    """Intersection over union of pairs of boxes.

    Example:
        >>> box_iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]])).round(3).tolist()
        [0.333]
    """
    # As pycocotools computes it (from x, y, width, height), to agree with it to the last bit.
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    other_width, other_height = (others[:, 2:] - others[:, :2]).T
    right = np.minimum(boxes[:, 0] + width, others[:, 0] + other_width)
    bottom = np.minimum(boxes[:, 1] + height, others[:, 1] + other_height)
    across = np.maximum(right - np.maximum(boxes[:, 0], others[:, 0]), 0)
    down = np.maximum(bottom - np.maximum(boxes[:, 1], others[:, 1]), 0)
    shared = across * down
    return shared / (width * height + other_width * other_height - shared)


@dataclass(frozen=True)
class RankedBoxes:
    """Boxes by image and falling score; equal scores in the order of their rows.

    Attributes:
        image: Position of the box's image, shape ``(N,)``.
        rank: Position within the image, 0 the most confident, below `MAX_BOXES`.
        score: Shape ``(N,)``.
        corners: Shape ``(N, 4)`` xyxy, original px.
    """

    image: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    score: Floats
    corners: Floats


@dataclass(frozen=True)
class TrueBoxes:
    """True boxes by image.

    Attributes:
        image: Position of the box's image, rising, shape ``(N,)``.
        corners: Shape ``(N, 4)`` xyxy, original px.
        per_image: How many an image has, shape ``(images,)``.
    """

    image: npt.NDArray[np.int64]
    corners: Floats
    per_image: npt.NDArray[np.int64]


@dataclass(frozen=True)
class BoxPairs:
    """Every predicted with every true box of its image.

    Attributes:
        boxes: The predicted boxes.
        true_image: Position of each true box's image, rising, shape ``(true boxes,)``.
        true_corners: Shape ``(true boxes, 4)`` xyxy, original px.
        n_true: True boxes per image, shape ``(images,)``.
        box: Predicted box of each pair, rising, shape ``(pairs,)``.
        true: True box of each pair, shape ``(pairs,)``.
        iou: Shape ``(pairs,)``.
    """

    boxes: RankedBoxes
    true_image: npt.NDArray[np.int64]
    true_corners: Floats
    n_true: npt.NDArray[np.int64]
    box: npt.NDArray[np.int64]
    true: npt.NDArray[np.int64]
    iou: Floats


def rank_boxes(image: Integers, score: Floats, corners: Floats, n_images: int) -> RankedBoxes:
    """Order boxes by image and falling score, the 100 most confident of an image.

    Args:
        image: Position of each box's image, -1 for one that is not judged, shape ``(N,)``.
        score: Shape ``(N,)``.
        corners: Shape ``(N, 4)``.
        n_images: How many images there are.
    """
    order = np.lexsort((-score, image))
    order = order[image[order] >= 0]
    ordered = np.asarray(image[order], dtype=np.int64)
    counts = np.bincount(ordered, minlength=n_images)
    rank = np.arange(len(ordered)) - (np.cumsum(counts) - counts)[ordered]
    kept = rank < MAX_BOXES
    order = order[kept]
    return RankedBoxes(ordered[kept], rank[kept], score[order], corners[order])


def true_boxes(truth: pd.DataFrame, image_ids: pd.Index) -> TrueBoxes:
    """Lay true boxes out by image; those of other images are left out.

    Args:
        truth: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px).
        image_ids: Every image judged, unique.
    """
    image = image_ids.get_indexer(pd.Index(truth["image_id"]))
    judged = image >= 0
    order = np.argsort(image[judged], kind="stable")
    image = image[judged][order]
    corners = truth[EDGES].to_numpy(np.float64)[judged][order]
    return TrueBoxes(image, corners, np.bincount(image, minlength=len(image_ids)))


def pair_ranked(boxes: RankedBoxes, truth: TrueBoxes) -> BoxPairs:
    """Pair boxes of the same images and measure how far they overlap."""
    first_true = np.cumsum(truth.per_image) - truth.per_image
    partners = truth.per_image[boxes.image]
    box = np.repeat(np.arange(len(boxes.image)), partners)
    within = np.arange(len(box)) - np.repeat(np.cumsum(partners) - partners, partners)
    true = first_true[boxes.image[box]] + within
    iou = box_iou(boxes.corners[box], truth.corners[true])
    return BoxPairs(boxes, truth.image, truth.corners, truth.per_image, box, true, iou)


def pair_boxes(boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index) -> BoxPairs:
    """Pair predicted and true boxes of the images judged.

    Args:
        boxes: ``image_id``, corners in original px, ``score``; other images are ignored.
        truth: The same columns without ``score``.
        image_ids: Every image judged, unique.

    Example:
        >>> corners = {"x1": [0.0], "y1": [0.0], "x2": [4.0], "y2": [2.0]}
        >>> true = pd.DataFrame({"image_id": ["a"], **corners})
        >>> pair_boxes(true.assign(score=0.9, x2=2.0), true, pd.Index(["a"])).iou.tolist()
        [0.5]
    """
    image = positions(boxes["image_id"], image_ids)
    score = boxes["score"].to_numpy(np.float64)
    ranked = rank_boxes(image, score, boxes[EDGES].to_numpy(np.float64), len(image_ids))
    return pair_ranked(ranked, true_boxes(truth, image_ids))
