"""Sums of patient weights along a ranking, for many weightings at once.

A bootstrap spends its time on moving numbers. Weights are small whole numbers, so sums of 16 bits
serve as long as they fit, and one running sum over all rows is searched for all rows at once.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from evaluation.statistics.ranking import Integers

_SMALL = np.uint16
_MOST = 4095
"""A segment of no more boxes fits 16 bits as long as no weight is above 16."""


class SegmentSums:
    """How much weight lies in each segment of a ranking.

    Args:
        segment: Segment of each box as an index from 0, shape ``(boxes,)``.
        clusters: Cluster (patient) of each box as an index from 0, shape ``(boxes,)``.
        n_segments: How many segments there are.
        n_clusters: How many clusters weights are given for.

    Example:
        >>> sums = SegmentSums(np.array([0, 0, 1]), np.array([0, 1, 1]), 2, 2)
        >>> sums(np.array([[1, 2], [3, 0]])).tolist()
        [[3, 2], [3, 0]]
    """

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
        """The weight in each segment.

        Args:
            weights: How often each cluster counts, shape ``(R, n_clusters)``.

        Returns:
            Whole numbers, shape ``(R, n_segments)``, row by row in memory.
        """
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
) -> sparse.csr_matrix:
    """How many boxes a cluster has in each segment."""
    ones = np.ones(len(segment), dtype=np.int64)
    return sparse.csr_matrix((ones, (segment, clusters)), shape=shape).astype(kind)


class RunningRows:
    """Running sums along rows of whole numbers, none below 0.

    Args:
        counts: Shape ``(R, n)``.

    Example:
        >>> rows = RunningRows(np.array([[1, 0, 2], [5, 1, 0]]))
        >>> rows.sums.tolist(), rows.place(np.array([[3], [7]])).tolist()
        ([[1, 1, 3], [5, 6, 6]], [[2], [3]])
    """

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

        Args:
            sought: Whole numbers, not below 0, shape ``(R, k)``.
            side: ``left``: before equal sums; ``right``: behind them.

        Returns:
            From 0 to n, shape ``(R, k)``.
        """
        values = (sought + self._before).astype(np.int64)
        found = np.searchsorted(self._all, values.ravel(), side=side).reshape(values.shape)
        return np.clip(found - self.starts, 0, self._shape[1])
