"""Names of columns in label, box and prediction tables, by the role of the column."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import ROLE_NAMES

if TYPE_CHECKING:
    import pandas as pd

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def names_by_role() -> dict[str, list[str]]:
    """Return the recognised names of columns in users' label tables, by what the column contains.

    The names of a role, such as ``file``, ``patient`` or ``score``, begin with the most exact. They
    have only lower-case letters and digits: upper and lower case, accents, spaces and punctuation
    of a user's column name are ignored.
    """
    return dict(_TABLE["names"])


def column_names(role: str) -> tuple[str, ...]:
    """Return the names by which a column with a given content is recognised, the most exact first.

    The role is a key of the package's file ``column_names.toml``, such as ``score``; the names are
    as in `names_by_role`.
    """
    return tuple((_TABLE["names"] | _TABLE["predictions"] | _TABLE["boxes"])[role])


_RSNA_BOXES = ("patientid", "x", "y", "width", "height")


def image_names(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names by which the column of images is recognised, the most exact first.

    In the label file of the RSNA Pneumonia Detection Challenge, and only there, ``patientId`` is an
    image.

    Example:
        >>> image_names(["patientId", "x", "y", "width", "height", "Target"])[-1]
        'patientid'
    """
    is_rsna = all(find_column(columns, (name,)) for name in _RSNA_BOXES)
    return ("image_id", *column_names("file"), *(_RSNA_BOXES[:1] if is_rsna else ()))


def find_patient_columns(columns: Sequence[str]) -> tuple[str, str] | None:
    """Find the columns of images and of patients in a table that lists the patient of each image.

    None if the table lacks one of them.

    Example:
        >>> find_patient_columns(["Image Index", "Patient ID", "Age"])
        ('Image Index', 'Patient ID')
    """
    image = find_column(columns, ("image_id", *column_names("file")))
    patient = find_column(columns, ("patient_id", *column_names("patient")))
    return None if image is None or patient is None else (image, patient)


def split_column(table: pd.DataFrame, where: str, advice: str) -> str | None:
    """Return the column that says train, val or test of each row; None without one.

    A column with a name such as ``split`` is it, else the only one that holds two of these roles
    and nothing else, whatever it is called. InputError for two of them, with the advice how the
    user chooses one.
    """
    named = find_column([*table.columns], column_names("split"))
    if named is not None:
        return named
    found = [str(column) for column, cells in table.items() if _holds_roles(cells)]
    if len(found) > 1:
        raise InputError(
            f"{where}: which column says the role of an image, '{found[0]}' or '{found[1]}'? "
            f"{advice}"
        )
    return found[0] if found else None


def _holds_roles(cells: pd.Series) -> bool:
    """Return True for cells of at least two of the roles train, val and test, and no other text."""
    if cells.dtype.kind in "biufcmM":
        return False
    words = {word.strip().lower() for word in cells.dropna().astype(str).unique()} - {""}
    return words <= ROLE_NAMES.keys() and len({ROLE_NAMES[w] for w in words} - {"unused"}) > 1


def find_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column of a table that has one of several names, the preferred first, or None.

    Upper and lower case, accents and punctuation are ignored.

    Example:
        >>> find_column(["Image Index", "Prob."], ("prob",))
        'Prob.'
    """
    plain = {plain_name(column): column for column in reversed(columns)}
    return next((plain[name] for name in map(plain_name, names) if name in plain), None)


def plain_name(column: str) -> str:
    """Return the name of a column as it is compared: letters and digits alone, without accents.

    Example:
        >>> plain_name("Prob."), plain_name("Âge"), plain_name("Patiënt-ID")
        ('prob', 'age', 'patientid')
    """
    letters = unicodedata.normalize("NFKD", column.casefold())
    return re.sub("[^a-z0-9]", "", letters)


def missing_columns(names: Sequence[str]) -> str:
    """Return the phrase that says which columns a table lacks, all of them.

    Example:
        >>> missing_columns(["image_id"]), missing_columns(["x1", "y1"])
        ("column 'image_id' is missing", "columns 'x1', 'y1' are missing")
    """
    listed = ", ".join(f"'{name}'" for name in names)
    return f"column {listed} is missing" if len(names) == 1 else f"columns {listed} are missing"


def lacks_head(columns: Sequence[str]) -> bool:
    """Return True if the first row of a table names an image file: it is no row of column names.

    Example:
        >>> lacks_head(["p000_0.png", "opacity"]), lacks_head(["file", "label"])
        (True, False)
    """
    return any(_IMAGE_FILE.search(column) for column in columns)


def headless_problem(columns: Sequence[str]) -> str:
    """Return a phrase on a table whose first row holds values; empty if it holds names."""
    values = [c for c in columns if _IMAGE_FILE.search(c) or _NUMBER.fullmatch(c.strip())]
    if not values:
        return ""
    return (
        f"the first row is no head: it holds the value {values[0]!r}; write the names of the "
        "columns above it"
    )


_IMAGE_FILE = re.compile(r"\.(?:png|jpe?g|tiff?|webp|bmp|dcm|dicom)$", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")
