"""Weighted sums of counts of called boxes, where each bootstrap resample has its own score cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats


def sums_at_row_cuts(
    count: Callable[[float], scipy.sparse.csr_matrix], kinds: int, weight: Floats, cuts: Floats
) -> Floats:
    """Sum counts over weighted patients, where each row of weights has its own score cut.

    Args:
        count: Function that takes a score cut and returns the counts of each of P patients at this
            cut, as a sparse matrix of shape ``(kinds, P)``.
        kinds: Number of kinds of counts that `count` returns, such as 2 for true and false
            positives.
        weight: Weights of P patients in R weightings, shape ``(R, P)``, such as how often each
            patient was drawn in each of R bootstrap resamples.
        cuts: Score cut of each row of `weight`, shape ``(R,)``; NaN where a row has no cut.

    Returns:
        Weighted sums of the counts, shape ``(R, kinds)``; NaN in rows without a cut.

    Example:
        >>> boxes = np.array([[0.4, 0.9]])  # one box per patient
        >>> count = lambda cut: scipy.sparse.csr_matrix((boxes >= cut).astype(float))
        >>> sums_at_row_cuts(count, 1, np.ones((2, 2)), np.array([0.3, 0.5])).tolist()
        [[2.0], [1.0]]
    """
    sums = np.full((len(weight), kinds), np.nan)
    for cut in np.unique(cuts[~np.isnan(cuts)]).tolist():
        rows = cuts == cut
        sums[rows] = (count(cut) @ weight[rows].T).T
    return sums
