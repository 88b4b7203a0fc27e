"""Holm's method for families of comparisons, in p-values and in intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of a family of tests by Holm's method.

    Args:
        p_values: P-values; `None` for a test without one, which does not count.

    Returns:
        Adjusted p-values in the same order.

    Source:
        Holm 1979.

    Example:
        >>> holm([0.25, None, 0.125])
        [0.25, None, 0.25]
    """
    tests = [(p, position) for position, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, position) in enumerate(sorted(tests)):
        highest = max(highest, min(1.0, p * (len(tests) - rank)))
        adjusted[position] = highest
    return adjusted


def step_down(count: int, is_shown: Callable[[int, int], bool]) -> list[int]:
    """Find for how many comparisons the interval of each claim of a family is widened.

    All open claims are tested with intervals of level ``1 - 0.05 / number open``. Claims that are
    shown with them leave the family. The others are tested again with narrower intervals, until
    none is shown.

    Args:
        count: Number of claims.
        is_shown: Function of a claim's position and of a number of comparisons; True if the claim
            is shown with the interval for that number.

    Returns:
        Number of comparisons of each claim.

    Source:
        Holm 1979, written in intervals.

    Example:
        >>> step_down(3, lambda claim, comparisons: claim == 0)
        [3, 2, 2]
    """
    comparisons = [count] * count
    still_open = list(range(count))
    while still_open:
        size = len(still_open)
        for claim in still_open:
            comparisons[claim] = size
        remaining = [claim for claim in still_open if not is_shown(claim, size)]
        if len(remaining) == size:
            break
        still_open = remaining
    return comparisons
