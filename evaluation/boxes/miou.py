"""Mean IoU (mIoU) of the region of all called boxes and the region of all true boxes."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.boxes.cut_counts import sums_at_row_cuts
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_CELLS_AT_ONCE = 1_000_000
"""Largest number of cells between the edges of boxes that are in memory at once."""


class WeightedMeanIou:
    """Mean IoU of regions at given score cuts, for many weightings of the patients at once.

    Boxes with a score of at least the cut are called. In each image, all called boxes together are
    one region, and all true boxes together are another. The figure is the IoU of the two regions,
    averaged over the images with a lesion. An image without a called box has an IoU of 0.

    Args:
        pairs: Pairs of predicted and true boxes of the same image, as `pair_boxes` makes them.
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
        self._n_clusters = n_clusters
        n_images = len(pairs.truth.per_image)
        self._positive = np.flatnonzero(pairs.truth.per_image > 0)
        self._owners = np.asarray(clusters)[self._positive]
        self._n_positive = np.bincount(self._owners, minlength=n_clusters)
        self._first_box = np.searchsorted(pairs.boxes.image, np.arange(n_images))[self._positive]
        self._first_true = np.searchsorted(pairs.truth.image, self._positive)
        # IoU of each image with a lesion by its number of called boxes, as far as it was computed.
        self._ious = np.zeros((len(self._positive), 1))
        self._known = np.zeros(len(self._positive), dtype=np.int64)
        self._cached_sums = cache(self._sums)

    def _sums(self, cut: float) -> scipy.sparse.csr_matrix:
        """Sum the IoU of the images with a lesion of each patient at a cut, shape ``(1, P)``."""
        called = self._pairs.boxes.image[self._pairs.boxes.score >= cut]
        n_called = np.bincount(called, minlength=len(self._pairs.truth.per_image))[self._positive]
        self._compute_ious(n_called)
        ious = self._ious[np.arange(len(n_called)), n_called]
        return scipy.sparse.csr_matrix(np.bincount(self._owners, ious, self._n_clusters)[None])

    def _compute_ious(self, n_called: Integers) -> None:
        """Compute the IoU of images of which more boxes are called than at every earlier cut.

        `n_called` is the number of called boxes of each image with a lesion.
        """
        most = int(n_called.max(initial=0))
        if most >= self._ious.shape[1]:
            wider = np.zeros((len(self._ious), most + 1))
            wider[:, : self._ious.shape[1]] = self._ious
            self._ious = wider
        n_true = self._pairs.truth.per_image[self._positive]
        new = np.flatnonzero(n_called > self._known)
        new = new[np.argsort(n_called[new] + n_true[new], kind="stable")]
        # Images with similar numbers of boxes are computed together, as many as memory allows.
        cells = 4 * (n_called[new] + n_true[new]) ** 2
        chunk = np.cumsum(cells) // _CELLS_AT_ONCE
        for images in np.split(new, np.flatnonzero(np.diff(chunk)) + 1):
            if not len(images):
                continue
            ious = region_ious(
                _padded(self._pairs.boxes.corners, self._first_box[images], n_called[images]),
                _padded(self._pairs.truth.corners, self._first_true[images], n_true[images]),
            )
            self._ious[images, : ious.shape[1]] = ious
        self._known = np.maximum(self._known, n_called)

    def at(self, weight: Floats, cuts: Floats) -> Floats:
        """Compute the mean IoU for each row of weights at the row's own score cut.

        Args:
            weight: Weights of P patients in R weightings, shape ``(R, P)``, such as how often each
                patient was drawn in each of R bootstrap resamples.
            cuts: Score cut of each row of `weight`, shape ``(R,)``; NaN where a row has no cut.

        Returns:
            The mean IoU in [0, 1], shape ``(R,)``; NaN in rows without a cut or without a lesion.
        """
        sums = sums_at_row_cuts(self._cached_sums, 1, weight, cuts)[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(sums / (weight @ self._n_positive))


def _padded(corners: Floats, first: Integers, counts: Integers) -> Floats:
    """Return the boxes of M images in one array, filled up with boxes without area.

    Args:
        corners: Boxes of all images, one image after the other, xyxy in px, shape ``(N, 4)``.
        first: Row in `corners` of the first box of each of the M images, shape ``(M,)``.
        counts: Number of boxes of each of the M images, shape ``(M,)``; the largest is n.

    Returns:
        Boxes xyxy in px, shape ``(M, n, 4)``.
    """
    number = np.arange(counts.max(initial=0))
    exists = number < counts[:, None]
    rows = np.where(exists, first[:, None] + number, 0)
    boxes = corners[rows] if len(corners) else np.zeros((*rows.shape, 4))
    boxes[~exists] = 0.0
    return boxes


def region_ious(called: Floats, true: Floats) -> Floats:
    """Compute the IoU of the true region with the region of the first 0, 1, 2, ... K called boxes.

    In each image, the edges of all boxes divide the plane into cells. Each cell lies entirely
    inside or entirely outside of every box, so the areas of the regions are sums of areas of cells.

    Args:
        called: Called boxes of M images, xyxy in px, in the order in which they are added, shape
            ``(M, K, 4)``. An image with fewer than K boxes is filled up with boxes without area.
        true: True boxes of these images, xyxy in px, filled up likewise, shape ``(M, T, 4)``. Each
            image has at least one box with an area.

    Returns:
        IoU of the two regions in [0, 1], shape ``(M, K + 1)``. Column k is that of the first k
        called boxes; the first column is 0.

    Example:
        >>> true = np.array([[[0.0, 0, 4, 2]]])
        >>> region_ious(np.array([[[0.0, 0, 2, 2], [0, 0, 8, 2]]]), true).tolist()
        [[0.0, 0.5, 0.5]]
    """
    n_images, n_called = called.shape[:2]
    boxes = np.concatenate([called, true], axis=1)
    columns = np.sort(boxes[:, :, [0, 2]].reshape(n_images, -1), axis=1)
    rows = np.sort(boxes[:, :, [1, 3]].reshape(n_images, -1), axis=1)
    area = np.diff(rows)[:, :, None] * np.diff(columns)[:, None, :]
    in_columns = _between(columns, boxes[:, :, 0], boxes[:, :, 2])
    in_rows = _between(rows, boxes[:, :, 1], boxes[:, :, 3])
    # For each cell, the number of called boxes after which the cell is covered; K + 1 if no called
    # box covers it.
    covered_by = np.full(area.shape, n_called + 1)
    is_true = np.zeros(area.shape, dtype=bool)
    for number in range(n_called + true.shape[1], 0, -1):
        cells = in_rows[:, number - 1, :, None] & in_columns[:, number - 1, None, :]
        if number > n_called:
            is_true |= cells
        else:
            covered_by[cells] = number
    n_steps = n_called + 2
    step = covered_by + n_steps * np.arange(n_images)[:, None, None]

    def covered(cells: npt.NDArray[np.bool_]) -> Floats:
        areas = np.bincount(step[cells], area[cells], n_steps * n_images)
        return np.cumsum(areas.reshape(n_images, n_steps), axis=1)

    shared = covered(is_true)
    extra = covered(~is_true)
    return np.asarray((shared / (shared[:, -1:] + extra))[:, : n_called + 1])


def _between(edges: Floats, first: Floats, last: Floats) -> npt.NDArray[np.bool_]:
    """Return True where the interval from one edge to the next lies inside a box, along one axis.

    Args:
        edges: Edges of all boxes of each image in rising order, shape ``(M, E)``.
        first: Lower edge of each box, shape ``(M, n)``.
        last: Upper edge of each box, shape ``(M, n)``.

    Returns:
        True for the intervals inside each box, shape ``(M, n, E - 1)``.
    """
    starts = edges[:, None, :-1]
    return np.asarray((first[:, :, None] <= starts) & (starts < last[:, :, None]))
