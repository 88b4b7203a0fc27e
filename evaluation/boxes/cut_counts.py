"""Counts of called boxes where every resample has a score cut of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # whose parts load when they are first used

from cxr_compare.evaluation.statistics.arrays import Floats


def sums_at_row_cuts(
    counted: Callable[[float], scipy.sparse.csr_matrix], kinds: int, weight: Floats, own: Floats
) -> Floats:
    """Weighted sums of counts ``(kinds, clusters)``, each row at its own cut; NaN without one."""
    sums = np.full((len(weight), kinds), np.nan)
    for cut in np.unique(own[~np.isnan(own)]).tolist():
        rows = own == cut
        sums[rows] = (counted(cut) @ weight[rows].T).T
    return sums
