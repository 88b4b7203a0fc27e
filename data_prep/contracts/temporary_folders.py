"""A private folder for the temporary files of a process, which is removed when the process ends."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import LOCK_NAME, LockFile, remove_abandoned_folders

_PREFIX = "cxr-command-"


@cache
def use_private_temporary_folder() -> None:
    """Use a new private folder for all temporary files of this process and of its child processes.

    The folder is removed when the process ends. If the process is killed, the next process that
    calls this function removes the folder. A second call does nothing.
    """
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError:
        # No disk takes temporary files. A command may need none; one that does reports it itself.
        tempfile.tempdir = os.environ.get("TMPDIR", "/tmp")  # noqa: S108
        return
    with suppress(InputError, OSError):  # a full disk: a command may need no temporary files
        if parent.name.startswith(_PREFIX):  # the folder of the command that started this process
            parent = parent.parent
        remove_abandoned_folders(parent, f"{_PREFIX}*")
        folder = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        lock = LockFile(Path(folder) / LOCK_NAME, lambda: None)
        os.environ["TMPDIR"] = folder
        tempfile.tempdir = folder
        _remove_at_exit(folder, lock)


def _remove_at_exit(folder: str, lock: LockFile) -> None:
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() != owner:  # a fork of the process must leave the folder alone
            return
        if os.name == "nt":  # Windows removes no open file
            lock.close()
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()

    # multiprocessing removes its own temporary files at exit, before this with a low priority.
    multiprocessing_util = sys.modules.get("multiprocessing.util")
    if multiprocessing_util is None:
        atexit.register(remove)
    else:
        multiprocessing_util.Finalize(None, remove, exitpriority=-200)
