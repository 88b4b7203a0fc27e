"""Holm's method, which corrects p-values for the number of tests."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of several tests by Holm's method.

    If every adjusted p-value below 0.05 is called significant, the chance of any false one among
    the tests is at most 5 %. `None`, a test without a p-value, is not counted and stays `None`.

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
