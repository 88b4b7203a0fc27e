"""Class names and states of findings, as people write them in labels."""

from __future__ import annotations

import re
import unicodedata

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.formats.finding_names import finding_name

STATE_OF_TEXT = {
    **dict.fromkeys(("present", "positive", "true", "yes", "1", "1.0"), "present"),
    **dict.fromkeys(("absent", "negative", "false", "no", "0", "0.0"), "absent"),
    **dict.fromkeys(("uncertain", "-1", "-1.0"), "uncertain"),
}
"""State by the text that people write for it, in lower case."""


NO_FINDING_CLASSES = frozenset({"no_finding", "no_findings", "normal", "healthy", "background"})
"""Class names that mean that an image shows no finding; some converters box the whole image."""


def class_finding(name: str, where: str) -> str:
    """Convert a class name of a label file, in any script, to the name of a finding (disease).

    Args:
        name: Class name in the file.
        where: File or position of the name, for the error message.

    Returns:
        Name in lower case, with words joined by ``_``.

    Raises:
        InputError: The name has no letter.

    Example:
        >>> class_finding("Pleural Effusion", "labels.csv")
        'pleural_effusion'
    """
    name = unicodedata.normalize("NFC", name)  # a letter and its accent may be two characters
    plain = finding_name(name) if name.isascii() else re.sub(r"\W+", "_", name.lower()).strip("_")
    if not plain:
        raise InputError(f"{where}: class name {name!r} has no letter; give it a name")
    return plain
