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
    removed and an old file stays unchanged. A full disk or a denied access is an `InputError`.
    """
    temporary = temporary_path(path)
    with disk_errors(path):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a new hidden name ending in ``.tmp``, in the folder of a file that is to be written.

    No two writers get the same name. The process number alone would not do, because processes in
    two containers may have the same number.
    """
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def write_text(path: Path, text: str) -> Path:
    """Write a text file as UTF-8 by `atomic_path`, and return its path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def remove_temporary_files_of_ended_processes(folder: Path, *, lock_name: str) -> None:
    """Remove the half-written temporary files (``.tmp``) of killed processes from a locked folder.

    The caller holds the lock, so that no other process is writing there. Temporary files in
    subfolders are removed, too, except in a subfolder with a lock file (`lock_name`), which belongs
    to another process that writes.
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
    left by a killed process. The folder need not exist.
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
