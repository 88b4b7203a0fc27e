"""Names of findings, as tables store them (`pleural_effusion`) and as people read them; targets."""

from __future__ import annotations

import re
from dataclasses import dataclass


def finding_name(text: str) -> str:
    """Convert a published label to the name of a finding: lower case, words joined by ``_``.

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
    """Convert the name of a finding to a text for people; "the finding" where a table names none.

    Example:
        >>> display_name("pleural_thickening"), display_name("label")
        ('Pleural thickening', 'the finding')
    """
    return finding.replace("_", " ").capitalize() if is_named(finding) else "the finding"


@dataclass(frozen=True)
class Target:
    """One or several findings that a model is to detect, under one name.

    A finding is a disease or abnormality such as ``consolidation``.

    An image is positive if any of the findings is present, and negative if all are absent.
    Otherwise its label is unknown; evaluations leave the image out and state the number of such
    images.

    Attributes:
        name: Name of the target in options and tables, such as ``opacity``.
        any_of: Names of the findings, in the order in which a model outputs them.
        display_name: Name of the target on pages and in sentences, such as "Lung opacity".
    """

    name: str
    any_of: tuple[str, ...]
    display_name: str
