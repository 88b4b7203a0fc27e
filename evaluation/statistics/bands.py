"""Bootstrap bands around a ROC curve and around shares of groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_index
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval

_Band = tuple[Floats, Floats]
"""The low and the high end at each place; NaN where no resample has a value."""


def roc_band(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, patients: npt.ArrayLike, at: Floats,
    *, resamples: int = 500, seed: int = 0,
) -> _Band:  # fmt: skip
    """Return the 95 % band of sensitivity at each false positive rate.

    Each resample of patients gives a curve, its points joined by straight lines; the band holds
    the middle 95 % of their sensitivities at each rate (vertical averaging). Resamples of one
    label are left out.

    Shapes: `y_true`, `y_score`, `patients` ``(N,)``; `at` ``(M,)``.

    Source:
        Vertical averaging: Fawcett 2006, An introduction to ROC analysis, algorithm 3.
    """
    scores = np.asarray(y_score, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # ties move together
    positive = np.asarray(y_true, dtype=bool)[order]
    of, count = cluster_index(np.asarray(patients)[order])
    curves = []
    for weights in Resamples(count, resamples, seed).chunks():
        drawn = weights[:, of].astype(np.int64)  # (R, N)
        true, false = (
            np.pad(np.cumsum(drawn * chosen, axis=1)[:, ends], ((0, 0), (1, 0)))
            for chosen in (positive, ~positive)
        )
        curves += [
            np.interp(at, x / x[-1], y / y[-1])
            for x, y in zip(false, true, strict=True)
            if x[-1] and y[-1]
        ]
    return _middle(np.array(curves).reshape(-1, len(at)))


def share_band(
    y_true: npt.ArrayLike, groups: Integers, patients: npt.ArrayLike,
    *, resamples: int = 500, seed: int = 0,
) -> _Band:  # fmt: skip
    """Return the 95 % band of the share of positives in each group of images.

    Of 0 and 1, which no resample moves, it is the exact interval with patients as trials.

    Shapes: `y_true`, `groups`, `patients` ``(N,)``.
    """
    of, count = cluster_index(patients)
    size = np.zeros((count, int(np.max(groups)) + 1))
    positive = size.copy()
    np.add.at(size, (of, groups), 1)
    np.add.at(positive, (of, groups), np.asarray(y_true, dtype=np.float64))
    parts = [
        np.divide(weights @ positive, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
        for weights in Resamples(count, resamples, seed).chunks()
        for whole in [weights @ size]
    ]
    low, high = _middle(np.concatenate(parts))
    counted, whole = positive.sum(axis=0), size.sum(axis=0)
    for group in np.flatnonzero((whole > 0) & np.isin(counted / np.maximum(whole, 1), (0, 1))):
        exact = Interval.from_share(float(counted[group] > 0), float((size[:, group] > 0).sum()))
        low[group], high[group] = exact.low, exact.high
    return low, high


def _middle(values: Floats) -> _Band:
    """The ends of the middle 95 % of each column of ``(R, M)``, without what is undefined."""
    if not len(values):
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    known = ~np.isnan(values).all(axis=0)
    ends = np.full((2, values.shape[1]), np.nan)
    tail = (1 - LEVEL) / 2
    ends[:, known] = np.nanquantile(values[:, known], (tail, 1 - tail), axis=0)
    return ends[0], ends[1]
