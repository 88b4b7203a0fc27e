"""The manifest of local copies of an object store.

For each file it records the state in which the local copy and the stored file were last equal. It
is stored beside the local copies, in one JSON file for each folder, so that the addresses of a
folder and of its subfolders share it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.locks import LOCK_NAME, LockFile
from cxr_compare.data_prep.work.store_addresses import copies_folder

_TEMPORARY_NAME = re.compile(r"\..*\.tmp")


class ManifestEntry(NamedTuple):
    """State of a file when its local copy last equalled the file in the object store.

    Attributes:
        size: Size in bytes.
        mtime_ns: Time of the last change of the local file, ns since 1970.
        version: Text by which the object store names this version of the file, such as its ETag.
        lazy: True for an image or a file of resized pixels, which may be in the object store only.
    """

    size: int
    mtime_ns: int
    version: str
    lazy: bool


Manifest = dict[Path, ManifestEntry]
"""Entries by the path of the local file."""


def read_manifest(copy: Path) -> Manifest:
    """Read the stored list of files in a local copy of a folder in an object store, such as S3.

    Each file has its state (size, time of change and version) at the last transfer.

    Args:
        copy: Local path of the copied folder, or of one file in it.

    Returns:
        State of each file by its local path.
    """
    manifest = {}
    manifest_files = (
        _manifest_file(copy.parent),
        *_manifest_file(copy).parent.rglob("files.json"),
    )
    for path in manifest_files:
        if not path.is_file():
            continue
        folder = copies_folder() / path.parent.relative_to(copies_folder() / ".manifests")
        for name, entry in json.loads(path.read_bytes()).items():
            if folder != copy.parent or name == copy.name:
                manifest[folder / name] = ManifestEntry(*entry)
    return manifest


def write_manifest_changes(before: Manifest, after: Manifest) -> None:
    """Store the changes between two lists of files in a local copy of an object store's folder.

    Entries that differ are written, and those that are missing in the second list are removed.

    Args:
        before: List of files with their states, as `read_manifest` returned it.
        after: List of files with their states that is to be stored.
    """
    changes = defaultdict[Path, dict[str, ManifestEntry | None]](dict)
    for path in before.keys() | after.keys():
        if before.get(path) != after.get(path):
            changes[path.parent][path.name] = after.get(path)
    for folder, changed_entries in changes.items():
        path = _manifest_file(folder)
        entries = json.loads(path.read_bytes()) if path.is_file() else {}
        entries.update(changed_entries)
        remaining = {name: entry for name, entry in entries.items() if entry is not None}
        make_folder(path.parent)
        write_text(path, json.dumps(remaining))


def _manifest_file(folder: Path) -> Path:
    return copies_folder() / ".manifests" / folder.relative_to(copies_folder()) / "files.json"


def file_state(path: Path) -> tuple[int, int]:
    """Return the size in bytes and the time of the last change (ns since 1970) of a local file.

    Args:
        path: Path of the file, which must exist.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def local_file_states(copy: Path) -> dict[Path, tuple[int, int]]:
    """Return size (bytes) and time of the last change (ns since 1970) of files in a local copy.

    Files that are only partly written are left out.

    Args:
        copy: Path of the local copy of a folder in an object store.

    Returns:
        Size and time by path of the file.
    """
    if copy.is_file():
        return {copy: file_state(copy)}
    states = {}
    for folder, _, names in os.walk(copy):
        for name in names:
            if name != LOCK_NAME and not _TEMPORARY_NAME.fullmatch(name):
                with suppress(FileNotFoundError):
                    states[Path(folder, name)] = file_state(Path(folder, name))
    return states


def copies_lock_file(name: str) -> Path:
    """Return the path of a lock file for local copies of folders in object stores, such as S3.

    Args:
        name: Name of the lock, which says what part of the copies it protects.
    """
    return copies_folder() / ".locks" / hashlib.sha256(name.encode()).hexdigest()[:24]


def wait_silently() -> None:
    """Do nothing, as the function that is called before the program waits for another process.

    It takes the place of a function that shows a message.
    """


@contextmanager
def copies_lock(name: str) -> Iterator[None]:
    """Lock a part of the local copies of object stores during a ``with`` block.

    Other processes that lock the same part wait.

    Args:
        name: Name of the part, such as that of a copied folder.
    """
    with closing(LockFile(copies_lock_file(name), wait_silently)):
        yield
