"""Counts of called boxes where every resample has a score cut of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats


def sums_at_row_cuts(
    count: Callable[[float], scipy.sparse.csr_matrix], kinds: int, weight: Floats, cuts: Floats
) -> Floats:
    """Sum counts over weighted patients, each row at its own score cut.

    Args:
        count: Function from a cut to the counts of each patient, sparse, shape ``(kinds, P)``.
        kinds: Number of counts.
        weight: Weights of patients, shape ``(R, P)``.
        cuts: Score cut of each row, shape ``(R,)``; NaN where a row has none.

    Returns:
        Sums, shape ``(R, kinds)``; NaN without a cut.

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
