"""Running sums of bootstrap weights along a ranking, for many resamples at once.

Weights are small whole numbers, so sums of 16 bits serve as long as they fit, and one running sum
over all rows is searched for all rows at once.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Integers

_SMALL = np.uint16


_MOST = 4095
"""A segment of no more boxes fits 16 bits as long as no weight is above 16."""


class SegmentSums:
    """How much weight lies in each segment of a ranking; `segment` and `clusters`: of each box."""

    def __init__(
        self, segment: Integers, clusters: Integers, n_segments: int, n_clusters: int
    ) -> None:
        boxes = np.bincount(segment, minlength=n_segments)
        self._crowded = np.flatnonzero(boxes > _MOST)
        crowded = boxes[segment] > _MOST
        shape = (n_segments, n_clusters)
        self._sparse = _table(segment[~crowded], clusters[~crowded], shape, _SMALL)
        place = np.searchsorted(self._crowded, segment[crowded])
        shape = (len(self._crowded), n_clusters)
        self._dense = _table(place, clusters[crowded], shape, np.float64)

    def __call__(self, weights: Integers) -> npt.NDArray[Any]:
        """The weight in each segment, shape ``(R, n_segments)``, row by row in memory."""
        fits = _MOST * int(weights.max(initial=1)) <= np.iinfo(_SMALL).max
        kind: type = _SMALL if fits else np.float64  # whole numbers below 2 ** 53 are exact in it
        columns: npt.NDArray[Any] = np.ascontiguousarray(weights.T, dtype=kind)
        sums = np.ascontiguousarray((self._sparse.astype(kind, copy=False) @ columns).T)
        if len(self._crowded):
            sums = sums.astype(np.int64)
            sums[:, self._crowded] = (self._dense @ columns.astype(np.float64)).T
        return sums


def _table(
    segment: Integers, clusters: Integers, shape: tuple[int, int], kind: type
) -> scipy.sparse.csr_matrix:
    """How many boxes a cluster has in each segment."""
    ones = np.ones(len(segment), dtype=np.int64)
    return scipy.sparse.csr_matrix((ones, (segment, clusters)), shape=shape).astype(kind)


class RunningRows:
    """Running sums along rows of whole numbers, none below 0, shape ``(R, n)``."""

    def __init__(self, counts: npt.NDArray[Any]) -> None:
        self._shape = counts.shape
        # On over the ends of the rows: it rises throughout, so that one search serves all.
        self._all = np.cumsum(counts, dtype=np.int64)
        n_rows, length = counts.shape
        ends = self._all[length - 1 :: length] if length else np.zeros(n_rows, dtype=np.int64)
        self._before = np.append(0, ends)[:n_rows, None]

    @property
    def sums(self) -> npt.NDArray[np.int64]:
        """The running sums, shape ``(R, n)``."""
        return self._all.reshape(self._shape) - self._before

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each row starts in the rows laid end to end, shape ``(R, 1)``."""
        return np.arange(self._shape[0])[:, None] * self._shape[1]

    def place(
        self, sought: npt.NDArray[Any], side: Literal["left", "right"] = "left"
    ) -> npt.NDArray[np.int64]:
        """Where values belong in their row, as `numpy.searchsorted` says.

        Shapes: `sought`, returned ``(R, k)``.
        """
        values = (sought + self._before).astype(np.int64)
        found = np.searchsorted(self._all, values.ravel(), side=side).reshape(values.shape)
        return np.clip(found - self.starts, 0, self._shape[1])


def cumulative_rows(weights: Integers) -> npt.NDArray[np.int32]:
    """Cumulative sum along each row with a leading 0, shape ``(R, n + 1)``."""
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1), dtype=np.int32)
    np.cumsum(weights, axis=1, dtype=np.int32, out=sums[:, 1:])
    return sums


def first_at_least(sums: npt.NDArray[Any], sought: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where each row of running sums first reaches a value, by binary search in all rows at once.

    Shapes: `sums` ``(R, n)``; `sought`, returned ``(R,)``.

    Example:
        >>> sums = np.array([[0, 2, 2], [1, 4, 9], [0, 0, 1]])
        >>> first_at_least(sums, np.array([1, 4, 2])).tolist()
        [1, 1, 3]
    """
    n_rows, length = sums.shape
    rows, low = np.arange(n_rows), np.zeros(n_rows, dtype=np.int64)
    high = np.full(n_rows, length)
    for _ in range(length.bit_length()):
        middle = (low + high) // 2
        below = (middle < high) & (sums[rows, np.minimum(middle, length - 1)] < sought)
        low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
    return low
