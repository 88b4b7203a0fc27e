"""Matching of predicted to true boxes: all pairs of an image once, then greedy matching by IoU.

Average precision, FROC, the RSNA score and the types of errors all start from these pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, Boxes, box_iou
from cxr_compare.data_prep.contracts.ids import positions
from cxr_compare.evaluation.boxes.box_checks import check_arguments
from cxr_compare.evaluation.boxes.boxes_table import box_arguments
from cxr_compare.evaluation.statistics.arrays import Floats

MAX_BOXES = 100
"""Number of predicted boxes of an image that count, the most confident."""
LEAST_SCORE = 0.001
"""Boxes with a lower score are not stored, as in every predictions folder."""
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""IoU thresholds of COCO's average precision."""


@dataclass(frozen=True)
class RankedBoxes:
    """Predicted boxes by image and falling score; equal scores in the order of their rows.

    Attributes:
        image: Position of each box's image in the image ids, rising, shape ``(N,)``.
        rank: Rank within the image, 0 for the most confident, shape ``(N,)``.
        score: Score, shape ``(N,)``.
        corners: Corners xyxy in original px, shape ``(N, 4)``.
        row: Row of each box in the table that it comes from, shape ``(N,)``.
    """

    image: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    score: Floats
    corners: Floats
    row: npt.NDArray[np.int64]

    @cached_property
    def falling(self) -> npt.NDArray[np.int64]:
        """Positions of the boxes in falling score, equal scores in their order, shape ``(N,)``."""
        return np.argsort(-self.score, kind="stable")


@dataclass(frozen=True)
class TrueBoxes:
    """True boxes by image.

    Attributes:
        image: Position of each box's image in the image ids, rising, shape ``(T,)``.
        corners: Corners xyxy in original px, shape ``(T, 4)``.
        per_image: Number of true boxes of each image, shape ``(images,)``.
    """

    image: npt.NDArray[np.int64]
    corners: Floats
    per_image: npt.NDArray[np.int64]


@dataclass(frozen=True)
class BoxPairs:
    """Every predicted box with every true box of its image, P pairs in all.

    Attributes:
        boxes: The predicted boxes.
        truth: The true boxes.
        box: Predicted box of each pair, rising, shape ``(P,)``.
        true: True box of each pair, shape ``(P,)``.
        iou: IoU of each pair, shape ``(P,)``.
    """

    boxes: RankedBoxes
    truth: TrueBoxes
    box: npt.NDArray[np.int64]
    true: npt.NDArray[np.int64]
    iou: Floats

    def subset(self, kept: npt.NDArray[np.bool_], most: int | None = MAX_BOXES) -> BoxPairs:
        """Return the pairs of some of the predicted boxes, without computing an IoU again.

        Args:
            kept: True for the predicted boxes that are kept, shape ``(N,)``.
            most: Number of kept boxes of an image that count, the most confident; None for all.

        Returns:
            The pairs of the kept boxes, as `pair_boxes` makes them of these boxes alone.

        Example:
            >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
            ...     "y2": [2.0]})
            >>> boxes = pd.concat([truth.assign(score=0.9), truth.assign(x2=3.0, score=0.4)])
            >>> pairs = pair_boxes(boxes, truth, pd.Index(["a"]))
            >>> pairs.subset(np.array([False, True])).iou.tolist()
            [0.75]
        """
        boxes = self.boxes
        chosen = np.flatnonzero(kept)
        rank = _rank_within(boxes.image[chosen], len(self.truth.per_image))
        if most is not None:
            chosen = chosen[rank < most]
            rank = rank[rank < most]
        number = np.full(len(boxes.image), -1)
        number[chosen] = np.arange(len(chosen))
        of_chosen = number[self.box] >= 0
        ranked = RankedBoxes(
            boxes.image[chosen],
            rank,
            boxes.score[chosen],
            boxes.corners[chosen],
            boxes.row[chosen],
        )
        box = number[self.box[of_chosen]]
        return BoxPairs(ranked, self.truth, box, self.true[of_chosen], self.iou[of_chosen])


