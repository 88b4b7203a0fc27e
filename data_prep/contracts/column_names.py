"""What columns of label, box and prediction tables are called, by the role that they play."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def names_by_role() -> dict[str, list[str]]:
    """Return the names of columns of label tables by role, the most exact name first."""
    return dict(_TABLE["names"])


def column_names(role: str) -> tuple[str, ...]:
    """Return the names, letters and digits in lower case, by which a column of a role is known.

    Example:
        >>> "filename" in column_names("file"), "prob" in column_names("score")
        (True, True)
    """
    return tuple((_TABLE["names"] | _TABLE["predictions"])[role])


def find_column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first column whose letters and digits are one of the names.

    Example:
        >>> find_column(["Image Index", "Prob."], ("prob",))
        'Prob.'
    """
    plain = {re.sub("[^a-z0-9]", "", column.lower()): column for column in reversed(columns)}
    wanted = (re.sub("[^a-z0-9]", "", name.lower()) for name in names)
    return next((plain[name] for name in wanted if name in plain), None)
