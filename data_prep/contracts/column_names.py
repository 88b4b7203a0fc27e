"""Names of columns in label, box and prediction tables, by the role of the column."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def names_by_role() -> dict[str, list[str]]:
    """Return the recognised names of columns in users' label tables, by what the column contains.

    Upper and lower case, spaces and punctuation of a user's column name are ignored.

    Returns:
        A list of names for each role, the most exact first. A role is what a column contains, such
        as ``file``, ``patient`` or ``score``. A name has only lower-case letters and digits.

    Example:
        >>> "patient" in names_by_role()
        True
    """
    return dict(_TABLE["names"])


def column_names(role: str) -> tuple[str, ...]:
    """Return the names by which a column with a given content is recognised in a user's table.

    Args:
        role: What the column contains: ``file`` (path of an image), ``patient``, ``score`` or
            another key of the package's file ``column_names.toml``.

    Returns:
        The names, the most exact first. A name has only lower-case letters and digits.

    Example:
        >>> "filename" in column_names("file"), "prob" in column_names("score")
        (True, True)
    """
    return tuple((_TABLE["names"] | _TABLE["predictions"])[role])


_RSNA_BOXES = ("patientid", "x", "y", "width", "height")


def image_names(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names by which the column of images is recognised in a table.

    In the label file of the RSNA Pneumonia Detection Challenge, and only there, ``patientId`` is an
    image.

    Args:
        columns: Names of the table's columns.

    Returns:
        The names, the most exact first.

    Example:
        >>> image_names(["patientId", "x", "y", "width", "height", "Target"])[-1]
        'patientid'
    """
    is_rsna = all(find_column(columns, (name,)) for name in _RSNA_BOXES)
    return ("image_id", *column_names("file"), *(_RSNA_BOXES[:1] if is_rsna else ()))


def find_patient_columns(columns: Sequence[str]) -> tuple[str, str] | None:
    """Find the columns of images and of patients in a table that lists the patient of each image.

    Args:
        columns: Names of the table's columns.

    Returns:
        Name of the column of image ids or file names, and name of the column of patients, as the
        table spells them; None if the table lacks one of them.

    Example:
        >>> find_patient_columns(["Image Index", "Patient ID", "Age"])
        ('Image Index', 'Patient ID')
    """
    image = find_column(columns, ("image_id", *column_names("file")))
    patient = find_column(columns, ("patient_id", *column_names("patient")))
    return None if image is None or patient is None else (image, patient)


def find_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Find the column of a table that has one of several possible names.

    Upper and lower case and punctuation are ignored.

    Args:
        columns: Names of the table's columns.
        names: Possible names, the preferred name first.

    Returns:
        Name of the column as the table spells it; None if no column has such a name.

    Example:
        >>> find_column(["Image Index", "Prob."], ("prob",))
        'Prob.'
    """
    plain = {re.sub("[^a-z0-9]", "", column.lower()): column for column in reversed(columns)}
    for name in names:
        plain_name = re.sub("[^a-z0-9]", "", name.lower())
        if plain_name in plain:
            return plain[plain_name]
    return None
