"""Checks and locks of the folders that commands write.

A new folder appears only when it is complete. A folder with foreign files, or one that was begun
with other settings, is refused.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import LOCK_NAME, LockFile, remove_abandoned_folders


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder, and rename it to its final path when the ``with`` block ends.

    On any error in the block the temporary folder is removed, and nothing is left at the final
    path. That path must not exist or be an empty folder; it is refused, too, if another command has
    made it in the meantime.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there and is no empty folder; choose a new one")
    make_folder(out.parent)
    remove_abandoned_folders(out.parent, f".{out.name}.[0-9]*.tmp")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with closing(LockFile(temporary / LOCK_NAME, lambda: None)) as lock:
        try:
            yield temporary
            # Windows moves no folder with an open file in it, and none onto another folder.
            if os.name == "nt":
                lock.close()
                if out.exists():
                    out.rmdir()
            temporary.replace(out)
            (out / LOCK_NAME).unlink(missing_ok=True)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise InputError(
                f"{out}: another command made it meanwhile; choose a new one"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def require_only_files(out: Path, names: Collection[str], folder_kind: str) -> None:
    """Refuse a folder that contains other files than those of the command that is to write to it.

    The folder need not exist, and may contain a lock file. `folder_kind` names it in the message,
    such as "report".
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: a file stands where a folder is needed")
    for path in sorted(out.iterdir()):
        if path.name not in names and path.name != LOCK_NAME:
            raise InputError(
                f"{out}: holds '{path.name}', which no {folder_kind} has; choose another --out"
            )


# Settings that are digests or long, in words.
_IN_WORDS = {
    "source_id": "list of images or labels",
    "source_parts": "data sets",
    "exclude": "list of images to leave out",
    "id_key": "key of the ids",
    "inference_id": "model or options of its predictions",
    "data_set": "data set or split",
}


def require_same_settings(
    folder: Path, stored: Mapping[str, Any], now: Mapping[str, Any], advice: str
) -> None:
    """Refuse a folder that was begun or made with other settings than those of this call.

    The message has both values of the first key that differs, and ends with the advice.
    """
    for key in {**now, **stored}:
        was, new = stored.get(key), now.get(key)
        if was != new:
            other = f"{key}={was}, and this command has {key}={new}"
            if key in _IN_WORDS:
                other = f"another {_IN_WORDS[key]}"
            raise InputError(f"{folder}: was made with {other}; {advice}")