def _rank_boxes(boxes: Boxes, n_images: int, most: int | None) -> RankedBoxes:
    """Order boxes by image (their labels; -1 is not evaluated) and falling score."""
    order = np.lexsort((-boxes.scores, boxes.labels))
    order = order[boxes.labels[order] >= 0]
    image = np.asarray(boxes.labels[order], dtype=np.int64)
    rank = _rank_within(image, n_images)
    counted = rank < (most or len(rank) + 1)
    row = order[counted]
    return RankedBoxes(image[counted], rank[counted], boxes.scores[row], boxes.corners[row], row)


def _rank_within(image: npt.NDArray[np.int64], n_images: int) -> npt.NDArray[np.int64]:
    """Return the rank of each box within its image, for boxes that are ordered by image."""
    counts = np.bincount(image, minlength=n_images)
    return np.asarray(np.arange(len(image)) - (np.cumsum(counts) - counts)[image])


def _true_boxes(truth: pd.DataFrame, image_ids: pd.Index) -> TrueBoxes:
    """Order true boxes by image; those of other images are left out."""
    image = positions(truth["image_id"], image_ids)
    evaluated = image >= 0
    order = np.argsort(image[evaluated], kind="stable")
    image = image[evaluated][order]
    corners = truth[EDGES].to_numpy(np.float64)[evaluated][order]
    return TrueBoxes(image, corners, np.bincount(image, minlength=len(image_ids)))


def pair_boxes(
    boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: pd.Index, most: int | None = MAX_BOXES
) -> BoxPairs:
    """Pair the predicted and true boxes of each image and compute their IoU.

    Args:
        boxes: Predicted boxes with ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px) and
            ``score``. May be empty; boxes of other images are ignored.
        truth: True boxes, the same without scores.
        image_ids: Every image evaluated, unique, shape ``(images,)``.
        most: Number of predicted boxes of an image that count, the most confident; None for all.

    Returns:
        All pairs.

    Example:
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> pair_boxes(truth.assign(x2=3.0, score=0.9), truth, pd.Index(["a", "b"])).iou.tolist()
        [0.75]
    """
    predicted = Boxes.from_table(boxes, positions(boxes["image_id"], image_ids))
    ranked = _rank_boxes(predicted, len(image_ids), most)
    true_boxes = _true_boxes(truth, image_ids)
    first_of_image = np.cumsum(true_boxes.per_image) - true_boxes.per_image
    partners = true_boxes.per_image[ranked.image]
    box = np.repeat(np.arange(len(ranked.image)), partners)
    within_image = np.arange(len(box)) - np.repeat(np.cumsum(partners) - partners, partners)
    true = first_of_image[ranked.image[box]] + within_image
    iou = box_iou(ranked.corners[box], true_boxes.corners[true])
    return BoxPairs(ranked, true_boxes, box, true, iou)


@dataclass(frozen=True)
class BoxMatches:
    """Predicted boxes in falling score, each with the IoU thresholds at which it matches.

    Attributes:
        hit: True where a box matches a true box, shape ``(boxes, thresholds)``.
        image: Position of each box's image in the image ids, shape ``(boxes,)``.
        score: Falling scores, shape ``(boxes,)``.
        n_true: Number of true boxes of each image, shape ``(images,)``.
    """

    hit: npt.NDArray[np.bool_]
    image: npt.NDArray[np.int64]
    score: Floats
    n_true: npt.NDArray[np.int64]

    def __repr__(self) -> str:
        hits = ", ".join(map(str, self.hit.sum(axis=0)))
        return (
            f"<Matches of {len(self.score):,} predicted and {self.n_true.sum():,} true boxes: "
            f"{hits} found, by IoU threshold>"
        )


