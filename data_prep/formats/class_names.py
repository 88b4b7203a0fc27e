"""Class names and states as people write them in labels."""

from __future__ import annotations

import re
import unicodedata

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.formats.finding_names import finding_name

STATE_WORDS = {
    **dict.fromkeys(("present", "positive", "true", "yes", "1", "1.0"), "present"),
    **dict.fromkeys(("absent", "negative", "false", "no", "0", "0.0"), "absent"),
    **dict.fromkeys(("uncertain", "-1", "-1.0"), "uncertain"),
}
"""How people write a state, in lower case."""


NO_FINDING = frozenset({"no_finding", "no_findings", "normal", "healthy", "background"})
"""Class names that say that nothing is there; some converters box the whole image with them."""


def class_finding(name: str, where: str) -> str:
    """The finding that a class of a label file means, in any script."""
    name = unicodedata.normalize("NFC", name)  # a letter and its accent may be two signs
    plain = finding_name(name) if name.isascii() else re.sub(r"\W+", "_", name.lower()).strip("_")
    if not plain:
        raise InputError(f"{where}: class name {name!r} has no letter; give it a name")
    return plain
