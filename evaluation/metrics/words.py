"""How figures, thresholds and policies are written for a reader: numbers first, then names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.statistics.bootstrap import Interval

_POLICIES = {
    "": "Without a threshold",
    "max_f1": "best F1",
    "youden": "best sensitivity + specificity",
}
_COST = re.compile(r"cost:([\d.]+)/([\d.]+)(?:@([\d.]+))?")


def policy_words(policy: str) -> str:
    """Return the words for a threshold policy.

    Example:
        >>> policy_words("max_f1"), policy_words("sensitivity>=0.95")
        ('best F1', 'sensitivity ≥ 0.95')
        >>> policy_words("cost:10/1@0.05")
        'least cost, a miss to a false alarm as 10 to 1, at prevalence 0.05'
        >>> policy_words("threshold=0.3")
        'a declared score of 0.3'
    """
    if cost := _COST.fullmatch(policy):
        place = f"prevalence {cost[3]}" if cost[3] else "the prevalence of validation"
        return f"least cost, a miss to a false alarm as {cost[1]} to {cost[2]}, at {place}"
    if policy.startswith("threshold="):
        return f"a declared score of {policy.removeprefix('threshold=')}"
    return _POLICIES.get(policy, policy.replace(">=", " ≥ ").replace("_", " "))


DASH = "–"
"""What stands in the place of a figure that is not defined."""


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure with a true minus sign; an undefined one as a dash."""
    if value is None or value != value:
        return DASH
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def span_words(low: float | None, high: float | None) -> str:
    """Return both ends of an interval; a dash without them.

    Example:
        >>> span_words(-0.1, 0.1), span_words(None, None)
        ('−0.100 to 0.100', '–')
    """
    return DASH if low is None else f"{number(low)} to {number(high)}"


def p_words(p_value: float | None) -> str:
    """Return a p-value for a table; a dash without one.

    Example:
        >>> p_words(0.0517), p_words(0.00002), p_words(None)
        ('0.052', '< 0.001', '–')
    """
    return "< 0.001" if p_value is not None and p_value < 0.001 else number(p_value)


def p_equation(p_value: float | None) -> str:
    """Return a p-value inside a sentence.

    Example:
        >>> p_equation(0.0517), p_equation(0.00002), p_equation(None)
        ('p = 0.052', 'p < 0.001', 'p unknown')
    """
    if p_value is None:
        return "p unknown"
    return f"p {'' if p_value < 0.001 else '= '}{p_words(p_value)}"


def ends_words(interval: Interval) -> str:
    """Return both ends of an interval; nothing without one.

    Example:
        >>> from evaluation.statistics.bootstrap import Interval
        >>> ends_words(Interval(0.0, -0.1, 0.1))
        '−0.100 to 0.100'
    """
    return span_words(interval.low, interval.high) if interval.bounded else ""


def score_words(value: float) -> str:
    """Return a score or threshold: three decimals, or three digits where it is small.

    Example:
        >>> score_words(0.71), score_words(0.00412)
        ('0.710', '0.00412')
    """
    return f"{value:.3f}" if value >= 0.1 else f"{value:.3g}"


def listing(words: list[str]) -> str:
    """Join words as prose does."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def inside_sentence(display_name: str) -> str:
    """Lower the first letter of a finding's name, except where it is an abbreviation.

    Example:
        >>> inside_sentence("Lung opacity"), inside_sentence("COVID-19")
        ('lung opacity', 'COVID-19')
    """
    keep = len(display_name) > 1 and display_name[1].isupper()
    return display_name if keep else display_name[:1].lower() + display_name[1:]
