"""Lists and names inside a sentence."""

from __future__ import annotations


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
