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
    """State of a file when its local copy and the stored file were last equal."""

    size: int  # bytes
    mtime_ns: int  # time of the last change of the local file
    version: str  # version of the stored file
    lazy: bool  # True for an image or a shard, whose content may be in the store alone


Manifest = dict[Path, ManifestEntry]
"""Entries by the path of the local file."""


def read_manifest(copy: Path) -> Manifest:
    """Read the entries of a local copy.

    Args:
        copy: Local path of a folder or of one file.
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
    """Write the entries that differ between two manifests, and remove those only in `before`.

    Args:
        before: Manifest as it was read.
        after: Manifest as it is to be stored.
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
    """Return the size in bytes and the time of the last change in ns of a local file."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def local_file_states(copy: Path) -> dict[Path, tuple[int, int]]:
    """Return the size and the time of the last change of each complete file of a local copy."""
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
    """Return the path of a lock file for processes that use the local copies of this machine."""
    return copies_folder() / ".locks" / hashlib.sha256(name.encode()).hexdigest()[:24]


def wait_silently() -> None:
    """Wait for a lock without a message."""


@contextmanager
def copies_lock(name: str) -> Iterator[None]:
    """Lock a part of the local copies during a ``with`` block; other processes wait.

    Args:
        name: Name of the part.
    """
    with closing(LockFile(copies_lock_file(name), wait_silently)):
        yield
