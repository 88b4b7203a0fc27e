"""Matching of predicted to true boxes: all pairs of an image once, then greedy matching by IoU.

Average precision, FROC and the types of errors are all computed from these pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES, box_iou
from cxr_compare.data_prep.base.ids import positions
from cxr_compare.evaluation.statistics.arrays import Flags, Floats, Integers

MAX_BOXES = 100
"""Largest number of predicted boxes of an image that count; these are the most confident ones."""
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU thresholds over which COCO averages: 0.50, 0.55, ... 0.95."""


@dataclass(frozen=True)
class RankedBoxes:
    """Predicted boxes, ordered by image and then by falling score.

    Boxes of equal score keep the order of their rows.

    Attributes:
        image: Index of the image of each box in the list of image ids, rising, shape ``(N,)``.
        rank: Rank of each box in its image, 0 for the most confident, shape ``(N,)``.
        score: Score of each box, shape ``(N,)``.
        corners: Corners xyxy in original px, shape ``(N, 4)``.
    """

    image: Integers
    rank: Integers
    score: Floats
    corners: Floats

    @cached_property
    def falling(self) -> Integers:
        """Positions of the boxes by falling score, ``(N,)``; ties keep their order."""
        return np.argsort(-self.score, kind="stable")


@dataclass(frozen=True)
class TrueBoxes:
    """True boxes, ordered by image.

    Attributes:
        image: Index of the image of each box in the list of image ids, rising, shape ``(T,)``.
        corners: Corners xyxy in original px, shape ``(T, 4)``.
        per_image: Number of true boxes of each image, shape ``(images,)``.
    """

    image: Integers
    corners: Floats
    per_image: Integers


@dataclass(frozen=True)
class BoxPairs:
    """Pairs of every predicted box with every true box of the same image.

    Attributes:
        box: Position in `boxes` of the predicted box of each pair, rising, shape ``(pairs,)``.
        true: Position in `truth` of the true box of each pair, shape ``(pairs,)``.
        iou: IoU of the two boxes of each pair, in [0, 1], shape ``(pairs,)``.
        on_crowd: Largest share of the area of each predicted box that lies on one of COCO's crowds,
            shape ``(N,)``.

    Examples:
        >>> truth = pd.DataFrame({"image_id": ["a", "a"], "x1": [0.0, 2.0], "y1": [0.0, 0.0],
        ...     "x2": [4.0, 6.0], "y2": [2.0, 2.0]})
        >>> pairs = pair_boxes(truth[:1].assign(score=0.9), truth, pd.Index(["a"]))
        >>> pairs.box.tolist(), pairs.true.tolist(), pairs.iou.round(3).tolist()
        ([0, 0], [0, 1], [1.0, 0.333])
    """

    boxes: RankedBoxes
    truth: TrueBoxes
    box: Integers
    true: Integers
    iou: Floats
    on_crowd: Floats


def _rank_boxes(boxes: pd.DataFrame, image_ids: pd.Index) -> RankedBoxes:
    """Order predicted boxes by image and falling score, at most `MAX_BOXES` of each image.

    Boxes of images that are not in `image_ids` are left out.
    """
    of_image = positions(boxes["image_id"], image_ids)
    scores = boxes["score"].to_numpy(np.float64)
    order = np.lexsort((-scores, of_image))
    order = order[of_image[order] >= 0]
    image = np.asarray(of_image[order], dtype=np.int64)
    rank = _rank_within(image, len(image_ids))
    counted = rank < MAX_BOXES
    row = order[counted]
    corners = boxes[EDGES].to_numpy(np.float64)
    return RankedBoxes(image[counted], rank[counted], scores[row], corners[row])


def _rank_within(image: Integers, n_images: int) -> Integers:
    """Return the rank of each box in its image, from 0, for boxes that are ordered by image."""
    counts = np.bincount(image, minlength=n_images)
    return np.asarray(np.arange(len(image)) - (np.cumsum(counts) - counts)[image])


