"""Write the small part of TOML that configurations use; Python reads TOML but does not write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dump_toml(content: Mapping[str, Any]) -> str:
    """Write a mapping as TOML; None is left out, since TOML has no such value.

    Args:
        content: Texts, numbers, booleans, lists of them, and tables; tables in tables are written
            inline.

    Returns:
        Text that `tomllib` reads back to the same values.

    Raises:
        TypeError: A value is of another kind.

    Example:
        >>> print(dump_toml({"name": "a", "data": {"size": 256, "target": None}}), end="")
        name = "a"
        <BLANKLINE>
        [data]
        size = 256
    """
    tables = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    lines = _lines({key: value for key, value in content.items() if key not in tables})
    for key, table in tables.items():
        lines += ["", f"[{key}]", *_lines(table)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_lines(value)) + " }"
    raise TypeError(
        f"Expected a text, number, boolean, list or table but got {type(value).__name__}"
    )
