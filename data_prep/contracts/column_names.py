"""Names of columns in label, box and prediction tables, by the role of the column."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def names_by_role() -> dict[str, list[str]]:
    """Return the recognised names of the columns of label tables, by the role of the column.

    A role is what a column contains, such as ``file``, ``patient`` or ``score``.

    Returns:
        For each role a list of names, the most exact first. A name has only lower-case letters and
        digits.

    Example:
        >>> "patient" in names_by_role()
        True
    """
    return dict(_TABLE["names"])


def column_names(role: str) -> tuple[str, ...]:
    """Return the names by which a column with a given role is recognised in a label table.

    Args:
        role: What the column contains: a key of ``column_names.toml``, such as ``file`` or
            ``score``.

    Returns:
        The names, the most exact first. A name has only lower-case letters and digits.

    Example:
        >>> "filename" in column_names("file"), "prob" in column_names("score")
        (True, True)
    """
    return tuple((_TABLE["names"] | _TABLE["predictions"])[role])


def find_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column of a table that has one of some names.

    Upper and lower case and punctuation are ignored.

    Args:
        columns: Columns of the table.
        names: Possible names, the most exact first.

    Returns:
        The column as the table spells it; None if no column has such a name.

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
