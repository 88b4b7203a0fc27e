"""Comparison of a difference with a margin, for equivalence and non-inferiority."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cxr_compare.evaluation.figures import family_level
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.evaluation.statistics.intervals import Interval

_FEWEST_DIGITS = 3
_MOST_DIGITS = 9

MarginStanding = Literal["equivalent", "non-inferior", "worse", "open", "unknown"]


def against_margin(difference: Interval, margin: float) -> MarginStanding:
    """Compare the unrounded interval of a difference with a margin.

    The margin, above 0 and in the unit of the figure, states how much worse than the reference
    system another system may be and still count as not worse. The difference is that of the other
    system minus the reference system. The result is ``equivalent`` if the whole interval lies
    between -margin and margin, ``non-inferior`` if its lower end lies above -margin, ``worse`` if
    its upper end lies below -margin, ``open`` otherwise, and ``unknown`` if there is no interval.
    An end that equals -margin or margin shows nothing.

    Source:
        Schuirmann 1987 (two one-sided tests); ICH E9.

    Example:
        >>> against_margin(Interval(-0.01, -0.03049, 0.01), 0.0304)
        'open'
    """
    if not difference.bounded:
        return "unknown"
    if -margin < difference.ci_low and difference.ci_high < margin:
        return "equivalent"
    if difference.ci_low > -margin:
        return "non-inferior"
    return "worse" if difference.ci_high < -margin else "open"


def margin_text(
    reference: str,
    other: str,
    figure: str,
    difference: Interval,
    margin: float,
    contrasts: int = 1,
) -> str:
    """Say if a system was shown to be non-inferior or equivalent to the reference system.

    `figure` is written as inside a sentence. `difference` is that of `against_margin`, with an
    interval that is widened for the number of contrasts with the reference system. The sentence
    prints the difference the other way round, reference system minus other system, and has as many
    decimals as its rounded numbers need to keep their order.

    Example:
        >>> margin_text("A", "B", "AUROC", Interval(0.0, -0.02, 0.03), 0.05)[:55]
        'AUROC: B is equivalent to A within the margin of 0.050:'
    """
    start = f"{figure[:1].upper()}{figure[1:]}: {other}"
    standing = against_margin(difference, margin)
    if standing == "unknown":
        return f"{start} and {reference} cannot be compared with the margin: no interval."
    result = {
        "equivalent": f"is equivalent to {reference} within",
        "non-inferior": f"is non-inferior to {reference} by",
        "worse": f"is worse than {reference} by more than",
        "open": f"was not shown to be non-inferior to {reference} by",
    }[standing]
    digits = _distinguishing_digits((difference.ci_low, difference.ci_high), (-margin, margin))
    ends = range_text(-difference.ci_high, -difference.ci_low, digits=digits)
    corrected = f", Bonferroni over {contrasts} contrasts" if contrasts > 1 else ""
    return (
        f"{start} {result} the margin of {number(margin, digits)}: difference {reference} − "
        f"{other} {number(-difference.estimate, digits)} ({100 * family_level(contrasts):.4g} % "
        f"interval {ends}{corrected})."
    )


def _distinguishing_digits(ends: tuple[float, float], marks: tuple[float, ...]) -> int:
    """Return the fewest decimals, 3 to 9, at which rounded ends keep their order with the marks."""

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
