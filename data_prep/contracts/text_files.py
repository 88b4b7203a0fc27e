"""Reading of users' text, TOML, YAML and JSON files in any Unicode encoding.

Editors on Windows put a byte order mark before UTF-8, and Excel saves "Unicode text" as UTF-16.
"""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.limits import MAX_JSON_BYTES, MAX_YAML_BYTES, require_depth

_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins as UTF-16 does, so it comes first
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def decode_text(content: bytes, source: str, errors: str = "strict") -> str:
    """Decode a text in UTF-8, or in the encoding that its byte order mark states, without the mark.

    `content` may be only the first lines of a file; `errors` is Python's name for what is done with
    bytes that are no text, such as ``replace``. Messages begin with `source`.

    Example:
        >>> decode_text("file;label".encode("utf-16"), "labels.csv")
        'file;label'
    """
    mark = next((mark for mark in _ENCODINGS if content.startswith(mark)), b"")
    encoding = _ENCODINGS.get(mark, "utf-8")
    try:
        return content[len(mark) :].decode(encoding, errors)
    except UnicodeDecodeError as error:
        line = content[: len(mark) + error.start].count(b"\n") + 1
        name = encoding.removesuffix("-le").removesuffix("-be").upper()
        raise InputError(
            f"{source}: cannot be read as text in {name} (line {line}: {error.reason}); save it as "
            "UTF-8"
        ) from None


def read_text_file(path: Path) -> str:
    """Read a text file in any encoding that `decode_text` knows."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None
    return decode_text(content, str(path))


def read_toml_file(path: Path) -> dict[str, Any]:
    """Read a TOML file in any encoding that `decode_text` knows as nested dictionaries."""
    return parse_toml(read_text_file(path), str(path))


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Parse a text in TOML; `source` is the file or option that contains it, for the message."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits raises ValueError
        raise InputError(f"{source}: is not TOML: {_reason(error)}") from None


def read_yaml_file(path: Path) -> Any:
    """Read a YAML file without aliases: with them a few lines can stand for gigabytes.

    A file that has an alias, or is larger or deeper than the limits, is refused.
    """
    import yaml  # type: ignore[import-untyped]

    content = read_bytes(path, MAX_YAML_BYTES)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(content, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise InputError(
                    f"{path}: line {event.start_mark.line + 1}: *{event.anchor} is an alias; write "
                    "what it stands for"
                )
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            require_depth(depth, path)
        return yaml.load(content, Loader=loader)  # noqa: S506 - one of the safe loaders
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not readable as YAML ({_reason(error)[:120]})") from None


def read_json_file(path: Path) -> Any:
    """Read a JSON file in UTF-8 or the encoding of its byte order mark.

    A file that is larger or deeper than the limits is refused.
    """
    from pydantic_core import from_json  # an own limit of depth, see MAX_DEPTH

    content = read_bytes(path, MAX_JSON_BYTES)
    try:
        return from_json(decode_text(content, str(path)))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({_reason(error)})") from None


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """Read a file, and raise InputError if it cannot be read or is larger than a limit."""
    try:
        size = path.stat().st_size
        if size <= most_bytes:
            return path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None
    raise InputError(
        f"{path}: has {size / 2**20:,.0f} MiB, the limit of such a file is {most_bytes >> 20:,} MiB"
    )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
