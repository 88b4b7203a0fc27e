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
    """Check that a file is the one that the record of its folder names, by its SHA-256.

    `stated` is None if the record does not name the file, which is refused; `found` is the digest
    if it is known already. A missing file is no error here.
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
    """Return the digest of the bytes of a file, in hexadecimal digits.

    The algorithm is one of `hashlib`, such as ``sha256``. MD5 only detects damage, not forgery.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest()
