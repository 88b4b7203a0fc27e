"""Holm's method for several tests at once: in p-values, and in intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values of a family of tests, in its order.

    Source:
        Holm 1979.
    """
    tests = [(p, position) for position, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, position) in enumerate(sorted(tests)):
        highest = max(highest, min(1.0, p * (len(tests) - rank)))
        adjusted[position] = highest
    return adjusted


def step_down(count: int, shown: Callable[[int, int], bool]) -> list[int]:
    """For how many comparisons the interval of each claim of a family is widened.

    All open claims are held against intervals of ``1 - 0.05 / number open``; those that are shown
    with them leave, and the rest are held again against narrower ones, until none is shown.

    Source:
        Holm 1979, written in intervals.

    Example:
        >>> p_values = [0.01, 0.04, 0.03]
        >>> step_down(3, lambda claim, comparisons: p_values[claim] < 0.05 / comparisons)
        [3, 2, 2]
    """
    comparisons, still_open = [count] * count, list(range(count))
    while still_open:
        size = len(still_open)
        for claim in still_open:
            comparisons[claim] = size
        left = [claim for claim in still_open if not shown(claim, size)]
        if len(left) == size:
            break
        still_open = left
    return comparisons
