"""SHA-256 checksums inside files, by which a file that was changed is recognised and refused.

The checksum of a file is computed with 64 zeros in its own position. It is in the last key of a
JSON file, in the metadata of weights, and in the comment of a checkpoint or of a TOML
file. Files that cannot contain a checksum have it elsewhere in their folder: an exported graph in
``export.json``, each square of a pixel store in its index (column ``crc32``).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.folder_kinds import kind_of_file

CHECKSUM_PLACEHOLDER = {"sha256_of_this_file": "0" * 64}
"""Metadata to put into a file that is written with its checksum; the zeros are replaced by it."""

# Only half of the key's name must match, so that a damaged bit in the other half hides no checksum.
_CHECKSUM = re.compile(rb"(?:sha256_of_.{9}|this_file)[^0-9a-z]{1,6}(.{64})", re.DOTALL)
_SEARCHED_BYTES = 1 << 18  # at either end of a file; the checksum stands in one of them


def write_checksum(path: Path) -> None:
    """Replace the placeholder for a checksum inside a file by the SHA-256 of the file.

    The digest is that of the file with the placeholder.

    Args:
        path: A file that contains `CHECKSUM_PLACEHOLDER` (64 zeros under a fixed key), such as a
            JSON file. It is changed in place.

    Example:
        >>> import json, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.json")
        ...     _ = path.write_text(json.dumps({"n": 1, **CHECKSUM_PLACEHOLDER}))
        ...     write_checksum(path)
        ...     has_valid_checksum(path, path.read_bytes(), "bench")
        True
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        start, end = _checksum_position(content)
        file.seek(start)
        file.write(_digest_without(content, start, end))


def has_valid_checksum(path: Path, content: bytes | mmap.mmap, kind: str) -> bool:
    """Check the SHA-256 that a file contains about itself, and return False if it contains none.

    Args:
        path: Path of the file, for messages.
        content: All bytes of the file.
        kind: Kind of the file, such as "run". The error message says which command makes a file of
            this kind again.

    Returns:
        True if the checksum is valid, False if the file contains none.

    Raises:
        InputError: The file contains a checksum, and was changed after it was written.

    Example:
        >>> has_valid_checksum(Path("notes.txt"), b"free text", "bench")
        False
    """
    start, end = _checksum_position(content)
    if start == end:
        return False
    if content[start:end] != _digest_without(content, start, end):
        raise _changed_file_error(path, kind)
    return True


def require_unchanged(path: Path, kind: str, sha256: str | None = None) -> None:
    """Check that a file was not changed after it was written.

    A file without a checksum is accepted, unless its checksum was recorded elsewhere.

    Args:
        path: Path of the file.
        kind: Kind of the file, such as "run". The error message says which command makes a file of
            this kind again.
        sha256: Checksum that was recorded elsewhere, as 64 hexadecimal digits. None checks the
            checksum inside the file.

    Raises:
        InputError: The checksum of the file differs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "empty").write_bytes(b"")
        ...     require_unchanged(Path(folder, "empty"), "run", hashlib.sha256(b"").hexdigest())
    """
    if sha256 is not None:
        if file_digest(path, "sha256") != sha256:
            raise _changed_file_error(path, kind)
        return
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                has_valid_checksum(path, content, kind)


def file_digest(path: Path, algorithm: str) -> str:
    """Return the digest of the bytes of a file.

    MD5 only detects damage, not forgery.

    Args:
        path: Path of the file.
        algorithm: Name of the algorithm, such as ``sha256`` or ``md5``.

    Returns:
        The digest in hexadecimal digits.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "empty").write_bytes(b"")
        ...     file_digest(Path(folder, "empty"), "md5")
        'd41d8cd98f00b204e9800998ecf8427e'
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest()


def remake_instruction(kind: str) -> str:
    """Return a phrase for error messages that says how the user makes a damaged file again.

    Args:
        kind: Name of the kind of the file: of a JSON file or table that the program writes, such as
            "guard" (a file of a training run) or "images" (a table of a data set).

    Returns:
        An instruction without a full stop; "make it again" if no command is known for the kind.

    Example:
        >>> remake_instruction("guard"), remake_instruction("bench")
        ('remove the run and run cxr train again', 'make it again')
    """
    folder_kind = kind_of_file(kind)
    if folder_kind is None:
        return "make it again"
    return f"remove the {folder_kind.name} and run {folder_kind.command_line} again"


def _checksum_position(content: bytes | mmap.mmap) -> tuple[int, int]:
    """Return the start and the end of the checksum in a file; (0, 0) if it has none."""
    matches = list(_CHECKSUM.finditer(content, max(len(content) - _SEARCHED_BYTES, 0)))
    if not matches:
        matches = list(_CHECKSUM.finditer(content, 0, _SEARCHED_BYTES))
    return matches[-1].span(1) if matches else (0, 0)


def _digest_without(content: bytes | mmap.mmap, start: int, end: int) -> bytes:
    """Return the SHA-256 of a file, as hexadecimal digits, with zeros from `start` to `end`."""
    digest = hashlib.sha256(memoryview(content)[:start])
    digest.update(b"0" * (end - start))
    digest.update(memoryview(content)[end:])
    return digest.hexdigest().encode()


def _changed_file_error(path: Path, kind: str) -> InputError:
    return InputError(
        f"{path}: is not as it was written (its SHA-256 differs); bring back an unchanged copy, or "
        f"{remake_instruction(kind)}"
    )
