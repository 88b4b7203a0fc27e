"""SHA-256 digests of files, by which a file that was changed is recognised and refused.

The record that completes a folder states the digest of each table and of each network file beside
it; the file is checked when it is read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.folder_kinds import kind_of_file


def require_unchanged(path: Path, kind: str, sha256: str | None) -> None:
    """Check that a file is the one that the record of its folder names.

    Args:
        path: Path of the file.
        kind: Kind of the file, such as "weights". The error message says which command makes a file
            of this kind again.
        sha256: Digest that the record states, as 64 hexadecimal digits; None if it states none.

    Raises:
        InputError: The record does not name the file, or its digest differs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "empty").write_bytes(b"")
        ...     require_unchanged(Path(folder, "empty"), "run", hashlib.sha256(b"").hexdigest())
    """
    if sha256 is None:
        raise unnamed_file_error(path, kind)
    if path.is_file() and file_digest(path, "sha256") != sha256:
        raise changed_file_error(path, kind)


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


def changed_file_error(path: Path, kind: str) -> InputError:
    """Return the error for a file whose SHA-256 is not the one that its record states."""
    return InputError(
        f"{path}: is not as it was written (its SHA-256 differs); bring back an unchanged copy, or "
        f"{remake_instruction(kind)}"
    )


def unnamed_file_error(path: Path, kind: str) -> InputError:
    """Return the error for a file that the record of its folder does not name."""
    return InputError(
        f"{path}: is no file of this folder, whose record does not name it; remove it, or "
        f"{remake_instruction(kind)}"
    )
