"""Meaning of single cells of label tables: states, classes, views, sexes and ages."""

from __future__ import annotations

import math
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.table_files import refuse_line
from cxr_compare.data_prep.contracts.text import TEXT

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
    "uncertain": (
        "-1", "uncertain", "unsure", "unclear", "possible", "possibly", "probable", "probably",
        "suspected", "questionable", "equivocal", "indeterminate", "inconclusive",
        "fraglich", "unklar", "unsicher",
    ),
}  # fmt: skip
STATE_OF_TEXT = {word: state for state, words in _WORDS.items() for word in words}
"""State by the text that people write for it, in the form that `plain_cells` gives."""

_NO_FINDING = ("no_finding", "no_findings", "normal", "healthy", "background")
# The 2017 table of NIH writes 058Y, 013M and 002D.
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@cache
def dictionary() -> dict[str, Any]:
    """Return the words of label tables in ``columns.toml``, such as those for unknown."""
    path = Path(__file__).with_name("columns.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def plain_cells(cells: pd.Series) -> pd.Series:
    """Return cells in lower case, with whole numbers as ``1`` where they are written ``1.00``.

    Signs of other scripts, such as a full-width ``１`` or the minus ``−``, become those of ASCII.

    Example:
        >>> plain_cells(pd.Series(["1.00", "Yes ", "−1"])).tolist()
        ['1', 'yes', '-1']
    """
    distinct = cells.drop_duplicates()
    plain = distinct.map(lambda cell: unicodedata.normalize("NFKC", cell).replace("−", "-"))
    plain = plain.str.strip().str.lower()
    plain = plain.str.replace(r"^(-?)\+?(\d+)(?:[.,]0*)?$", r"\1\2", regex=True)
    return renamed(cells, dict(zip(distinct, plain, strict=True)))


def states_of_cells(cells: pd.Series) -> pd.Series:
    """Return the state that each cell writes, such as ``present`` for 1; missing if it is none."""
    return renamed(plain_cells(cells), {"": "", **STATE_OF_TEXT})


def holds_states(cells: pd.Series) -> bool:
    """Return True if every cell with content says present, absent, uncertain or unknown."""
    states = states_of_cells(cells)
    is_unknown = is_member(plain_cells(cells), dictionary()["unknown"])
    return bool((states.notna() | is_unknown).all() and (states.fillna("") != "").any())


def class_finding(name: str, where: str) -> str:
    """Convert a class name of a label file, in any script, to the name of a finding.

    Example:
        >>> class_finding("Pleural Effusion", "labels.csv")
        'pleural_effusion'
    """
    name = unicodedata.normalize("NFC", name)  # a letter and its accent may be two characters
    plain = finding_name(name) if name.isascii() else re.sub(r"\W+", "_", name.lower()).strip("_")
    if not plain:
        raise InputError(f"{where}: class name {name!r} has no letter; give it a name")
    return plain


@cache
def normal_classes() -> frozenset[str]:
    """Return the class names, such as ``normal``, that say that nothing was found."""
    return frozenset({*_NO_FINDING, *dictionary()["normal"]})


def normal_views(text: pd.Series) -> pd.Series:
    """Translate names of the projection to PA, AP, LL (lateral) or other; empty ones are missing.

    Example:
        >>> normal_views(pd.Series(["ap supine", "Lateral", "oblique"])).tolist()
        ['AP', 'LL', 'other']
    """
    lower = text.fillna("").astype(TEXT).str.strip().str.lower()
    views = dictionary()["values"]["view"]
    names = {name: views.get(name, "other") for name in lower.unique() if name}
    return renamed(lower, {name: view for name, view in names.items() if view})


def years(text: pd.Series, path: Path) -> pd.Series:
    """Convert ages such as ``58``, ``058Y`` and ``006M`` to years; an empty cell is missing."""
    parts = text.str.upper().str.extract(r"^0*(\d+(?:\.\d+)?)([YMWD]?)$")
    refuse_line(parts[0].isna() & (text != ""), path, "; expected years, or 058Y", text)
    return parts[0].astype("float64") * parts[1].map(_YEARS).astype("float64")


def ambiguous_sexes(cells: pd.Series) -> set[str]:
    """Return letters of a column of sexes that mean a man in one language and a woman in another.

    ``v`` is Dutch vrouw or Spanish varón, and ``m`` beside ``v`` or ``h`` is man or Spanish mujer.
    """
    letters = {"v", "h", "m"} & set(cells)
    ambiguous = letters & {"v"}
    return ambiguous | (letters & {"m"}) if letters - {"m"} else ambiguous


_FREE_KEYS = ("patient_id", "study_id", "view", "sex", "age_years")


def plain_facts(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return patient, study, view, sex and age from an image's entry in a label file.

    Values of a wrong type are left out.
    """
    texts = {
        key: str(entry[key]).strip()
        for key in _FREE_KEYS
        if isinstance(entry.get(key), str | int | float)
    }
    facts: dict[str, Any] = {key: texts.get(key) for key in ("patient_id", "study_id")}
    values = dictionary()["values"]
    if texts.get("view"):
        facts["view"] = values["view"].get(texts["view"].lower(), "other")
    facts["sex"] = values["sex"].get(texts.get("sex", "").lower())
    (age,) = finite_or_nan([entry.get("age_years")])
    facts["age_years"] = None if math.isnan(age) else age
    return {key: value for key, value in facts.items() if value not in (None, "")}
