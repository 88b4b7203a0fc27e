"""SHA-256 digests of files, by which a file that was changed is recognised and refused.

The record that completes a folder states the digest of each table and of each network file beside
it; the file is checked when it is read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError

AGAIN = "bring back an unchanged copy, or run the command that makes it again"
"""Advice for a damaged file."""


def require_unchanged(path: Path, stated: str | None, found: str | None = None) -> None:
    """Check that a file is the one that the record of its folder names.

    Args:
        path: Path of the file; a missing one is no error here.
        stated: SHA-256 that the record states, as 64 hexadecimal digits; None if it states none.
        found: SHA-256 of the file, if it is known already.

    Raises:
        InputError: The record does not name the file, or its digest differs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "empty").write_bytes(b"")
        ...     require_unchanged(Path(folder, "empty"), hashlib.sha256(b"").hexdigest())
    """
    if stated is None:
        raise InputError(
            f"{path}: is no file of this folder, whose record does not name it; remove it, or run "
            "the command that makes the folder again"
        )
    if found is None and path.is_file():
        found = file_digest(path, "sha256")
    if found not in (None, stated):
        raise InputError(f"{path}: is not as it was written (its SHA-256 differs); {AGAIN}")


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
