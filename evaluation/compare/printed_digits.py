"""Number of decimals at which printed figures keep their order."""

from __future__ import annotations

import numpy as np

_FEWEST_DIGITS = 3
_MOST_DIGITS = 9


def distinguishing_digits(ends: tuple[float, float], marks: tuple[float, ...]) -> int:
    """Return the number of decimals at which ends lie on the same side of marks as unrounded.

    Args:
        ends: Ends of an interval.
        marks: Values that the ends are compared with.

    Returns:
        Number of decimals, from 3 to 9.

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
