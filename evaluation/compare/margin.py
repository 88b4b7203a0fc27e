"""Differences compared with a margin: equivalence and non-inferiority."""

from __future__ import annotations

from typing import Any, Literal

from cxr_compare.evaluation.compare.estimates import family_level
from cxr_compare.evaluation.compare.printed_digits import distinguishing_digits
from cxr_compare.evaluation.compare.verdict_parts import Statement
from cxr_compare.evaluation.statistics.intervals import Interval

MarginStanding = Literal["equivalent", "non-inferior", "worse", "open", "unknown"]


def against_margin(difference: Interval, margin: float) -> MarginStanding:
    """Compare the interval of a difference, other - reference, with a margin, unrounded.

    Args:
        difference: The difference with its interval.
        margin: The margin, above 0.

    Returns:
        ``equivalent`` if the interval lies wholly between -margin and margin (both one-sided
        tests), ``non-inferior`` if it lies above -margin (a one-sided test at half of the error of
        the interval), ``worse`` if it lies below -margin, ``unknown`` without an interval, else
        ``open``. An end equal to the margin shows nothing.

    Source:
        Schuirmann 1987, the two one-sided tests; ICH E9.

    Example:
        >>> against_margin(Interval(-0.01, -0.03049, 0.01), 0.0304)
        'open'
    """
    if not difference.bounded:
        return "unknown"
    if -margin < difference.low and difference.high < margin:
        return "equivalent"
    if difference.low > -margin:
        return "non-inferior"
    return "worse" if difference.high < -margin else "open"


def margin_statement(
    reference: str,
    other: str,
    figure: str,
    difference: Interval,
    margin: float,
    contrasts: int = 1,
) -> Statement:
    """State whether a system is non-inferior or equivalent to the reference.

    Args:
        reference: Name of the reference system.
        other: Name of the other system.
        figure: The figure inside a sentence.
        difference: Other - reference, with its interval for all contrasts at once.
        margin: The margin, above 0.
        contrasts: Number of contrasts that the interval is widened for.

    Example:
        >>> statement = margin_statement("A", "B", "AUROC", Interval(0.0, -0.02, 0.03), 0.05)
        >>> statement.values["standing"]
        'equivalent'
    """
    values: dict[str, Any] = {
        "standing": against_margin(difference, margin),
        "reference": reference,
        "other": other,
        "figure": figure,
        "margin": margin,
        "difference": {
            "estimate": -difference.estimate,
            "low": -difference.high,
            "high": -difference.low,
            "level": family_level(contrasts),
        },
        "contrasts": contrasts,
        "digits": distinguishing_digits((difference.low, difference.high), (-margin, margin)),
    }
    return Statement("margin", values)
