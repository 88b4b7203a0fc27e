"""Texts of figures, intervals and p-values."""

from __future__ import annotations

DASH = "–"
"""Text of a figure that is not defined."""
ZERO = 1e-6
"""Size below which the end of an interval counts as 0: it is a rounding error."""


def number(value: float, digits: int = 3) -> str:
    """Format a number with a true minus sign (not a hyphen); NaN becomes a dash.

    Examples:
        >>> number(-0.25), number(-0.0001), number(float("nan")), number(12.0, 0)
        ('−0.250', '0.000', '–', '12')
    """
    if value != value:
        return DASH
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def range_text(low: float, high: float, *, digits: int = 3) -> str:
    """Format both ends of an interval, such as ``0.100 to 0.200``.

    An end of exactly 0, 1 or −1 has no decimals. One that would only round to 0 gets so many that
    its side is seen.

    Examples:
        >>> range_text(-0.1, 1.0), range_text(-0.00024, 0.9996)
        ('−0.100 to 1', '−0.0002 to 1.000')
    """
    return f"{_end_text(low, digits)} to {_end_text(high, digits)}"


def _end_text(end: float, digits: int) -> str:
    """Format an end of an interval with at least one digit that is not 0, unless it is 0."""
    if abs(end - round(end)) < ZERO:
        return number(round(end), 0)
    while not float(f"{end:.{digits}f}"):
        digits += 1
    return number(end, digits)


def score_text(value: float) -> str:
    """Format a score or threshold: three decimals, or three digits where these would hide some.

    Examples:
        >>> score_text(0.71), score_text(0.06), score_text(0.00412)
        ('0.710', '0.060', '0.00412')
    """
    fits = abs(value) >= 0.1 or value == round(value, 3)
    return f"{value:.3f}" if fits else f"{value:.3g}"


def p_value_text(p_value: float) -> str:
    """Format a p-value for a table, with the side of 0.05 on which it lies; NaN becomes a dash.

    Examples:
        >>> p_value_text(0.0503), p_value_text(0.2), p_value_text(0.00002)
        ('0.0503', '0.200', '< 0.001')
    """
    if p_value < 0.001:
        return "< 0.001"
    return number(p_value, 4 if f"{p_value:.3f}" == "0.050" else 3)


def p_equation(p_value: float) -> str:
    """Format a p-value for a sentence.

    Examples:
        >>> p_equation(0.0517), p_equation(0.00002)
        ('p = 0.052', 'p < 0.001')
    """
    text = p_value_text(p_value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
