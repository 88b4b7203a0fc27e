"""Reading of users' text and TOML files in any Unicode encoding.

Editors on Windows put a byte order mark before UTF-8, and Excel saves "Unicode text" as UTF-16.
"""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError

_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins as UTF-16 does, so it comes first
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def decode_text(content: bytes, source: str, errors: str = "strict") -> str:
    """Decode a text in UTF-8, or in the encoding that its byte order mark states, without the mark.

    Args:
        content: All bytes of a file, or those of its first lines.
        source: Name of the file, for the message.
        errors: Python's name for what is done with bytes that are no text, such as ``replace``.

    Raises:
        InputError: The bytes are not text in UTF-8, UTF-16 or UTF-32.

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
    """Read a text file in any encoding that `decode_text` knows.

    Raises:
        InputError: The file cannot be read, or is not text.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None
    return decode_text(content, str(path))


def read_toml_file(path: Path) -> dict[str, Any]:
    """Read a TOML file in any encoding that `decode_text` knows as nested dictionaries.

    Raises:
        InputError: The file cannot be read, is not text, or is not TOML.
    """
    return parse_toml(read_text_file(path), str(path))


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Parse a text in TOML; `source` is the file or option that contains it, for the message.

    Raises:
        InputError: The text is not TOML.

    Example:
        >>> parse_toml("seed = 3", "ours.toml")
        {'seed': 3}
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits raises ValueError
        raise InputError(f"{source}: is not TOML: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
