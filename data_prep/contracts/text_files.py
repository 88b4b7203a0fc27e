"""Reading of users' text and TOML files in any Unicode encoding.

Editors on Windows put a byte order mark before UTF-8, and Excel saves "Unicode text" as UTF-16.
"""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16 does, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode_text(content: bytes, source: str) -> str:
    """Decode a text in UTF-8, or in the encoding that its byte order mark states.

    Args:
        content: All bytes of a file, or those of its first lines.
        source: Name of the file, for the message.

    Returns:
        The text without the byte order mark.

    Raises:
        InputError: The bytes are not text in UTF-8, UTF-16 or UTF-32.

    Example:
        >>> decode_text("file;label".encode("utf-16"), "labels.csv")
        'file;label'
    """
    mark, encoding = text_encoding(content)
    try:
        return content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: len(mark) + error.start].count(b"\n") + 1
        name = encoding.removesuffix("-le").removesuffix("-be").upper()
        raise InputError(
            f"{source}: cannot be read as text in {name} (line {line}: {error.reason}); save it as "
            "UTF-8"
        ) from None


def text_encoding(content: bytes) -> tuple[bytes, str]:
    """Return the byte order mark at the beginning of a text file, and the encoding of the file.

    Args:
        content: Bytes of a file, at least the first four.

    Returns:
        The mark, which may be empty, and the name of the encoding for ``bytes.decode``. Without a
        mark it is UTF-8.

    Example:
        >>> text_encoding(b"file,label")
        (b'', 'utf-8')
    """
    marked = (pair for pair in _MARKS if content.startswith(pair[0]))
    return next(marked, (b"", "utf-8"))


def read_text_file(path: Path) -> str:
    """Read a text file in any encoding that `decode_text` knows.

    Args:
        path: Path of the file.

    Returns:
        The text without a byte order mark.

    Raises:
        InputError: The file cannot be read, or is not text.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_bytes("mass".encode("utf-16"))
        ...     read_text_file(Path(folder, "a.txt"))
        'mass'
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)})") from None
    return decode_text(content, str(path))


def read_toml_file(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: Path of the file.

    Returns:
        The content as nested dictionaries.

    Raises:
        InputError: The file cannot be read, is not text, or is not TOML.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "ours.toml").write_text("seed = 3")
        ...     read_toml_file(Path(folder, "ours.toml"))
        {'seed': 3}
    """
    return parse_toml(read_text_file(path), str(path))


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Parse a text in TOML.

    Args:
        text: The text.
        source: Name of the file or option that contains the text, for the message.

    Returns:
        The content as nested dictionaries.

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
