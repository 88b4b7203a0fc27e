"""Boxes laid out for fusing: one row a group, the most confident box first.

All rows advance together, so that the only Python loop of a fusion runs over the boxes of the
fullest group. Among equal scores the earlier box goes first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from evaluation.statistics.ranking import Floats, Integers

_ROWS_AT_ONCE = 512  # such tables stay in the processor's cache


def box_tables(groups: Integers, scores: Floats) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of the boxes of each group, most confident first, -1 beyond: shape ``(R, K)``."""
    order = np.lexsort((-scores, groups))
    if not len(order):
        return
    edge = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    counts = np.diff(np.append(edge, len(order)))
    by_size = np.argsort(counts, kind="stable")  # groups of like size share a table
    for start in range(0, len(by_size), _ROWS_AT_ONCE):
        rows = by_size[start : start + _ROWS_AT_ONCE]
        slot = np.arange(counts[rows].max())
        there = slot < counts[rows, None]
        yield np.where(there, order[np.where(there, edge[rows, None] + slot, 0)], -1)


def box_sides(corners: Floats, place: Integers) -> Floats:
    """Corners as ``(4, R, K)``."""
    return np.ascontiguousarray(np.moveaxis(corners[place], -1, 0))


def overlaps(one: Floats, others: Floats) -> Floats:
    """IoU of one box a row with the others of the row; sides first."""
    across = np.minimum(one[2], others[2]) - np.maximum(one[0], others[0])
    down = np.minimum(one[3], others[3]) - np.maximum(one[1], others[1])
    shared = np.maximum(across, 0) * np.maximum(down, 0)
    area = (one[2] - one[0]) * (one[3] - one[1])
    areas = (others[2] - others[0]) * (others[3] - others[1])
    whole = area + areas - shared
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(whole), where=whole > 0))
