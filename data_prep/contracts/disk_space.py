"""Checks of free disk space, and errors of the disk as messages of one line."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError

_FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_EXPLAINED_ERRORS = {*_FULL_DISK_ERRORS, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM}
_LEAST_FREE_BYTES = 1 << 16  # a disk with less free space counts as full


@contextmanager
def disk_errors(*paths: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission within a ``with`` block into an ``InputError``.

    `paths` are the files or folders that the block reads or writes, the most important first. The
    message names the file that the operating system names; if it names none, the first of `paths`
    whose disk is full, or else the first of `paths`. A file that is too large for its file system
    is such an error, too; others of the operating system pass unchanged.

    Example:
        >>> try:
        ...     with disk_errors(Path("table.csv")):
        ...         raise OSError(errno.EACCES, "Permission denied", "table.csv")
        ... except InputError as error:
        ...     print(error)
        table.csv: Permission denied; put that right and run again
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _EXPLAINED_ERRORS:
            raise
        is_full = error.errno in _FULL_DISK_ERRORS
        path = _path_to_name(error, paths, is_full=is_full)
        if is_full:
            remedy = f" ({format_bytes(free_bytes(path))} free); free some"
        elif error.errno == errno.EFBIG:
            remedy = "; allow larger files (ulimit -f, or another file system)"
        else:
            remedy = "; put that right"
        message = f"{path}: {os.strerror(error.errno or 0)}{remedy} and run again"
        raise InputError(message, full_disk=is_full) from error


def _path_to_name(error: OSError, paths: tuple[Path, ...], *, is_full: bool) -> Path:
    named_by_system = error.filename2 or error.filename
    # With a single path on a full disk, the name that the caller uses says more than the system's,
    # which is often that of a temporary file.
    if isinstance(named_by_system, str) and not (is_full and len(paths) == 1):
        return Path(named_by_system)
    for path in paths:
        if free_bytes(path) < _LEAST_FREE_BYTES:
            return path
    return paths[0]


def make_folder(folder: Path) -> Path:
    """Make a folder and its parents if they do not exist, and return its path.

    A file at this path or at a parent is an `InputError`.
    """
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(
            f"{folder}: a file stands where a folder is needed; choose another place"
        ) from None
    except OSError:
        raise InputError(f"{folder}: no folder can be made there; choose another place") from None
    return folder


def require_free_space(folder: Path, required_bytes: int) -> None:
    """Refuse to start work if the disk of a folder, which need not exist, lacks the free bytes."""
    free = free_bytes(folder)
    if free < required_bytes:
        raise InputError(
            f"{folder}: needs about {format_bytes(required_bytes)}, {format_bytes(free)} are free "
            f"on that disk; free {format_bytes(required_bytes - free)} more or choose another "
            "folder",
            full_disk=True,
        )


def free_bytes(path: Path) -> int:
    """Return the number of bytes that can still be written on the disk of a path.

    If the path does not exist, its nearest existing parent is taken. The answer is 0 if the disk
    accepts no more files, even if it has free space.
    """
    while not path.exists():
        path = path.parent
    if hasattr(os, "statvfs"):  # not on Windows
        status = os.statvfs(path)
        if status.f_files and not status.f_favail:
            return 0
    return shutil.disk_usage(path).free


def format_bytes(size: float) -> str:
    """Return a number of bytes as text with a unit, the largest of which there is at least one.

    Example:
        >>> format_bytes(1536), format_bytes(12), format_bytes(3 << 30)
        ('1.5 KiB', '12 bytes', '3 GiB')
    """
    units = ("bytes", "KiB", "MiB", "GiB")
    exponent = min((max(int(size), 1).bit_length() - 1) // 10, len(units) - 1)
    number = f"{size / 1024**exponent:,.1f}".removesuffix(".0")
    return f"{number} {units[exponent]}"
