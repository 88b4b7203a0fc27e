"""Names of findings, as tables store them (`pleural_effusion`) and as people read them."""

from __future__ import annotations

import re


def finding_name(text: str) -> str:
    """Convert a published label to the name of a finding: lower case, words joined by ``_``.

    Args:
        text: Label as a public data set writes it.

    Returns:
        The name of the finding.

    Example:
        >>> finding_name("Pleural Thickening"), finding_name("Nodule/Mass")
        ('pleural_thickening', 'nodule_mass')
    """
    return re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")


def is_named(finding: str) -> bool:
    """Return False for a finding that is called as columns of labels are, such as ``target``."""
    return finding not in _NO_NAMES


_NO_NAMES = ("finding", "label", "y_true", "target", "truth", "ground_truth", "gt", "y", "present")


def display_name(finding: str) -> str:
    """Convert the name of a finding to a text for people.

    Args:
        finding: Name of a finding, such as ``pleural_thickening``.

    Returns:
        The text, which begins with a capital letter; "the finding" where a table names none.

    Example:
        >>> display_name("pleural_thickening"), display_name("label")
        ('Pleural thickening', 'the finding')
    """
    return finding.replace("_", " ").capitalize() if is_named(finding) else "the finding"
