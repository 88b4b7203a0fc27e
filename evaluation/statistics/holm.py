"""Holm's method, which corrects p-values and intervals for the number of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of several tests by Holm's method.

    If every adjusted p-value below 0.05 is called significant, the chance of any false one among
    the tests is at most 5 %.

    Args:
        p_values: P-values in [0, 1]. A `None` stands for a test without a p-value, which is not
            counted.

    Returns:
        Adjusted p-values in [0, 1] in the same order; `None` stays `None`.

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
    """Find the number of comparisons for which the interval of each of several claims is widened.

    A claim states that two systems differ, and is shown if the interval of the difference excludes
    0.

    In the first step all k claims are tested with intervals of coverage ``1 - 0.05 / k``. Claims
    that are shown with these intervals are settled. The remaining m claims are tested again with
    the narrower intervals of coverage ``1 - 0.05 / m``, and so on, until a step shows no claim.

    Args:
        count: Number of claims, k.
        is_shown: Function of two arguments: the position of a claim, from 0, and a number of
            comparisons. It returns True if the claim is shown with its interval for this number of
            comparisons.

    Returns:
        Number of comparisons for which the interval of each claim is widened, in the order of the
        claims.

    Source:
        Holm 1979, applied to intervals instead of p-values.

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
