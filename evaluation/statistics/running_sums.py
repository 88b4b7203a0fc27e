"""Running sums of bootstrap weights along a ranking, for many resamples at once.

Weights are small whole numbers, so sums are stored in 16 bits where they fit. A running sum that
continues over the ends of the rows never falls, so a single binary search answers for all rows.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Integers

_SMALL = np.uint16
_MOST_BOXES = 4095
"""The sum over a segment of at most so many boxes fits 16 bits if no weight is above 16."""


class SegmentSums:
    """Sums of the weights of predicted boxes in each part (segment) of a ranking by score.

    A segment is a part of the ranking between two positions of interest, such as two boxes that
    each find a lesion. The weight of a box is that of its patient. `segment` and `clusters` number
    the segment and the patient of each box from 0. Call the object with the weights of P patients
    in R samples (such as bootstrap resamples), shape ``(R, P)``; it returns the sums, shape
    ``(R, S)``.

    Examples:
        >>> sums = SegmentSums(np.array([0, 0, 1]), np.array([0, 1, 1]), 2, 2)
        >>> sums(np.array([[1, 1], [2, 0]])).tolist()
        [[2, 1], [2, 0]]
    """

    def __init__(
        self, segment: Integers, clusters: Integers, n_segments: int, n_clusters: int
    ) -> None:
        boxes = np.bincount(segment, minlength=n_segments)
        self._crowded = np.flatnonzero(boxes > _MOST_BOXES)
        in_crowded = boxes[segment] > _MOST_BOXES
        self._sparse = _box_counts(
            segment[~in_crowded], clusters[~in_crowded], (n_segments, n_clusters), _SMALL
        )
        if len(self._crowded):
            self._dense = _box_counts(
                np.searchsorted(self._crowded, segment[in_crowded]),
                clusters[in_crowded],
                (len(self._crowded), n_clusters),
                np.float64,
            )

    def __call__(self, weights: Integers) -> npt.NDArray[Any]:
        """Sum the weights in each segment, shape ``(R, S)``, for patients' weights ``(R, P)``."""
        fits = _MOST_BOXES * int(weights.max(initial=1)) <= np.iinfo(_SMALL).max
        dtype: type = _SMALL if fits else np.float64  # exact for whole numbers below 2 ** 53
        columns: npt.NDArray[Any] = np.ascontiguousarray(weights.T, dtype=dtype)
        sums = np.ascontiguousarray((self._sparse.astype(dtype, copy=False) @ columns).T)
        if len(self._crowded):
            sums = sums.astype(np.int64)
            sums[:, self._crowded] = (self._dense @ columns.astype(np.float64)).T
        return sums


def _box_counts(
    segment: Integers, clusters: Integers, shape: tuple[int, int], dtype: type
) -> scipy.sparse.csr_matrix:
    """Count the boxes of each patient in each segment, shape ``(segments, patients)``."""
    ones: npt.NDArray[Any] = np.ones(len(segment), dtype=dtype)
    return scipy.sparse.csr_matrix((ones, (segment, clusters)), shape=shape)


class RunningRows:
    """Running sums along rows of whole numbers of at least 0, and a fast search in these sums.

    The search finds for each row the first position at which its running sum reaches a value. One
    call answers for all rows.

    Examples:
        >>> rows = RunningRows(np.array([[1, 1, 2], [0, 3, 1]]))
        >>> rows.sums.tolist()
        [[1, 2, 4], [0, 3, 4]]
        >>> rows.search(np.array([[3], [2]])).tolist()  # the sums 4 and 3 are the first to reach
        [[2], [1]]
    """

    def __init__(self, counts: npt.NDArray[Any]) -> None:
        self._shape = counts.shape
        # The sum continues over the ends of the rows and never falls, so one search answers for
        # all.
        self._all = np.cumsum(counts, dtype=np.int64)
        n_rows, length = counts.shape
        ends = self._all[length - 1 :: length] if length else np.zeros(n_rows, dtype=np.int64)
        self._before = np.append(0, ends)[:n_rows, None]

    @property
    def sums(self) -> Integers:
        """Sum of the counts of each row up to and including each position, shape ``(R, n)``."""
        return self._all.reshape(self._shape) - self._before

    @property
    def starts(self) -> Integers:
        """Position at which each row starts if all rows are joined end to end, shape ``(R, 1)``."""
        return np.arange(self._shape[0])[:, None] * self._shape[1]

    def search(self, values: npt.NDArray[Any], side: Literal["left", "right"] = "left") -> Integers:
        """Find where values, ``(R, k)``, belong in the running sums of their row, from 0 to n.

        `side` is that of `numpy.searchsorted`: ``left`` is the position before equal sums,
        ``right`` that after them.
        """
        shifted = (values + self._before).astype(np.int64)
        position = np.searchsorted(self._all, shifted.ravel(), side=side).reshape(shifted.shape)
        return np.clip(position - self.starts, 0, self._shape[1])


def cumulative_rows(weights: Integers) -> npt.NDArray[np.int32]:
    """Compute the cumulative sum along each row, ``(R, n + 1)``, with a leading 0.

    Examples:
        >>> cumulative_rows(np.array([[1, 2, 0]])).tolist()
        [[0, 1, 3, 3]]
    """
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1), dtype=np.int32)
    np.cumsum(weights, axis=1, dtype=np.int32, out=sums[:, 1:])
    return sums
