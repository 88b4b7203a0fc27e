"""Names of columns in label, box and prediction tables, by the role of the column."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def names_by_role() -> dict[str, list[str]]:
    """Return the names of columns of label tables by role, the most exact name first.

    Returns:
        Lists of names, in lower case, letters and digits alone.

    Example:
        >>> "patient" in names_by_role()
        True
    """
    return dict(_TABLE["names"])


def column_names(role: str) -> tuple[str, ...]:
    """Return the names of columns of a role, in lower case, letters and digits alone.

    Args:
        role: Key of ``column_names.toml``, such as ``file`` or ``score``.

    Returns:
        The names, the most exact first.

    Example:
        >>> "filename" in column_names("file"), "prob" in column_names("score")
        (True, True)
    """
    return tuple((_TABLE["names"] | _TABLE["predictions"])[role])


def find_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first name that a column has; case and punctuation do not matter.

    Args:
        columns: Columns of a table.
        names: Possible names, the most exact first.

    Returns:
        The column as the table calls it; None if there is none.

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
