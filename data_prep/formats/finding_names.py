"""Names of findings as tables hold them and as people read them."""

from __future__ import annotations

import re


def finding_name(text: str) -> str:
    """Turn a published label into the name of a finding: lower case, words joined by ``_``.

    Args:
        text: A name as a source writes it.

    Returns:
        The name in lower case with underscores.

    Example:
        >>> finding_name("Pleural Thickening"), finding_name("Nodule/Mass")
        ('pleural_thickening', 'nodule_mass')
    """
    return re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")


def display_name(finding: str) -> str:
    """Turn the name of a finding into text for people.

    Args:
        finding: Name of a finding, such as ``pleural_thickening``.

    Returns:
        The text, with a capital letter first.

    Example:
        >>> display_name("pleural_thickening")
        'Pleural thickening'
    """
    return finding.replace("_", " ").capitalize()
