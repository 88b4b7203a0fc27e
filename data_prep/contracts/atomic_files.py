"""Writing of files so that a reader never sees a half-written one.

A file is first written under a temporary name, and then renamed.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cxr_compare.data_prep.contracts.disk_space import disk_errors

_TEMPORARY_NAME = re.compile(r"\..+\.(\d+)(-[0-9a-f]{8})?\.tmp")  # names of `temporary_path`
_LONGEST_WRITE_S = 3600.0  # writing one file never takes as long
_IS_WINDOWS = os.name == "nt"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path, and rename the file to its final path when the ``with`` block ends.

    A reader sees the old file or the new one, never half of one. On any error the temporary file is
    removed and an old file stays unchanged.

    Args:
        path: Path that the complete file gets. An old file at this path is replaced.

    Yields:
        A new path in the same folder, to which the block writes.

    Raises:
        InputError: The disk is full or access is denied.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder, "a.csv")) as temporary:
        ...         _ = temporary.write_text("image_id,score")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a.csv']
    """
    temporary = temporary_path(path)
    with disk_errors(path):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a new temporary name in the folder of a file that is to be written.

    No two writers get the same name. The process number alone would not do, because processes in
    two containers may have the same number.

    Args:
        path: The file to be written.

    Returns:
        A hidden path that ends in ``.tmp``.

    Example:
        >>> temporary_path(Path("out/a.csv")) != temporary_path(Path("out/a.csv"))
        True
    """
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def write_text(path: Path, text: str) -> Path:
    """Write a text file as UTF-8. The file appears only when it is complete.

    Args:
        path: Path of the file. An old file is replaced.
        text: Content of the file.

    Returns:
        The path of the file.

    Raises:
        InputError: The disk is full or access is denied.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder, "note.txt"), "done").read_text(encoding="utf-8")
        'done'
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def remove_temporary_files_of_ended_processes(folder: Path, *, lock_name: str) -> None:
    """Remove the half-written temporary files (``.tmp``) of killed processes from a locked folder.

    Temporary files in its subfolders are removed, too.

    Args:
        folder: Folder for which this process holds the lock, so that no other process is writing
            there.
        lock_name: File name of lock files, such as ``.lock``. A subfolder that contains a lock file
            belongs to another process that writes, and is not touched.
    """
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not Path(parent, name, lock_name).exists()]
        for name in names:
            match = _TEMPORARY_NAME.fullmatch(name)
            if match and not _is_running(int(match[1])):
                with suppress(OSError):  # a file of another user does no harm
                    Path(parent, name).unlink()
        remove_old_temporary_files(Path(parent))


def remove_old_temporary_files(folder: Path) -> None:
    """Remove temporary files of killed processes from a folder to which several processes write.

    No process locks such a folder, so every temporary file that is older than an hour counts as
    left by a killed process.

    Args:
        folder: Folder in which half-written ``.tmp`` files may lie. It need not exist.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _TEMPORARY_NAME.fullmatch(entry.name):
                continue
            with suppress(OSError):  # its writer has just finished it, or it is another user's
                status = entry.stat(follow_symlinks=False)
                if time.time() - status.st_mtime > _LONGEST_WRITE_S:
                    Path(entry.path).unlink()


def _is_running(process_id: int) -> bool:
    """Return False if no process of this machine has the number."""
    if _IS_WINDOWS:  # Windows has no signal that does nothing
        return True
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True
