"""Locks by which only one process of a machine writes to a file or folder at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import filelock

from cxr_compare.data_prep.contracts.atomic_files import remove_temporary_files_of_ended_processes
from cxr_compare.data_prep.contracts.disk_space import disk_errors, make_folder
from cxr_compare.data_prep.contracts.errors import InputError

LOCK_NAME = ".lock"
"""Name of the lock file in every folder while the folder is written."""

_IS_WINDOWS = os.name == "nt"
_FIRST_WAIT_S = 0.1  # a lock may be in the middle of being removed
_WAIT_WITHOUT_END_S = -1.0
_FILELOCK_VERSION = tuple(map(int, filelock.__version__.split(".")[:3]))
# Older releases of filelock remove the lock file themselves, before they release the lock.
_RELEASE_REMOVES_FILE = _FILELOCK_VERSION < (3, 29, 5)


class LockFile:
    """A lock file that only one process can lock at a time.

    The operating system keeps the lock, not the file. A lock file that a killed process has left
    therefore blocks no other process.
    """

    def __init__(
        self,
        path: Path,
        before_wait: Callable[[], object] | None,
        *,
        protected: Path | None = None,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        """Take the lock; the file and its folder are made if absent, the file is removed with it.

        If another process has the lock after `first_wait_s` seconds, in which it may release it,
        `before_wait` is called once and the lock is waited for; with None an `InputError` is
        raised. Its message names `protected`, the file or folder that the lock protects (by
        default the folder of the lock file).
        """
        self._path = path
        self._lock = filelock.FileLock(path, thread_local=False)
        wait_s = first_wait_s
        while not self._lock.is_locked:
            make_folder(path.parent)
            try:
                with disk_errors(path):
                    self._lock.acquire(timeout=wait_s)
            except FileNotFoundError:  # the process that had the lock has just removed the folder
                continue
            except filelock.Timeout:
                if before_wait is None:
                    raise InputError(
                        f"{protected or path.parent}: another cxr is writing here; wait for it or "
                        "choose another name"
                    ) from None
                before_wait()
                wait_s = _WAIT_WITHOUT_END_S

    def close(self) -> None:
        """Remove the lock file and release the lock, so that other processes can write.

        A second call does nothing.
        """
        if not self._lock.is_locked:
            return
        # Remove the file before the release: afterwards it may be the lock of another process.
        if not (_IS_WINDOWS or _RELEASE_REMOVES_FILE):
            self._path.unlink(missing_ok=True)
        self._lock.release()
        if _IS_WINDOWS:  # Windows removes no open file
            with suppress(OSError):
                self._path.unlink()


@contextmanager
def folder_lock(folder: Path, before_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Lock a folder in a ``with`` block, so that no other process writes to it.

    The lock ends with the block, or with the process if it is killed. The folder is made if it does
    not exist, and removed if the block leaves it empty. Half-written files that killed processes
    left in it are removed. If another process has the lock, `before_wait` is called once and the
    lock is waited for; with None an `InputError` is raised.
    """
    is_new = not folder.exists()
    try:
        with closing(LockFile(folder / LOCK_NAME, before_wait)):
            remove_temporary_files_of_ended_processes(folder, lock_name=LOCK_NAME)
            yield
    finally:
        with suppress(OSError):  # somebody else writes there, or has removed it
            if is_new and not any(folder.iterdir()):
                folder.rmdir()


def remove_abandoned_folders(parent: Path, pattern: str) -> None:
    """Remove the temporary folders of killed processes, which are those that no process has locked.

    `pattern` is a pattern of their names as in ``Path.glob``, such as ``.tmp-*``.
    """
    for folder in parent.glob(pattern):
        with suppress(InputError, OSError):  # a running process has it, or it has just gone
            if _belongs_to_this_user(folder):
                with closing(LockFile(folder / LOCK_NAME, None, first_wait_s=0)) as lock:
                    if _IS_WINDOWS:  # Windows removes no open file
                        lock.close()
                    shutil.rmtree(folder)


def _belongs_to_this_user(folder: Path) -> bool:
    """Return True if a folder belongs to this user and is no link to another."""
    if not hasattr(os, "getuid"):  # Windows, where each user has a folder for temporary files
        return not folder.is_symlink()
    return folder.lstat().st_uid == os.getuid()
