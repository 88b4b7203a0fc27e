"""Mean IoU (mIoU) of the region of all called boxes and the region of all true boxes."""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.boxes.cut_counts import sums_at_row_cuts
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers


class WeightedMeanIou:
    """Mean IoU of regions at given score cuts, for many weightings of the patients at once.

    Boxes with a score of at least the cut are called. In each image, all called boxes together are
    one region, and all true boxes together are another. The figure is the IoU of the two regions,
    averaged over the images with a lesion. An image without a called box has an IoU of 0.

    Args:
        pairs: Pairs of predicted and true boxes, see `pair_boxes`.
        clusters: Patient of each image as a whole number from 0 to P - 1, shape ``(images,)``.
        n_clusters: Number of patients, P.

    Source:
        Saporta et al. 2022 (CheXlocalize), where the regions are masks.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.boxes.matching import pair_boxes
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> pairs = pair_boxes(truth.assign(x2=12.0, score=0.9), truth, pd.Index(["a"]))
        >>> WeightedMeanIou(pairs, np.array([0]), 1).at(np.ones((1, 1)), np.array([0.5])).round(3)
        array([0.333])
    """

    def __init__(self, pairs: BoxPairs, clusters: Integers, n_clusters: int) -> None:
        self._pairs = pairs
        self._patients = np.asarray(clusters)
        self._n_clusters = n_clusters
        n_images = len(pairs.truth.per_image)
        self._positive = np.flatnonzero(pairs.truth.per_image > 0)
        images = np.arange(n_images + 1)
        self._box_edges = np.searchsorted(pairs.boxes.image, images)
        self._true_edges = np.searchsorted(pairs.truth.image, images)
        self._n_positive = np.bincount(self._patients[self._positive], minlength=n_clusters)
        self._ious: list[Floats] = [np.zeros(1) for _ in self._positive]
        self._cached_sums = cache(self._sums)

    def _iou(self, position: int, n_called: int) -> float:
        """Return the IoU of an image with a lesion if its `n_called` most confident boxes count.

        `position` is the position of the image among the images with a lesion.
        """
        known = self._ious[position]
        if n_called >= len(known):
            image = self._positive[position]
            first = self._box_edges[image]
            called = self._pairs.boxes.corners[first : first + n_called]
            true = slice(self._true_edges[image], self._true_edges[image + 1])
            known = region_ious(called, self._pairs.truth.corners[true])
            self._ious[position] = known
        return float(known[n_called])

    def _sums(self, cut: float) -> scipy.sparse.csr_matrix:
        """Sum the IoU of the images with a lesion of each patient at a cut, shape ``(1, P)``."""
        called = self._pairs.boxes.image[self._pairs.boxes.score >= cut]
        n_called = np.bincount(called, minlength=len(self._pairs.truth.per_image))
        ious = [
            self._iou(position, count)
            for position, count in enumerate(n_called[self._positive].tolist())
        ]
        owners = self._patients[self._positive]
        return scipy.sparse.csr_matrix(np.bincount(owners, ious, self._n_clusters)[None])

    def at(self, weight: Floats, cuts: Floats) -> Floats:
        """Compute the mean IoU for each row of weights at the row's own score cut.

        Args:
            weight: Weights of P patients in R weightings, shape ``(R, P)``.
            cuts: Score cut of each row of `weight`, shape ``(R,)``; NaN where a row has no cut.

        Returns:
            The mean IoU in [0, 1], shape ``(R,)``; NaN in rows without a cut or without a lesion.
        """
        sums = sums_at_row_cuts(self._cached_sums, 1, weight, cuts)[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(sums / (weight @ self._n_positive))


def region_ious(called: Floats, true: Floats) -> Floats:
    """Compute the IoU of the true region with the region of the first 0, 1, 2, ... K called boxes.

    The edges of all boxes divide the plane into cells. Each cell lies entirely inside or entirely
    outside of every box, so the areas of the regions are sums of areas of cells.

    Args:
        called: Called boxes xyxy in px, in the order in which they are added, shape ``(K, 4)``.
        true: True boxes xyxy in px, at least one, shape ``(T, 4)``.

    Returns:
        IoU of the two regions in [0, 1], shape ``(K + 1,)``. Element k is that of the first k
        called boxes; the first element is 0.

    Example:
        >>> true = np.array([[0.0, 0, 4, 2]])
        >>> region_ious(np.array([[0.0, 0, 2, 2], [0, 0, 8, 2]]), true).tolist()
        [0.0, 0.5, 0.5]
    """
    boxes = np.concatenate([called, true])
    columns = np.unique(boxes[:, [0, 2]])
    rows = np.unique(boxes[:, [1, 3]])
    area = np.outer(np.diff(rows), np.diff(columns))
    n_called = len(called)
    # For each cell, the number of called boxes after which the cell is covered; K + 1 if no called
    # box covers it.
    covered_by = np.full(area.shape, n_called + 1)
    is_true = np.zeros(area.shape, dtype=bool)
    left, right = np.searchsorted(columns, boxes[:, [0, 2]]).T
    top, bottom = np.searchsorted(rows, boxes[:, [1, 3]]).T
    cells = [np.s_[t:b, x:y] for t, b, x, y in zip(top, bottom, left, right, strict=True)]
    for number in range(n_called, 0, -1):
        covered_by[cells[number - 1]] = number
    for inside in cells[n_called:]:
        is_true[inside] = True
    n_steps = n_called + 2
    shared = np.cumsum(np.bincount(covered_by[is_true], area[is_true], n_steps))
    extra = np.cumsum(np.bincount(covered_by[~is_true], area[~is_true], n_steps))
    return np.asarray((shared / (area[is_true].sum() + extra))[: n_called + 1])
