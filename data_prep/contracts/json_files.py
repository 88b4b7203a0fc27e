"""The JSON files on disk: one owner for reading and writing them, without pandas.

Each names its kind and the schema version, which tables share, and appears whole or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import atomic_path

SCHEMA_VERSION = 1


def write_json(path: Path, kind: str, payload: dict[str, Any]) -> None:
    """Write a JSON file with its kind and schema version, whole or not at all.

    Non-finite numbers are refused: an undefined figure is ``null`` with a reason beside it.
    """
    content = {**payload, "contract": kind, "schema_version": SCHEMA_VERSION}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numbers and arrays of numpy, columns of pandas
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON file written by `write_json`.

    Raises:
        InputError: The file is missing, is not JSON, or is of another kind or version.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: not found, so {path.parent} is not a complete {kind.replace('_', ' ')} "
            "folder; run the command that makes it again"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); make it again") from None
    found = content.get("contract") if isinstance(content, dict) else None
    if found != kind:
        raise InputError(f"{path}: holds '{found}', expected '{kind}'; is this the right folder?")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {content.get('schema_version')}, this program reads "
            f"{SCHEMA_VERSION}; make the folder again with this version"
        )
    return content
