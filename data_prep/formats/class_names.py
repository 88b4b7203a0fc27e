"""Class names and states of findings, as people write them in labels."""

from __future__ import annotations

import re
import unicodedata

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import renamed

_WORDS = {
    "present": (
        "1", "+", "y", "t", "yes", "true", "present", "positive", "pos",
        "j", "ja", "wahr", "vorhanden", "positiv", "oui", "vrai", "sí", "si", "sim", "sì",
        "positivo", "positif", "はい", "有", "有り", "あり", "是", "陽性", "阳性",
    ),
    "absent": (
        "0", "-", "n", "f", "no", "false", "absent", "negative", "neg",
        "nein", "falsch", "negativ", "non", "faux", "não", "nao",
        "negativo", "négatif", "いいえ", "無", "无", "無し", "なし", "否", "陰性", "阴性",
    ),
    "uncertain": ("-1", "uncertain"),
}  # fmt: skip
STATE_OF_TEXT = {word: state for state, words in _WORDS.items() for word in words}
"""State by the text that people write for it, in the form that `plain_cells` gives."""


def plain_cells(cells: pd.Series) -> pd.Series:
    """Return cells in lower case, with whole numbers as ``1`` where they are written ``1.00``.

    Args:
        cells: Cells of a column as text. Signs of other scripts, such as a full-width ``１`` or the
            minus ``−``, become those of ASCII.

    Example:
        >>> plain_cells(pd.Series(["1.00", "Yes ", "−1"])).tolist()
        ['1', 'yes', '-1']
    """
    distinct = cells.drop_duplicates()
    plain = distinct.map(lambda cell: unicodedata.normalize("NFKC", cell).replace("−", "-"))
    plain = (
        plain.str.strip().str.lower().str.replace(r"^(-?)\+?(\d+)(?:[.,]0*)?$", r"\1\2", regex=True)
    )
    return renamed(cells, dict(zip(distinct, plain, strict=True)))


def states_of_cells(cells: pd.Series) -> pd.Series:
    """Return the state that each cell writes, such as ``present`` for 1; missing if it is none."""
    return renamed(plain_cells(cells), {"": "", **STATE_OF_TEXT})


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
