"""Placement of intervals on one shared axis with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.statistics.intervals import Interval

_STEPS = (0.01, 0.02, 0.05, *(digit * 10.0**power for power in range(-1, 7) for digit in (1, 2, 5)))
_MOST_STEPS = 4


Ticks = tuple[tuple[float, str], ...]
"""Ticks of an axis: positions in percent of the axis, with their texts."""


@dataclass(frozen=True)
class Whisker:
    """Positions of a value and of its interval on an axis that several table rows share.

    Positions are in percent of the axis, from 0 at the left to 100 at the right.

    Attributes:
        low: Position of the lower end of the interval.
        dot: Position of the value.
        high: Position of the upper end of the interval.
        decided: True if the verdict shows this difference; the dot is then filled.
    """

    low: float
    dot: float
    high: float
    decided: bool = False


class PlacedWhiskers(NamedTuple):
    """Positions of several intervals on one shared axis, with the ticks of the axis.

    Attributes:
        whiskers: Positions of value and interval for each row; None for a row without an interval.
        ticks: Ticks of the axis: position in percent of the axis, and text.
    """

    whiskers: list[Whisker | None]
    ticks: Ticks


def place_whiskers(intervals: Sequence[Interval], *, around_zero: bool = False) -> PlacedWhiskers:
    """Compute the positions of values and intervals on one shared axis with round ticks.

    Args:
        intervals: Values or differences with their intervals, one for each row; an interval without
            ends is not placed.
        around_zero: True to make the axis contain 0, as for differences.

    Returns:
        The positions in the order of ``intervals``, and the ticks of the axis.

    Example:
        >>> placed = place_whiskers([Interval(0.85, 0.8, 0.9)])
        >>> placed.whiskers[0].dot, [text for _, text in placed.ticks]
        (50.0, ['0.80', '0.85', '0.90'])
    """
    ends = [
        end
        for interval in intervals
        if interval.bounded
        for end in (interval.ci_low, interval.ci_high)
    ]
    if not ends:
        return PlacedWhiskers([None] * len(intervals), ())
    if around_zero:
        ends.append(0.0)
    for step in _STEPS:
        first = math.floor(min(ends) / step + 1e-9)
        last = math.ceil(max(ends) / step - 1e-9)
        if last - first <= _MOST_STEPS:
            break
    last = max(last, first + 1)
    low = first * step
    high = last * step

    def percent(value: float) -> float:
        return round((value - low) / (high - low) * 100, 2)

    whiskers: list[Whisker | None] = []
    for interval in intervals:
        if not interval.bounded:
            whiskers.append(None)
            continue
        left, dot, right = map(percent, (interval.ci_low, interval.estimate, interval.ci_high))
        whiskers.append(Whisker(left, dot, right, interval.excludes_zero))
    values = [n * step for n in range(first, last + 1)]
    ticks = tuple((percent(value), number(value, 2) if value else "0") for value in values)
    return PlacedWhiskers(whiskers, ticks)
