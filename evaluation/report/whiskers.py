"""Intervals placed on one shared axis with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cxr_compare.evaluation.report.table import (
    Ticks,
    Whisker,
)
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.statistics.intervals import Interval


def place_whiskers(
    intervals: Sequence[Interval], *, around_zero: bool = False
) -> tuple[list[Whisker | None], Ticks]:
    """Place intervals on one shared axis with round figures."""
    ends = [
        end for interval in intervals if interval.bounded for end in (interval.low, interval.high)
    ]
    if not ends:
        return [None] * len(intervals), ()
    ends += [0.0] if around_zero else []
    for step in _STEPS:
        first = math.floor(min(ends) / step + 1e-9)
        last = math.ceil(max(ends) / step - 1e-9)
        if last - first <= _MOST_STEPS:
            break
    last = max(last, first + 1)
    low = first * step
    high = last * step

    def place(value: float) -> float:
        return round((value - low) / (high - low) * 100, 2)

    placed: list[Whisker | None] = []
    for interval in intervals:
        low_at, at, high_at = map(place, (interval.low, interval.estimate, interval.high))
        whisker = Whisker(low_at, at, high_at, interval.excludes_zero)
        placed.append(whisker if interval.bounded else None)
    ticks = [n * step for n in range(first, last + 1)]
    return placed, tuple((place(tick), number(tick, 2) if tick else "0") for tick in ticks)


_STEPS = (0.01, 0.02, 0.05, *(digit * 10.0**power for power in range(-1, 7) for digit in (1, 2, 5)))


_MOST_STEPS = 4
