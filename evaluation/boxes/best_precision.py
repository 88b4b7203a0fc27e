"""The highest precision at or above each recall level, of which average precisions are made."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cxr_compare.evaluation.statistics.arrays import Floats, Integers


def best_precision(
    called: Integers, n_true: int, recall: Floats, *, beyond: bool = False
) -> Floats:
    """Find the highest precision at or above each recall level; 0 above the highest recall.

    `called` has the rank of each box that matches a true box, among all boxes in the order of
    falling scores, from 1, rising. With `beyond`, only precision at a recall strictly above the
    level counts.

    Source:
        Everingham et al. 2010 (Pascal VOC); Lin et al. 2014 (COCO).

    Example:
        >>> best_precision(np.array([2, 3]), 2, np.array([0.5, 1.0])).round(3).tolist()
        [0.667, 0.667]
    """
    true = np.arange(1, len(called) + 1)
    best = np.maximum.accumulate((true / (called + np.spacing(1)))[::-1])[::-1]
    side: Literal["left", "right"] = "right" if beyond else "left"
    return np.append(best, 0)[np.searchsorted(true / n_true, recall, side=side)]