def _true_boxes(truth: pd.DataFrame, chosen: Flags, image_ids: pd.Index) -> TrueBoxes:
    """Order the chosen true boxes by image, and leave out those of images not in `image_ids`."""
    image = positions(truth["image_id"], image_ids)
    order = np.argsort(image, kind="stable")
    row = order[(image[order] >= 0) & chosen[order]]
    corners = truth[EDGES].to_numpy(np.float64)[row]
    return TrueBoxes(image[row], corners, np.bincount(image[row], minlength=len(image_ids)))


def pair_boxes(boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index) -> BoxPairs:
    """Pair each predicted box with all true boxes of its image, and compute their IoU.

    Both tables have ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px), that of predicted
    boxes also ``score``, and may be empty. Boxes of images that are not in `image_ids` (each once)
    are ignored. The `MAX_BOXES` most confident predicted boxes of an image count. A true box whose
    optional column ``crowd`` is True is in no pair: `on_crowd` says what lies on it.

    Examples:
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> pair_boxes(truth.assign(x2=3.0, score=0.9), truth, pd.Index(["a", "b"])).iou.tolist()
        [0.75]
    """
    ranked = _rank_boxes(boxes, image_ids)
    is_crowd = np.zeros(len(truth), dtype=bool)
    if "crowd" in truth:
        is_crowd = truth["crowd"].eq(True).to_numpy(bool)
    true_boxes = _true_boxes(truth, ~is_crowd, image_ids)
    box, true = _all_pairs(ranked, true_boxes)
    iou = box_iou(ranked.corners[box], true_boxes.corners[true])
    on_crowd = np.zeros(len(ranked.image))
    if is_crowd.any():
        on_crowd = _share_on_crowds(ranked, _true_boxes(truth, is_crowd, image_ids))
    return BoxPairs(ranked, true_boxes, box, true, iou, on_crowd)


def _all_pairs(boxes: RankedBoxes, truth: TrueBoxes) -> tuple[Integers, Integers]:
    """Return the positions of the predicted and the true box of each pair of one image."""
    first_of_image = np.cumsum(truth.per_image) - truth.per_image
    partners = truth.per_image[boxes.image]
    box = np.repeat(np.arange(len(boxes.image)), partners)
    within_image = np.arange(len(box)) - np.repeat(np.cumsum(partners) - partners, partners)
    return box, first_of_image[boxes.image[box]] + within_image


def _share_on_crowds(boxes: RankedBoxes, crowds: TrueBoxes) -> Floats:
    """Return the largest share of each predicted box that lies on one crowd, shape ``(N,)``.

    An edge is COCO's start plus side, so that shares equal those of pycocotools to the last bit.
    """
    of_pair, crowd = _all_pairs(boxes, crowds)
    start, other = boxes.corners[of_pair, :2], crowds.corners[crowd, :2]
    side = boxes.corners[of_pair, 2:] - start
    other_side = crowds.corners[crowd, 2:] - other
    across = np.minimum(start + side, other + other_side) - np.maximum(start, other)
    shared, area = np.maximum(across, 0).prod(axis=1), side.prod(axis=1)
    share = np.divide(shared, area, out=np.zeros_like(shared), where=area > 0)
    largest = np.zeros(len(boxes.image))
    np.maximum.at(largest, of_pair, share)
    return largest


@dataclass(frozen=True)
class BoxMatches:
    """Predicted boxes, ordered by falling score, and the IoU thresholds at which each one matches.

    Attributes:
        hit: True where a box matches a true box at an IoU threshold, shape ``(boxes, thresholds)``.
        is_ignored: True where a box matches none and lies on a crowd, so that it is neither true
            nor false, shape ``(boxes, thresholds)``.
        image: Index of the image of each box in the list of image ids, shape ``(boxes,)``.
        score: Score of each box, falling, shape ``(boxes,)``.
        n_true: Number of true boxes of each image, shape ``(images,)``.
    """

    hit: Flags
    is_ignored: Flags
    image: Integers
    score: Floats
    n_true: Integers


