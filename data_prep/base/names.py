"""Names of columns by their content, names of findings, and targets."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.base.ids import ENDING
from cxr_compare.data_prep.base.tables import ROLE_NAMES

_NAMES = tomllib.loads(Path(__file__).with_name("column_names.toml").read_text(encoding="utf-8"))
_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")
LABELS = ("label", "y_true", "target", "truth", "ground_truth", "gt", "y", "present")
"""Names of the column of labels in a truth of one finding, which they do not name."""


@dataclass(frozen=True)
class Target:
    """One or several findings that a model is to detect, under one name.

    Attributes:
        name: Name in options and tables.
        any_of: Findings, any of which makes an image positive.
        display_name: Name on pages.
    """

    name: str
    any_of: tuple[str, ...]
    display_name: str

    @classmethod
    def of(cls, name: str, findings: Sequence[str]) -> Target:
        """Make a target of findings."""
        return cls(name, tuple(dict.fromkeys(findings)), display_name(name))


def names_by_role() -> dict[str, list[str]]:
    """Return the recognised names of columns in users' label tables, by what a column contains."""
    return dict(_NAMES["names"])


def predicted_names() -> dict[str, Sequence[str]]:
    """Return the names of columns in tables of predictions, which have no labels of images."""
    names = names_by_role()
    for_predictions = _NAMES["predictions"]
    roles = {role: names[role] for role in for_predictions["roles"]}
    # An id is what the truth calls an image; RSNA's patients have one image each.
    return {
        "file": ["imageid", *names["file"], "patientid"],
        "score": for_predictions["score"],
        "image_score": for_predictions["image_score"],
        **roles,
    }


@cache
def column_names(role: str) -> tuple[str, ...]:
    """Return the names by which a column is recognised, the most exact first."""
    return tuple((_NAMES["names"] | _NAMES["predictions"] | _NAMES["boxes"])[role])


def plain_name(column: str) -> str:
    """Return the name of a column as it is compared: letters and digits alone, without accents."""
    return re.sub("[^a-z0-9]", "", unicodedata.normalize("NFKD", column.casefold()))


def holds_roles(cells: pd.Series) -> bool:
    """Return True for texts of at least two of the roles train, val and test, and no other text."""
    if cells.iloc[0].lower() not in {"", *ROLE_NAMES}:  # as in most columns
        return False
    texts = {*cells.str.lower().unique()} - {""}
    return texts <= ROLE_NAMES.keys() and len({ROLE_NAMES[w] for w in texts} - {"unused"}) > 1


def find_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column that has one of several names, the preferred first, or None."""
    plain = {plain_name(column): column for column in reversed(columns)}
    return next((plain[name] for name in map(plain_name, names) if name in plain), None)


def find_patient_columns(columns: Sequence[str]) -> tuple[str, str] | None:
    """Return the columns of images and of patients of a table; None if it lacks one of them."""
    image = find_column(columns, ("image_id", *column_names("file")))
    patient = find_column(columns, column_names("patient"))
    return None if image is None or patient is None else (image, patient)


def missing_columns(names: Sequence[str]) -> str:
    """Return the phrase that says which columns a table lacks, all of them."""
    listed = ", ".join(f"'{name}'" for name in names)
    return f"column {listed} is missing" if len(names) == 1 else f"columns {listed} are missing"


def headless_problem(columns: Sequence[str]) -> str:
    """Return a phrase on a table whose first row holds values, or one cell; empty for names.

    Numbers that count from 0, as classes of `predict_proba`, name columns beside a name.
    """
    if len(columns) == 1 and re.search(r"[\s:|]", columns[0]):
        return (
            f"has one column, {columns[0]!r}; write commas, semicolons or tabs between the cells, "
            "and the names of the columns, such as image and label, as first line"
        )
    values = [c for c in columns if ENDING.search(c) or _NUMBER.fullmatch(c.strip())]
    are_classes = values == [*map(str, range(len(values)))] and len(values) < len(columns)
    if not values or are_classes:
        return ""
    return (
        f"the first row is no head: it holds the value {values[0]!r}; write the names of the "
        "columns above it"
    )


def finding_name(text: str) -> str:
    """Convert a published label to the name of a finding: lower case, words joined by ``_``."""
    return re.sub(r"[^a-z0-9]+", "_", without_accents(text)).strip("_")


def without_accents(text: str) -> str:
    """Return a text in lower case, with its Latin letters as they are typed without accents."""
    apart = unicodedata.normalize("NFD", text.lower())
    return unicodedata.normalize("NFC", re.sub("(?<=[a-z])[\u0300-\u036f]+", "", apart))


def is_named(finding: str) -> bool:
    """Return False for a finding that is called as columns of labels are, such as ``target``."""
    return finding not in ("finding", *LABELS)


def display_name(finding: str) -> str:
    """Convert the name of a finding to a text for people."""
    return finding.replace("_", " ").capitalize() if is_named(finding) else "the finding"


def names_finding(text: str) -> bool:
    """Return True if a class may name a finding: it is no number and no word such as ``lesion``."""
    is_number = _NUMBER.fullmatch(text.strip()) is not None
    return not is_number and plain_name(text) not in column_names("no_class")


def class_column(table: pd.DataFrame) -> str | None:
    """Return the column, among those without a use, that holds the class of each box, or None."""
    by_name = {plain_name(str(column)): str(column) for column in reversed(table.columns)}
    classes = {}
    for name in dict.fromkeys(("finding", *column_names("label"), *column_names("class"))):
        if name in by_name:
            cells = table[by_name[name]].dropna().astype(str).str.strip()
            classes[by_name[name]] = set(cells) - {""}
    naming = [column for column, values in classes.items() if any(map(names_finding, values))]
    several = [column for column, values in classes.items() if len(values) > 1]
    filled = [column for column, values in classes.items() if values]
    return next(iter([*naming, *several, *filled]), None)
