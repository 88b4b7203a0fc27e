"""Logistic regressions on one variable, many at once: one per row of weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evaluation.statistics.ranking import Floats, Integers

_STEPS = 40
_CONVERGED = 1e-9
_FARTHEST = 500.0  # log-odds that no probability in [CLIP, 1 - CLIP] asks for
_LIKELY = 64  # clusters; that none of so many is drawn has probability exp(-64)


class Overlap:
    """Whether the classes overlap on the variable; where a cut parts them, no fit is finite.

    Args:
        place: Rank of each image's value, shape ``(N,)``.
        truth: Its label, shape ``(N,)``.
        clusters: Its cluster (patient) as an index from 0, shape ``(N,)``.

    Source:
        Albert and Anderson 1984.

    Example:
        >>> images = np.array([0, 1, 2]), np.array([False, True, False]), np.array([0, 1, 2])
        >>> Overlap(*images).parted(np.array([[1, 1, 1], [2, 1, 0]])).tolist()
        [False, True]
    """

    def __init__(self, place: Integers, truth: npt.NDArray[np.bool_], clusters: Integers) -> None:
        self._ends = {
            (label, sign): _Lowest(sign * place[truth == label], clusters[truth == label])
            for label in (False, True)
            for sign in (1, -1)
        }

    def parted(self, weights: npt.NDArray[np.floating | np.integer]) -> npt.NDArray[np.bool_]:
        """Whether a class is absent or a cut parts the classes, one shared value allowed.

        Args:
            weights: How often each cluster counts, shape ``(R, clusters)``.

        Returns:
            Shape ``(R,)``.
        """
        lowest = {label: self._ends[label, 1](weights) for label in (False, True)}
        highest = {label: -self._ends[label, -1](weights) for label in (False, True)}
        return (lowest[True] >= highest[False]) | (lowest[False] >= highest[True])


class _Lowest:
    """The lowest value among the clusters that count, infinite where none does."""

    def __init__(self, values: Integers, clusters: Integers) -> None:
        order = np.lexsort((values, clusters))
        owners, first = np.unique(clusters[order], return_index=True)
        lowest = values[order][first]
        rising = np.argsort(lowest, kind="stable")
        self._owners, self._values = owners[rising], lowest[rising].astype(np.float64)

    def __call__(self, weights: npt.NDArray[np.floating | np.integer]) -> Floats:
        found, values = self._among(weights, _LIKELY)
        return values if found.all() else self._among(weights, len(self._owners))[1]

    def _among(
        self, weights: npt.NDArray[np.floating | np.integer], n_first: int
    ) -> tuple[npt.NDArray[np.bool_], Floats]:
        if not len(self._owners):
            return np.ones(len(weights), dtype=bool), np.full(len(weights), np.inf)
        counts = weights[:, self._owners[:n_first]] > 0
        found = np.asarray(counts.any(axis=1))
        return found, np.where(found, self._values[counts.argmax(axis=1)], np.inf)


def fit_line(
    x: Floats, mass: Floats, positive: Floats, positive_x: Floats
) -> tuple[Floats, Floats]:
    """Logistic regressions on one variable, by Newton's method, one per row.

    A row's fit does not depend on what other rows there are.

    Args:
        x: Values of the variable, shape ``(D,)``.
        mass: Weight of the images at each value, shape ``(R, D)``.
        positive: Weight of the positive images, shape ``(R,)``.
        positive_x: Their weighted sum of the variable, shape ``(R,)``.

    Returns:
        Slope and intercept, each shape ``(R,)``; NaN where there is no finite fit.

    Source:
        Cox 1958.

    Example:
        >>> mass, positive = np.array([[10.0, 10.0]]), np.array([10.0])  # 2 of 10, and 8 of 10
        >>> slope, _ = fit_line(np.array([-1.0, 1.0]), mass, positive, np.array([6.0]))
        >>> round(float(slope[0]), 4)  # log(0.8 / 0.2)
        1.3863
    """
    n = mass.sum(axis=1)
    with np.errstate(all="ignore"):
        slope, intercept = np.zeros(len(n)), np.log(positive / (n - positive))
        open_ = np.ones(len(n), dtype=bool)  # a row that has converged must not wait for others
        for _ in range(_STEPS):
            fitted = 1 / (1 + np.exp(-np.clip(intercept[:, None] + slope[:, None] * x, -700, 700)))
            expected, spread = mass * fitted, mass * fitted * (1 - fitted)
            gaps = positive - expected.sum(axis=1), positive_x - expected @ x
            h0, h1, h2 = spread.sum(axis=1), spread @ x, spread @ x**2
            inverse = 1 / (h0 * h2 - h1**2)
            slope = np.where(open_, slope + inverse * (h0 * gaps[1] - h1 * gaps[0]), slope)
            moved = intercept + inverse * (h2 * gaps[0] - h1 * gaps[1])
            intercept = np.where(open_, moved, intercept)
            open_ &= (np.abs(np.stack(gaps)) > _CONVERGED * n).any(axis=0)
            if not open_.any():
                break
        farthest = np.abs(intercept[:, None] + slope[:, None] * x[[0, -1]]).max(axis=1)
        lost = ~((np.abs(np.stack(gaps)) <= 1e-6 * n).all(axis=0) & (farthest < _FARTHEST))
    return np.where(lost, np.nan, slope), np.where(lost, np.nan, intercept)


def fit_offset(x: Floats, mass: Floats, positive: Floats) -> Floats:
    """The shifts of log-odds that give each row its number of positives.

    Args:
        x: Log-odds, shape ``(D,)``.
        mass: Weight of the images at each value, shape ``(R, D)``.
        positive: Weight of the positive images, shape ``(R,)``.

    Returns:
        Shape ``(R,)``; NaN without a class. As in `fit_line` each row is alone.

    Example:
        >>> shift = fit_offset(np.array([0.0]), np.array([[4.0]]), np.array([3.0]))
        >>> round(float(shift[0]), 4)  # from odds of 1 to odds of 3
        1.0986
    """
    n = mass.sum(axis=1)
    shift = np.zeros(len(n))
    open_ = np.ones(len(n), dtype=bool)  # a row that has converged must not wait for others
    # Twice the range of log-odds, then halved: Newton's method can overshoot on steep ends.
    low, high = np.full(len(n), -40.0), np.full(len(n), 40.0)
    for _ in range(_STEPS):
        fitted = 1 / (1 + np.exp(-(x + shift[:, None])))
        gap = (mass * fitted).sum(axis=1) - positive
        high, low = np.where(gap >= 0, shift, high), np.where(gap <= 0, shift, low)
        with np.errstate(all="ignore"):
            step = shift - gap / (mass * fitted * (1 - fitted)).sum(axis=1)
        moved = np.where((step > low) & (step < high), step, (low + high) / 2)
        shift = np.where(open_, moved, shift)
        open_ &= np.abs(gap) > _CONVERGED * n
        if not open_.any():
            break
    return np.where((positive > 0) & (positive < n), shift, np.nan)