def match_pairs(
    pairs: BoxPairs, iou_thresholds: Sequence[float] | Floats = IOU_THRESHOLDS
) -> BoxMatches:
    """Match predicted to true boxes at several IoU thresholds at once, from pairs of them.

    The predicted boxes of an image are matched in the order of falling scores. Each is matched to
    the unmatched true box with which its IoU is highest, if that IoU reaches the threshold. A box
    without a match is ignored if its share on a crowd reaches the threshold: a crowd is matched
    after all other true boxes, and any number of times.

    Source:
        Lin et al. 2014 (COCO).
    """
    thresholds = np.asarray(iou_thresholds, dtype=np.float64)
    boxes = pairs.boxes
    usable = pairs.iou >= thresholds.min(initial=1.0)
    hit = greedy_matches(pairs, usable, thresholds).hit
    is_ignored = ~hit & (pairs.on_crowd[:, None] >= thresholds)
    falling = boxes.falling
    return BoxMatches(
        hit[falling],
        is_ignored[falling],
        boxes.image[falling],
        boxes.score[falling],
        pairs.truth.per_image,
    )


class GreedyMatches(NamedTuple):
    """Result of matching predicted to true boxes, at each IoU threshold.

    Attributes:
        hit: True for predicted boxes that match a true box, shape ``(boxes, thresholds)``.
        taken: True for true boxes that a predicted box matches, shape ``(true boxes, thresholds)``.
    """

    hit: Flags
    taken: Flags


def greedy_matches(pairs: BoxPairs, usable: Flags, thresholds: Floats) -> GreedyMatches:
    """Match predicted boxes to true boxes in the order of falling scores.

    The most confident boxes of all images are matched first, all at once, then the second most
    confident boxes, and so on. Each box is matched to the unmatched true box with which its IoU is
    highest, if that IoU reaches the threshold. Among true boxes of equal IoU the later one is
    matched, as pycocotools does. Only pairs that are `usable`, shape ``(pairs,)``, may match.

    Source:
        Lin et al. 2014 (COCO).

    Examples:
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = pd.concat([truth.assign(score=0.9), truth.assign(score=0.8)])
        >>> pairs = pair_boxes(boxes, truth, pd.Index(["a"]))
        >>> matches = greedy_matches(pairs, np.array([True, True]), np.array([0.5]))
        >>> matches.hit.tolist(), matches.taken.tolist()
        ([[True], [False]], [[True]])
    """
    rank = pairs.boxes.rank
    hit = np.zeros((len(rank), len(thresholds)), dtype=bool)
    is_taken = np.zeros((len(pairs.truth.image), len(thresholds)), dtype=bool)
    order = np.flatnonzero(usable)
    order = order[np.argsort(rank[pairs.box[order]], kind="stable")]
    box_of_pair = pairs.box[order]
    true_of_pair = pairs.true[order]
    iou_of_pair = pairs.iou[order]
    rank_of_pair = rank[box_of_pair]
    is_first_of_rank = np.append(True, rank_of_pair[1:] != rank_of_pair[:-1])
    edges = np.append(np.flatnonzero(is_first_of_rank), len(order))
    for start, stop in pairwise(edges):
        box = box_of_pair[start:stop]
        true = true_of_pair[start:stop]
        iou = iou_of_pair[start:stop, None]
        if not len(box):
            continue
        is_free = (iou >= thresholds) & ~is_taken[true]  # (pairs, thresholds)
        free_iou = np.where(is_free, iou, -1.0)
        is_first_of_box = np.append(True, box[1:] != box[:-1])
        first = np.flatnonzero(is_first_of_box)
        best = np.maximum.reduceat(free_iou, first, axis=0)  # (boxes, thresholds)
        number_of_box = np.cumsum(is_first_of_box) - 1
        is_best = is_free & (free_iou == best[number_of_box])
        pair = np.where(is_best, np.arange(len(box))[:, None], -1)
        chosen = np.maximum.reduceat(pair, first, axis=0)  # of pairs of equal IoU the later one
        row, threshold = np.nonzero(chosen >= 0)
        hit[box[first][row], threshold] = True
        is_taken[true[chosen[row, threshold]], threshold] = True
    return GreedyMatches(hit, is_taken)