def match_boxes(
    boxes: Any,
    truth: Any,
    image_ids: Iterable[Any] | None = None,
    iou_thresholds: Sequence[float] | Floats = IOU_THRESHOLDS,
) -> BoxMatches:
    """Match predicted to true boxes image by image, at several IoU thresholds at once.

    Boxes choose in falling score. Each takes the free true box of highest IoU if that reaches the
    threshold.

    Args:
        boxes: Predicted boxes: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px),
            ``score``; or outputs of a detection library, as `cxr_compare.boxes_table` takes them.
            The 100 most confident of an image count. Other images are ignored.
        truth: True boxes, the same without scores. Other images are ignored.
        image_ids: Every image evaluated, with and without boxes, unique, in the order in which
            equal scores of different images are ranked. Left out: boxes and truth are lists with an
            output for each image, in the same order.
        iou_thresholds: Least IoU of a match, in (0, 1], shape ``(thresholds,)``.

    Returns:
        The matches.

    Raises:
        InputError: A value is no box or no score, an id repeats, or ids match nothing.

    Source:
        Lin et al. 2014 (COCO).

    Example:
        >>> import pandas as pd
        >>> from cxr_compare import metrics
        >>> corners = {"x1": [0.0], "y1": [0.0], "x2": [4.0], "y2": [2.0]}
        >>> truth = pd.DataFrame({"image_id": ["a"], **corners})
        >>> predicted = truth.assign(x2=3.0, score=0.9)
        >>> metrics.match_boxes(predicted, truth, ["a"], [0.5, 0.75, 0.8]).hit.tolist()
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
    """Match boxes that are paired already, see `match_boxes`.

    Args:
        pairs: Predicted with true boxes.
        iou_thresholds: Least IoU of a match, shape ``(thresholds,)``.
        best_only: Let a box take the true box that it overlaps most, or none if that is taken: the
            rule of Pascal VOC.

    Returns:
        The matches.

    Source:
        Lin et al. 2014; Everingham et al. 2010 for `best_only`.

    Example:
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = pd.concat([truth.assign(score=0.9), truth.assign(score=0.8)])
        >>> match_pairs(pair_boxes(boxes, truth, pd.Index(["a"])), [0.5]).hit.tolist()
        [[True], [False]]
    """
    thresholds = np.asarray(iou_thresholds, dtype=np.float64)
    boxes = pairs.boxes
    usable = pairs.iou >= thresholds.min(initial=1.0)
    if best_only:  # the best pair of each box, the first of equals
        order = np.lexsort((-pairs.iou, pairs.box))
        usable[order[1:][pairs.box[order[1:]] == pairs.box[order[:-1]]]] = False
    hit = greedy_matches(pairs, usable, thresholds).hit
    falling = boxes.falling
    return BoxMatches(
        hit[falling], boxes.image[falling], boxes.score[falling], pairs.truth.per_image
    )


class GreedyMatches(NamedTuple):
    """Boxes that match and true boxes that are taken, at each IoU threshold.

    Attributes:
        hit: True for predicted boxes that match, shape ``(boxes, thresholds)``.
        taken: True for true boxes that are matched, shape ``(true boxes, thresholds)``.
    """

    hit: npt.NDArray[np.bool_]
    taken: npt.NDArray[np.bool_]


def greedy_matches(
    pairs: BoxPairs, usable: npt.NDArray[np.bool_], thresholds: Floats
) -> GreedyMatches:
    """Let boxes choose true boxes in falling score, one rank at a time but all images at once.

    Args:
        pairs: Predicted with true boxes.
        usable: True for the pairs that may match, shape ``(pairs,)``.
        thresholds: Least IoU of a match, shape ``(thresholds,)``.

    Returns:
        The boxes that match, and the true boxes that are taken.

    Source:
        Lin et al. 2014; among equal IoU the later true box is taken, as by pycocotools.
    """
    rank = pairs.boxes.rank
    hit = np.zeros((len(rank), len(thresholds)), dtype=bool)
    taken = np.zeros((len(pairs.truth.image), len(thresholds)), dtype=bool)
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
        is_free = (iou >= thresholds) & ~taken[true]  # (pairs, thresholds)
        free_iou = np.where(is_free, iou, -1.0)
        is_first_of_box = np.append(True, box[1:] != box[:-1])
        first = np.flatnonzero(is_first_of_box)
        best = np.maximum.reduceat(free_iou, first, axis=0)  # (boxes, thresholds)
        number_of_box = np.cumsum(is_first_of_box) - 1
        is_best = is_free & (free_iou == best[number_of_box])
        pair = np.where(is_best, np.arange(len(box))[:, None], -1)
        chosen = np.maximum.reduceat(pair, first, axis=0)  # the later of equal pairs
        row, threshold = np.nonzero(chosen >= 0)
        hit[box[first][row], threshold] = True
        taken[true[chosen[row, threshold]], threshold] = True
    return GreedyMatches(hit, taken)
