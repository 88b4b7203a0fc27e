"""Differences whose p-value and interval seem to contradict each other."""

from __future__ import annotations

from typing import Literal

from cxr_compare.evaluation.statistics.intervals import Interval

ConflictKind = Literal["interval_only", "p_only", "skewed"]
"""Kind of conflict between the p-value and the 95 % interval of one difference.

``interval_only``: the interval excludes 0, but p is 0.05 or more. ``p_only``: p is below 0.05, but
the interval includes 0. ``skewed``: neither shows a difference, although the difference is farther
from 0 than half the width of its interval.
"""
CONFLICT_KINDS: tuple[ConflictKind, ...] = ("interval_only", "p_only", "skewed")
"""All kinds of conflict, in the order in which a report explains them."""
_LEVEL = 0.05


def conflict_kind(difference: Interval, p_value: float | None) -> ConflictKind | None:
    """Return how the p-value and the 95 % interval of a difference conflict.

    The first two kinds arise if p-value and interval come from different methods, such as McNemar's
    test and the bootstrap, and the images of a class are few. The third arises if the difference
    lies far from the middle of its bootstrap distribution, as when a threshold that was chosen on
    few positive images changes from resample to resample, or if the p-value is corrected for many
    comparisons and the interval is not.

    Args:
        difference: Difference between two systems (detectors or classifiers) or two groups of
            images, with its 95 % interval.
        p_value: p-value of the hypothesis that there is no difference, in [0, 1]; None if unknown.

    Returns:
        The kind of conflict; None if there is none, or if the p-value or interval is unknown.

    Example:
        >>> conflict_kind(Interval(0.438, -0.1, 0.6), 1.0)
        'skewed'
        >>> conflict_kind(Interval(0.1, -0.2, 0.4), 0.5) is None
        True
    """
    if p_value is None or not difference.bounded:
        return None
    is_small = p_value < _LEVEL
    if difference.excludes_zero:
        return None if is_small else "interval_only"
    if is_small:
        return "p_only"
    half_width = (difference.high - difference.low) / 2
    return "skewed" if abs(difference.estimate) > half_width else None
