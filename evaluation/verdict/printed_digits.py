"""Number of decimals at which rounded figures keep their order."""

from __future__ import annotations

import numpy as np

_FEWEST_DIGITS = 3
_MOST_DIGITS = 9


def distinguishing_digits(ends: tuple[float, float], marks: tuple[float, ...]) -> int:
    """Return the fewest decimals at which rounded numbers keep their order.

    Args:
        ends: Lower and upper end of an interval.
        marks: Values with which the ends are compared, such as a margin.

    Returns:
        Number of decimals, at least 3, with which each rounded end lies on the same side of each
        rounded value as before rounding; 9 if no smaller number suffices.

    Example:
        >>> distinguishing_digits((0.85004, 0.94), (0.85,))
        5
    """

    def keeps_order(digits: int) -> bool:
        return all(
            np.sign(round(end, digits) - round(mark, digits)) == np.sign(end - mark)
            for end in ends
            for mark in marks
        )

    for digits in range(_FEWEST_DIGITS, _MOST_DIGITS):
        if keeps_order(digits):
            return digits
    return _MOST_DIGITS
