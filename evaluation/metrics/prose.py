"""Lists and names inside a sentence."""

from __future__ import annotations

from collections.abc import Sequence


def listing(parts: Sequence[str]) -> str:
    """Join words or phrases as in prose, with commas, and with "and" before the last.

    Args:
        parts: The words or phrases, in the order in which they are to be read.

    Returns:
        One phrase; an empty text if ``parts`` is empty.

    Example:
        >>> listing(["A"]), listing(["A", "B", "C"])
        ('A', 'A, B and C')
    """
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def inside_sentence(display_name: str) -> str:
    """Lower the first letter of a finding's name, except where it is an abbreviation.

    Args:
        display_name: Name of the finding (the disease sign that the systems look for) as a table
            shows it, such as ``Lung opacity``.

    Returns:
        The name in the form for the middle of a sentence.

    Example:
        >>> inside_sentence("Lung opacity"), inside_sentence("COVID-19")
        ('lung opacity', 'COVID-19')
    """
    is_abbreviation = len(display_name) > 1 and display_name[1].isupper()
    return display_name if is_abbreviation else display_name[:1].lower() + display_name[1:]
