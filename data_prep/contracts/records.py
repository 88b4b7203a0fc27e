"""Records: the JSON files in folders as the objects that the program works with.

A record class is the schema of its file: `Record.read` accepts nothing that the class does not
describe, and `Record.write` writes what the object holds. Each class lives with its owner.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError
from pydantic_core import from_json

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.checksums import AGAIN
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_JSON_BYTES
from cxr_compare.data_prep.contracts.text_files import read_bytes

SCHEMA_VERSION = 2
"""Version of the schemas of all tables and JSON files."""

_Item = TypeVar("_Item")
Items = Annotated[tuple[_Item, ...], Strict(False)]
"""A tuple of any length, a list in the file."""
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""A whole number of 64 bits."""
NumbersByName = dict[str, float | None]
Digests = dict[str, str]
"""SHA-256 digest, in hexadecimal digits, by the name of a file beside the record."""


class Record(BaseModel):
    """Base class of the JSON files in folders, and of the objects inside them.

    A class of a file states the kind of the file: ``class Run(Record, kind="run")``. Types are
    strict, and numbers finite. A key that was never set is absent in the file.

    Example:
        >>> import tempfile
        >>> class Bench(Record, kind="bench"):
        ...     images_per_s: float
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Bench(images_per_s=31.0).write(Path(folder, "bench.json"))
        ...     Bench.read(Path(folder, "bench.json"))
        Bench(images_per_s=31.0)
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
        populate_by_name=True,
        protected_namespaces=(),
    )
    _kind: ClassVar[str] = ""

    def __init_subclass__(cls, *, kind: str = "", **options: Any) -> None:
        """Store the kind of the file; a class without one is a part of a file."""
        super().__init_subclass__(**options)
        cls._kind = kind or cls._kind

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file by key, without its kind and version."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    def with_values(self, **values: Any) -> Self:
        """Return a copy with other values of some attributes, which are checked."""
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**kept, **values})

    def write(self, path: Path) -> None:
        """Write the file. It appears only when it is complete."""
        write_json(path, self._kind, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check the file.

        A file that is missing, is not JSON, has another kind or schema version, lacks a key, or
        holds an unknown one or a wrong value is an `InputError`.
        """
        return cls.from_content(_read_content(path, cls._kind), path)

    @classmethod
    def from_content(cls, content: Any, path: Path) -> Self:
        """Check the content, without kind and version, of a file or a part of it.

        A key that is missing or unknown, or a wrong value, is an `InputError` that names the path.
        """
        try:
            return cls.model_validate_json(json.dumps(content, allow_nan=False))
        except ValidationError as error:
            problem = _error_line(error.errors(include_url=False)[0])
        except ValueError:  # a number such as 1e999
            problem = "holds a number that is too large"
        raise InputError(f"{path}: {problem}; {AGAIN}")


def write_json(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write a JSON file with its kind and schema version, which no program of ours reads again.

    Paths, and numbers and arrays of NumPy, are converted. A number that is not finite raises
    `ValueError`: write None for an undefined figure, and its reason under another key.
    """
    whole = {**content, "contract": kind, "schema_version": SCHEMA_VERSION}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False, default=_json_value)
    write_text(path, text + "\n")


def _json_value(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numbers and arrays of numpy, columns of pandas
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def _read_content(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON file of a kind, and return its content without kind and version."""
    if not path.is_file():
        raise InputError(
            f"{path}: not found, so {path.parent} is not a complete {kind.replace('_', ' ')} "
            "folder; run the command that makes it again"
        )
    raw = read_bytes(path, MAX_JSON_BYTES)
    try:
        content = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error}); {AGAIN}") from None
    stored_kind = content.pop("contract", None) if isinstance(content, dict) else None
    if stored_kind != kind:
        raise InputError(
            f"{path}: holds '{stored_kind}', expected '{kind}'; is this the right folder?"
        )
    version = content.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}; run the "
            "command that makes it again"
        )
    if rb"\u0000" in raw:
        raise InputError(f"{path}: holds a text with a zero character; {AGAIN}")
    return dict(content)


def _error_line(error: Any) -> str:
    """Return where pydantic found an error, what it expects there and what it found."""
    position = ".".join(map(str, error["loc"])) or "it"
    found = "" if error["type"] == "missing" else f", got {str(error['input'])[:40]!r}"
    return f"{position}: {error['msg'].removeprefix('Value error, ')}{found}"
