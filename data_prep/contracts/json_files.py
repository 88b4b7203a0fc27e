"""JSON files that contain their kind, their schema version and their checksum.

JSON files and tables have the same schema version.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.checksums import (
    CHECKSUM_PLACEHOLDER,
    has_valid_checksum,
    remake_instruction,
)
from cxr_compare.data_prep.contracts.errors import InputError

if TYPE_CHECKING:
    from cxr_compare.data_prep.contracts.records import Record

SCHEMA_VERSION = 1
"""Version of the schemas of all tables and JSON files."""

_LOG = logging.getLogger("cxr")
_folders_warned_about: set[Path] = set()  # a process warns once of a folder without checksums


def write_json(path: Path, kind: str, payload: dict[str, Any]) -> None:
    """Write a JSON file with its kind, schema version and checksum.

    The file appears only when it is complete.

    Args:
        path: Path of the file. An old file is replaced.
        kind: Kind of the file, such as "run" or "dataset", which `read_json` checks.
        payload: Content of the file by key. Paths, and numbers and arrays of NumPy, are converted.

    Raises:
        ValueError: A number is not finite. Write None for an undefined figure, and its reason under
            another key.
        InputError: The disk is full or access is denied.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder, "bench.json"), "bench", {"images_per_s": 31})
        ...     read_json(Path(folder, "bench.json"), "bench")
        {'images_per_s': 31, 'contract': 'bench', 'schema_version': 1}
    """
    content = {
        **payload,
        "contract": kind,
        "schema_version": SCHEMA_VERSION,
        **CHECKSUM_PLACEHOLDER,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_json_value)
    write_text(path, text + "\n", with_checksum=True)


def _json_value(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numbers and arrays of numpy, columns of pandas
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


class _CheckedRecord(dict[str, Any]):
    """The content of a checked JSON file without its checksum.

    Some keys may be absent. Code that cannot do without such a key indexes the dictionary as usual;
    the error then names the file.
    """

    def __init__(self, path: Path, kind: str, content: dict[str, Any]) -> None:
        super().__init__(
            {key: value for key, value in content.items() if key not in CHECKSUM_PLACEHOLDER}
        )
        self._path = path
        self._kind = kind

    def __missing__(self, key: str) -> Any:
        raise InputError(
            f"{self._path}: lacks '{key}'; bring back an unchanged copy, or "
            f"{remake_instruction(self._kind)}"
        )


def read_json(path: Path, kind: str, model: type[Record] | None = None) -> dict[str, Any]:
    """Read and check a JSON file that `write_json` wrote.

    Args:
        path: Path of the file.
        kind: Kind that the file must have, such as "run".
        model: Model that the content must match; None takes that of its kind in
            `data_prep.contracts.records`, if it has one.

    Returns:
        The content without the checksum.

    Raises:
        InputError: The file is missing, was changed after it was written, is not JSON, has another
            kind or schema version, or does not match the model.

    Example:
        >>> read_json(Path("no-such-folder", "run.json"), "run")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: no-such-folder/run.json: not found, ...
    """
    # Imported here so that a command that reads no file, such as a help, starts without pydantic.
    from cxr_compare.data_prep.contracts.records import record_error

    if not path.is_file():
        raise InputError(
            f"{path}: not found, so {path.parent} is not a complete {kind.replace('_', ' ')} "
            "folder; run the command that makes it again"
        )
    raw = path.read_bytes()
    if not has_valid_checksum(path, raw, kind):
        _warn_without_checksum(path)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); make it again") from None
    stored_kind = content.get("contract") if isinstance(content, dict) else None
    if stored_kind != kind:
        raise InputError(
            f"{path}: holds '{stored_kind}', expected '{kind}'; is this the right folder?"
        )
    if content.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {content.get('schema_version')}, this program reads "
            f"{SCHEMA_VERSION}; make the folder again with this version"
        )
    problem = record_error(kind, content, model)
    if problem is not None:
        raise InputError(
            f"{path}: {problem}; bring back an unchanged copy, or {remake_instruction(kind)}"
        )
    return _CheckedRecord(path, kind, content)


def _warn_without_checksum(path: Path) -> None:
    """Warn once for each folder that its files cannot be checked."""
    if _folders_warned_about.isdisjoint(path.parents):
        _folders_warned_about.add(path.parent)
        _LOG.warning(
            "%s: was written without a checksum, so changes since then cannot be noticed; make it "
            "again to add one",
            path,
        )
