"""Removal of boxes that overlap a more confident box of the same image too much.

The method is greedy non-maximum suppression.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.evaluation.boxes.matching import BoxPairs, pair_boxes
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_LEAST_OVERLAP = 0.1
_LARGEST_OVERLAPS = (None, 0.6, 0.5, 0.4, 0.3, 0.2, _LEAST_OVERLAP)
"""Limits from which validation chooses: largest IoU of two boxes that both stay; None keeps all."""


@dataclass(frozen=True)
class OverlappingBoxes:
    """Predicted boxes of many images, with all pairs of boxes of one image whose IoU exceeds 0.1.

    Attributes:
        boxes: Boxes with ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px) and ``score``.
        stronger: Row in `boxes` of the more confident box of each pair, shape ``(pairs,)``; if the
            scores are equal, the earlier row. Pairs are ordered by the rank of this box.
        weaker: Row in `boxes` of the other box of each pair, shape ``(pairs,)``.
        rank: Rank of the more confident box in its image, 0 for the highest score, rising, shape
            ``(pairs,)``.
        iou: IoU of the two boxes of each pair, in (0.1, 1], shape ``(pairs,)``.

    Example:
        >>> boxes = pd.DataFrame({"image_id": "a", "x1": [0.0, 1.0, 50.0], "y1": 0.0,
        ...     "x2": [10.0, 10.0, 60.0], "y2": 10.0, "score": [0.9, 0.8, 0.3]})
        >>> overlapping = OverlappingBoxes.from_boxes(boxes)
        >>> overlapping.iou.tolist(), overlapping.kept(0.3).tolist()
        ([0.9], [True, False, True])
    """

    boxes: pd.DataFrame
    stronger: Integers
    weaker: Integers
    rank: Integers
    iou: Floats

    @classmethod
    def from_boxes(cls, boxes: pd.DataFrame) -> OverlappingBoxes:
        """Find the pairs of boxes of the same image that overlap; the table may be empty."""
        image = pd.factorize(boxes["image_id"])[0]
        order = np.lexsort((-boxes["score"].to_numpy(np.float64), image))
        image = image[order]
        first = np.flatnonzero(np.append(True, image[1:] != image[:-1])[: len(image)])
        sizes = np.diff(np.append(first, len(image)))
        rank = np.arange(len(image)) - np.repeat(first, sizes)
        later = np.repeat(sizes, sizes) - rank - 1  # boxes of the image that follow each box
        corners = boxes[EDGES].to_numpy(np.float64)[order]
        stronger, weaker = _meeting_pairs(corners, later)  # most pairs of an image lie apart
        iou = box_iou(corners[stronger], corners[weaker])
        overlapping = np.flatnonzero(iou > _LEAST_OVERLAP)
        by_rank = overlapping[np.argsort(rank[stronger[overlapping]], kind="stable")]
        return cls(
            boxes,
            order[stronger[by_rank]],
            order[weaker[by_rank]],
            rank[stronger[by_rank]],
            iou[by_rank],
        )

    def left(self, limit: float | None) -> pd.DataFrame:
        """Return the rows of `boxes` that are `kept`, in their order."""
        if limit is None:
            return self.boxes
        return self.boxes[self.kept(limit)].reset_index(drop=True)

    def kept(self, limit: float | None) -> npt.NDArray[np.bool_]:
        """Return True for boxes that stay after greedy non-maximum suppression, ``(boxes,)``.

        The boxes of an image are visited in the order of falling scores. A box that has not been
        removed itself removes the less confident boxes whose IoU with it exceeds the limit, which
        is at least 0.1; None keeps all boxes.
        """
        stays = np.ones(len(self.boxes), dtype=bool)
        if limit is None:
            return stays
        too_near = self.iou > limit
        stronger = self.stronger[too_near]
        weaker = self.weaker[too_near]
        rank = self.rank[too_near]
        edges = np.flatnonzero(np.append(True, rank[1:] != rank[:-1])[: len(rank)])
        for start, stop in pairwise([*edges.tolist(), len(rank)]):
            removes = stays[stronger[start:stop]]
            stays[weaker[start:stop][removes]] = False
        return stays


def _meeting_pairs(corners: Floats, later: Integers) -> tuple[Integers, Integers]:
    """Return the positions of the earlier and the later box of each pair with an area in common.

    The boxes (xyxy, px) are in order of their images; `later` counts the boxes of the same image
    that follow each box, shape ``(N,)``.
    """
    x1, y1, x2, y2 = np.ascontiguousarray(corners.T)
    earlier: list[Integers] = []
    following: list[Integers] = []
    first = np.arange(len(corners))
    for distance in range(1, int(later.max(initial=0)) + 1):
        first = first[later[first] >= distance]
        second = first + distance
        meet = (x1[first] < x2[second]) & (x1[second] < x2[first])
        near = first[meet]
        far = second[meet]
        meet = (y1[near] < y2[far]) & (y1[far] < y2[near])
        earlier.append(near[meet])
        following.append(far[meet])
    nothing = [np.empty(0, dtype=np.int64)]
    return np.concatenate(earlier or nothing), np.concatenate(following or nothing)


@dataclass(frozen=True)
class OverlapRule:
    """Rule by which the stored boxes of a detector become the boxes that are evaluated and drawn.

    `limit` is the largest IoU of two boxes of an image that both stay; None keeps all boxes.

    Example:
        >>> OverlapRule(0.3).description
        'after removal of those that overlap a more confident one by an IoU above 0.3'
    """

    limit: float | None = None

    @property
    def description(self) -> str:
        """Description of the rule in words, for reports and progress messages."""
        if self.limit is None:
            return "as they are stored"
        overlapping = f"overlap a more confident one by an IoU above {self.limit:g}"
        return f"after removal of those that {overlapping}"


@dataclass(frozen=True)
class StoredPairs:
    """Stored boxes of a detector, paired with the true boxes of their images.

    The pairs are computed once; `left` then selects those of the boxes that stay for any limit of
    overlap.

    Example:
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [10.0],
        ...     "y2": [10.0]})
        >>> boxes = pd.concat([truth.assign(score=0.9), truth.assign(x2=9.0, score=0.8)])
        >>> stored = OverlappingBoxes.from_boxes(boxes)
        >>> pairs = StoredPairs.on_images(stored, truth, pd.Index(["a"]))
        >>> pairs.left(None).iou.tolist(), pairs.left(0.6).iou.tolist()
        ([1.0, 0.9], [1.0])
    """

    stored: OverlappingBoxes
    pairs: BoxPairs

    @classmethod
    def on_images(
        cls, stored: OverlappingBoxes, truth: pd.DataFrame, image_ids: pd.Index
    ) -> StoredPairs:
        """Pair all stored boxes of an image, not only the best 100, with its true boxes."""
        return cls(stored, pair_boxes(stored.boxes, truth, image_ids, most=None))

    def left(self, limit: float | None) -> BoxPairs:
        """Select the pairs of the boxes that stay by `OverlappingBoxes.kept`.

        Of these boxes, the 100 most confident of each image count.
        """
        return self.pairs.subset(self.stored.kept(limit)[self.pairs.boxes.row])


def overlap_candidates(stored: StoredPairs) -> list[tuple[OverlapRule, BoxPairs]]:
    """Remove overlapping boxes by every rule that is tried on the validation images.

    The rules are in the order of preference: of equally good rules the earlier one is chosen. The
    first rule keeps all boxes. The others follow from the largest permitted overlap to the
    smallest.
    """
    return [(OverlapRule(limit), stored.left(limit)) for limit in _LARGEST_OVERLAPS]
