"""Which predicted boxes hit which true ones: paired once, then matched, sorted by error, pointed.

Average precision, the RSNA score and FROC (`average_precision` and `froc` beside) stand on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, Boxes, box_iou
from cxr_compare.data_prep.contracts.ids import positions
from cxr_compare.evaluation.boxes.box_checks import check_arguments
from cxr_compare.evaluation.boxes.boxes_table import box_arguments
from cxr_compare.evaluation.statistics.arrays import Floats

MAX_BOXES = 100
"""Predicted boxes of an image that count, the most confident."""


LEAST_SCORE = 0.001
"""Boxes below it are not kept, as in every predictions folder."""


IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class _RankedBoxes:
    """Boxes by image and falling score; equal scores in the order of their rows."""

    image: npt.NDArray[np.int64]  # position of the box's image, shape `(N,)`
    # position within the image, 0 the most confident, below `MAX_BOXES`
    rank: npt.NDArray[np.int64]
    score: Floats  # `(N,)`
    corners: Floats  # shape `(N, 4)` xyxy, original px


@dataclass(frozen=True)
class _TrueBoxes:
    """True boxes by image."""

    image: npt.NDArray[np.int64]  # position of the box's image, rising, shape `(N,)`
    corners: Floats  # shape `(N, 4)` xyxy, original px
    per_image: npt.NDArray[np.int64]  # how many an image has, shape `(images,)`


@dataclass(frozen=True)
class BoxPairs:
    """Every predicted with every true box of its image."""

    boxes: _RankedBoxes  # the predicted boxes
    truth: _TrueBoxes  # the true boxes
    box: npt.NDArray[np.int64]  # predicted box of each pair, rising, shape `(pairs,)`
    true: npt.NDArray[np.int64]  # true box of each pair, shape `(pairs,)`
    iou: Floats  # `(pairs,)`


def _rank_boxes(boxes: Boxes, n_images: int, most: int | None) -> _RankedBoxes:
    """Order boxes by image (their labels; -1: not evaluated) and falling score."""
    image = boxes.labels
    order = np.lexsort((-boxes.scores, image))
    order = order[image[order] >= 0]
    ordered = np.asarray(image[order], dtype=np.int64)
    counts = np.bincount(ordered, minlength=n_images)
    rank = np.arange(len(ordered)) - (np.cumsum(counts) - counts)[ordered]
    kept = rank < (most or len(rank) + 1)
    order = order[kept]
    return _RankedBoxes(ordered[kept], rank[kept], boxes.scores[order], boxes.corners[order])


def _true_boxes(truth: pd.DataFrame, image_ids: pd.Index) -> _TrueBoxes:
    """Lay true boxes out by image; those of other images are left out."""
    image = positions(truth["image_id"], image_ids)
    evaluated = image >= 0
    order = np.argsort(image[evaluated], kind="stable")
    image = image[evaluated][order]
    corners = truth[EDGES].to_numpy(np.float64)[evaluated][order]
    return _TrueBoxes(image, corners, np.bincount(image, minlength=len(image_ids)))


def pair_boxes(
    boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index, most: int | None = MAX_BOXES
) -> BoxPairs:
    """Pair predicted (at most so many an image) and true boxes and measure how far they overlap."""
    predicted = Boxes.from_table(boxes, positions(boxes["image_id"], image_ids))
    ranked, true_of = _rank_boxes(predicted, len(image_ids), most), _true_boxes(truth, image_ids)
    first_true = np.cumsum(true_of.per_image) - true_of.per_image
    partners = true_of.per_image[ranked.image]
    box = np.repeat(np.arange(len(ranked.image)), partners)
    within = np.arange(len(box)) - np.repeat(np.cumsum(partners) - partners, partners)
    true = first_true[ranked.image[box]] + within
    iou = box_iou(ranked.corners[box], true_of.corners[true])
    return BoxPairs(ranked, true_of, box, true, iou)


@dataclass(frozen=True)
class BoxMatches:
    """Predicted boxes in falling score with what each of them hit."""

    hit: npt.NDArray[np.bool_]  # whether a box found a true box, shape `(boxes, thresholds)`
    # position of the box's image in the ids that were matched, shape `(boxes,)`
    image: npt.NDArray[np.int64]
    score: Floats  # falling, shape `(boxes,)`
    n_true: npt.NDArray[np.int64]  # true boxes per image, shape `(images,)`

    def __repr__(self) -> str:
        found = ", ".join(map(str, self.hit.sum(axis=0)))
        return (
            f"<Matches of {len(self.score):,} predicted and {self.n_true.sum():,} true boxes: "
            f"{found} found, by IoU threshold>"
        )


def match_boxes(
    boxes: Any,
    truth: Any,
    image_ids: Iterable[Any] | None = None,
    iou_thresholds: Sequence[float] | Floats = IOU_THRESHOLDS,
) -> BoxMatches:
    """Match predicted to true boxes image by image, at several IoU thresholds at once.

    Args:
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score``; or outputs of a detection library, as `cxr_compare.boxes_table` takes them.
            The 100 most confident of an image count. Other images are ignored.
        truth: True boxes, the same without scores. Other images are ignored.
        image_ids: Every image evaluated, with and without boxes, unique, in the order in which
            equal scores of different images are ranked. Left out: boxes and truth are lists with an
            output for each image, in the same order.
        iou_thresholds: A match needs at least this IoU.

    Returns:
        The matches.

    Raises:
        InputError: A value is no box or no score, an id repeats, or ids match nothing.

    Example:
        >>> from cxr_compare import metrics
        >>> corners = {"x1": [0.0], "y1": [0.0], "x2": [4.0], "y2": [2.0]}
        >>> true = pd.DataFrame({"image_id": ["a"], **corners})
        >>> found = true.assign(x2=3.0, score=0.9)
        >>> metrics.match_boxes(found, true, ["a"], [0.5, 0.75, 0.8]).hit.tolist()
        [[True, True, False]]
    """
    boxes, truth, ids = box_arguments(boxes, truth, image_ids)
    ids = check_arguments(boxes, truth, ids)
    return match_pairs(pair_boxes(boxes, truth, ids), iou_thresholds)


def match_pairs(
    pairs: BoxPairs,
    iou_thresholds: Sequence[float] | Floats = IOU_THRESHOLDS,
    *,
    best_only: bool = False,
) -> BoxMatches:
    """Match boxes whose overlaps are known; see `match_boxes`.

    With `best_only`, a box takes the true box that it overlaps most, or none if that is taken:
    the rule of Pascal VOC (Everingham et al. 2010).
    """
    thresholds = np.asarray(iou_thresholds, dtype=np.float64)
    boxes = pairs.boxes
    near = pairs.iou >= thresholds.min(initial=1.0)
    if best_only:  # of each box its best pair, the first of equals
        order = np.lexsort((-pairs.iou, pairs.box))
        near[order[1:][pairs.box[order[1:]] == pairs.box[order[:-1]]]] = False
    hit, _ = greedy_matches(pairs, near, thresholds)
    falling = np.argsort(-boxes.score, kind="stable")
    return BoxMatches(
        hit[falling], boxes.image[falling], boxes.score[falling], pairs.truth.per_image
    )


def greedy_matches(
    pairs: BoxPairs, usable: npt.NDArray[np.bool_], thresholds: Floats
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Let the boxes choose, one rank at a time but all images and thresholds at once.

    Which boxes hit, and which true boxes are taken: ``(boxes, thresholds)`` each.
    """
    rank = pairs.boxes.rank
    hit = np.zeros((len(rank), len(thresholds)), dtype=bool)
    taken = np.zeros((len(pairs.truth.image), len(thresholds)), dtype=bool)
    order = np.flatnonzero(usable)
    order = order[np.argsort(rank[pairs.box[order]], kind="stable")]
    box_of_pair, true_of_pair, iou = pairs.box[order], pairs.true[order], pairs.iou[order]
    pair_rank = rank[box_of_pair]
    edges = np.append(np.flatnonzero(np.append(True, pair_rank[1:] != pair_rank[:-1])), len(iou))
    for start, stop in pairwise(edges):
        box, true = box_of_pair[start:stop], true_of_pair[start:stop]
        if not len(box):
            continue
        open_to = (iou[start:stop, None] >= thresholds) & ~taken[true]  # (pairs, thresholds)
        worth = np.where(open_to, iou[start:stop, None], -1.0)
        first = np.flatnonzero(np.append(True, box[1:] != box[:-1]))
        best = np.maximum.reduceat(worth, first, axis=0)  # (boxes, thresholds)
        of_box = np.cumsum(np.append(True, box[1:] != box[:-1])) - 1
        # Among equal IoU the later true box, as pycocotools.
        place = np.where(open_to & (worth == best[of_box]), np.arange(len(box))[:, None], -1)
        chosen = np.maximum.reduceat(place, first, axis=0)
        which, threshold = np.nonzero(chosen >= 0)
        hit[box[first][which], threshold] = True
        taken[true[chosen[which, threshold]], threshold] = True
    return hit, taken
