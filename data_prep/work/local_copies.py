"""Local copies of folders in object stores, which are fetched before a command and sent after it.

Small files are fetched at once. An image is an empty placeholder of the right size and time, until
`data_prep.work.image_files.open_image` fetches it to read it. The function
`data_prep.work.shard_cache.fetch_shard` fetches a shard of a pixel store.

Changed files are sent in the order in which they were written, and a JSON file that is replaced is
removed first. At every moment the folder in the store therefore equals an earlier state of the
local copy, and it never looks complete too early.

Only one machine should write a folder at a time. If another machine has written in the meantime,
its files are kept.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.locks import LockFile
from cxr_compare.data_prep.work import object_store
from cxr_compare.data_prep.work.copy_manifest import (
    Manifest,
    ManifestEntry,
    copies_lock,
    copies_lock_file,
    file_state,
    local_file_states,
    read_manifest,
    wait_silently,
    write_manifest_changes,
)
from cxr_compare.data_prep.work.object_store import StoredFile, StoreError
from cxr_compare.data_prep.work.shard_cache import cache_limit_bytes, is_shard
from cxr_compare.data_prep.work.store_addresses import (
    find_store_addresses,
    is_store_address,
    local_path,
    store_address,
    with_local_paths,
)

SEND_INTERVAL_S = 30.0
"""Time after which changed files are sent while a command works."""
_PARALLEL_FETCHES = 16
_PIXELS_RECORD = "pixels.json"  # removed together with its shards
_IMAGE_NAME = re.compile(
    r"(?i)[^.]+|[\d.]+|.*\.(dcm|dicom|ima|png|jpe?g|tiff?|bmp|webp|gif|p[gp]m|jp2|j2k|jls)(\.gz)?"
    r"|.*\.(zip|tar|tgz|tar\.gz)"
)
_GROWING_NAME = re.compile(r"shard-\d+\.npy|\.jsonl$")  # written in place: whole at the end

FileStates = dict[Path, tuple[int, int]]
"""Size in bytes and time of the last change in ns, by the path of a local file."""


@contextmanager
def local_folders(
    arguments: Mapping[str, Any], say: Callable[[str], object] = lambda line: None
) -> Iterator[dict[str, Any]]:
    """Fetch the folders in object stores that a command names, and send changed files back.

    The folders are fetched at the beginning of the ``with`` block. Files that the command changes
    in the local copies are sent to the object store during the block and at its end.

    Args:
        arguments: Arguments of the command, by name. Addresses such as ``s3://bucket/data`` may be
            in texts, paths and lists of them.
        say: Function that shows a message, such as the number of files that were sent.

    Yields:
        The arguments, with local paths in place of addresses.

    Raises:
        InputError: An address is wrong, or the environment variable ``CXR_CACHE_GIB``, which limits
            the size of the local copies, is no number above 0.
        StoreError: The object store refuses the request or does not answer.

    Example:
        >>> with local_folders({"data": "out/data", "seed": 0}) as arguments:
        ...     arguments
        {'data': 'out/data', 'seed': 0}
    """
    addresses = list(dict.fromkeys(find_store_addresses(dict(arguments))))
    if not addresses:
        yield dict(arguments)
        return
    for address in addresses:
        local_path(address)  # refuses a wrong one before anything is fetched
    cache_limit_bytes()  # likewise
    sends = not _is_rank_above_0()
    with ExitStack() as stack:
        for address in addresses:
            stack.enter_context(_copy_in_use(address, sends=sends))
        sender = _Sender(addresses if sends else [], say)
        is_complete = False
        try:
            yield with_local_paths(dict(arguments))
            is_complete = True
        except SystemExit:  # a command that has found a problem in its input
            is_complete = True
            raise
        finally:
            sender.end(is_complete=is_complete)


def local_folder(folder: str | Path) -> Path:
    """Return the local path of a folder. A folder in an object store is fetched first.

    Args:
        folder: A path, or the address of a folder in an object store, such as ``s3://bucket/data``.

    Returns:
        The path itself, or the path of the local copy.

    Raises:
        StoreError: The object store refuses the request or does not answer.

    Example:
        >>> local_folder("out/data").as_posix()
        'out/data'
    """
    if not is_store_address(folder):
        return Path(folder)
    _fetch_folder(str(folder), is_only_user=False)
    return local_path(str(folder))


def _is_rank_above_0() -> bool:
    """Return True if a launcher has started this process beside another that writes the results."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID"))
    return any(rank.isdigit() and int(rank) > 0 for rank in ranks)


@contextmanager
def _copy_in_use(address: str, *, sends: bool) -> Iterator[None]:
    """Fetch a folder, and tell other processes of this machine that it is in use."""
    lock_file = copies_lock_file(f"in use {address}")
    with ExitStack() as stack:
        with copies_lock(f"use {address}"):
            other_users = lock_file.parent.glob(f"{lock_file.name}.*")
            is_only_user = not any(_is_locked(path) for path in other_users)
            lock_of_this_process = lock_file.with_name(f"{lock_file.name}.{uuid.uuid4().hex}")
            stack.enter_context(closing(LockFile(lock_of_this_process, wait_silently)))
            if is_only_user and sends:
                object_store.abort_uploads(address)
            _fetch_folder(address, is_only_user=is_only_user)
        yield


def _is_locked(path: Path) -> bool:
    """Return True if a process has a lock; a file that a killed process left is removed."""
    try:
        LockFile(path, None).close()
    except InputError:
        return True
    return False


def _url(path: Path) -> str:
    return str(store_address(path))


class _UpdatePlan(NamedTuple):
    """Changes that bring a local copy up to date."""

    manifest: Manifest  # entries that stay or are known without fetching
    to_fetch: dict[Path, StoredFile]
    to_remove: list[Path]  # local files


def _fetch_folder(address: str, *, is_only_user: bool) -> None:
    """Bring the local copy of a folder up to date.

    Work of an earlier command that was never sent stays. It is dropped only if no other command of
    this machine works in the copy and the store has changed since.
    """
    copy = local_path(address)
    with copies_lock(f"manifest {copy}"):
        files = object_store.list_files(address)
        stored = {copy / name if name else copy: file for name, file in files.items()}
        before = read_manifest(copy)
        plan = _plan_update(before, local_file_states(copy), stored, drops_unsent=is_only_user)
        for path in plan.to_remove:
            path.unlink(missing_ok=True)
        manifest = plan.manifest
        try:
            for path, entry in _fetch_files(copy, plan.to_fetch):
                manifest[path] = entry
        finally:
            write_manifest_changes(before, manifest)


def _plan_update(
    before: Manifest, local: FileStates, stored: dict[Path, StoredFile], *, drops_unsent: bool
) -> _UpdatePlan:
    manifest = dict(before)
    to_remove: list[Path] = []
    unsent = {
        path for path, state in local.items() if path not in before or before[path][:2] != state
    }
    changed_in_store = [
        path
        for path, file in stored.items()
        if path not in before or before[path].version != file.version
    ]
    # A process may have been killed between sending a file and writing the manifest.
    sent = {
        path for path in changed_in_store if path in unsent and _has_content(path, stored[path])
    }
    if sent.issuperset(changed_in_store):
        for path in sent:
            manifest[path] = ManifestEntry(*local[path], stored[path].version, is_shard(path))
        unsent -= sent
    elif drops_unsent:
        to_remove += unsent
        local = {path: state for path, state in local.items() if path not in unsent}
        unsent = set()
    for path in before.keys() - stored.keys():
        if path not in unsent:
            to_remove.append(path)
        del manifest[path]
    to_fetch = {}
    for path, file in stored.items():
        entry = manifest.get(path)
        if entry is not None and entry.version == file.version:
            is_here = path in local or is_shard(path)
            # Unfinished work that was not sent has removed the JSON file that marks the folder
            # complete, which must not come back.
            was_removed = bool(unsent) and not entry.lazy and path.suffix == ".json"
            if is_here or was_removed:
                continue
        if path not in unsent:
            to_fetch[path] = file
    return _UpdatePlan(manifest, to_fetch, to_remove)


def _has_content(path: Path, stored: StoredFile) -> bool:
    """Return True if a local file is what the store states, as far as it states it."""
    if path.stat().st_size != stored.size:
        return False
    return stored.md5 is None or file_digest(path, "md5") == stored.md5


def _fetch_files(copy: Path, files: dict[Path, StoredFile]) -> Iterator[tuple[Path, ManifestEntry]]:
    """Fetch small files, write placeholders for images, and leave out shards."""
    small_files = []
    for path, stored in files.items():
        make_folder(path.parent)
        if is_shard(path):
            path.unlink(missing_ok=True)
            yield path, ManifestEntry(stored.size, stored.changed_ns, stored.version, lazy=True)
        elif path != copy and _IMAGE_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)
            with path.open("wb") as file:
                file.truncate(stored.size)  # takes no room on the disk
            os.utime(path, ns=(stored.changed_ns, stored.changed_ns))
            yield path, ManifestEntry(*file_state(path), stored.version, lazy=True)
        else:
            small_files.append(path)

    def fetch_one(path: Path) -> tuple[Path, ManifestEntry]:
        try:
            stored = object_store.fetch(_url(path), path, files[path])
        except FileNotFoundError:
            raise StoreError(f"{_url(path)}: is gone since it was listed; try again") from None
        return path, ManifestEntry(*file_state(path), stored.version, lazy=False)

    with ThreadPoolExecutor(_PARALLEL_FETCHES, "fetch") as pool:
        yield from pool.map(fetch_one, small_files)


class _Sender:
    """A thread that sends what changes in the local copies of a command."""

    def __init__(self, addresses: list[str], say: Callable[[str], object]) -> None:
        self._addresses = addresses
        self._say = say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_regularly, daemon=True)
        self._thread.start()

    def _send_regularly(self) -> None:
        while not self._stop.wait(SEND_INTERVAL_S):
            # A store that fails now is tried again, and its error is raised at the end.
            with suppress(InputError, OSError):
                for address in self._addresses:
                    _send_changes(address, is_last=False)

    def end(self, *, is_complete: bool) -> None:
        """Stop the thread; send the remaining changes if the command came to its end."""
        self._stop.set()
        self._thread.join()
        if not is_complete:
            return
        for address in self._addresses:
            sent = _send_changes(address, is_last=True)
            if sent.files:
                size_mib = sent.bytes / 2**20
                self._say(f"Sent: {address} ({counted(sent.files, 'file')}, {size_mib:,.1f} MiB)")


class _SentFiles(NamedTuple):
    files: int
    bytes: int


def _send_changes(address: str, *, is_last: bool) -> _SentFiles:
    """Send changed files; while the command still works, only finished ones."""
    copy = local_path(address)
    start_ns = time.time_ns()
    with copies_lock(f"manifest {copy}"):
        before = read_manifest(copy)
        local = local_file_states(copy)
        changed = [
            path for path, state in local.items() if path not in before or before[path][:2] != state
        ]
        if not is_last:
            changed = [
                path
                for path in changed
                if local[path][1] < start_ns and not _GROWING_NAME.search(path.name)
            ]
        manifest = dict(before)
        try:
            for path in _files_to_remove(before, local, changed):
                object_store.remove(_url(path))
                del manifest[path]
            # In the order in which they were written, JSON files last among equals.
            for path in sorted(changed, key=lambda p: (local[p][1], p.suffix == ".json", p)):
                manifest[path] = _send_file(path, local[path])
        finally:
            write_manifest_changes(before, manifest)
    return _SentFiles(len(changed), sum(local[path][0] for path in changed))


def _files_to_remove(before: Manifest, local: FileStates, changed: list[Path]) -> list[Path]:
    """Return the files that must be removed from the store before changed ones are sent."""
    if local:
        removed = [path for path, entry in before.items() if not entry.lazy and path not in local]
    else:
        removed = []  # somebody has emptied the cache, which is no wish to empty the store
    removed_stores = {
        path.parent for path in removed if path.name == _PIXELS_RECORD and not path.parent.exists()
    }
    removed += [
        path for path, entry in before.items() if entry.lazy and path.parent in removed_stores
    ]
    if len(changed) > 1:
        removed += [path for path in changed if path in before and path.suffix == ".json"]
    return removed


def _send_file(path: Path, state: tuple[int, int]) -> ManifestEntry:
    stored = object_store.send(path, _url(path))
    if is_shard(path) and file_state(path) == state:
        # A shard with the time of the store may be removed from the cache.
        os.utime(path, ns=(time.time_ns(), stored.changed_ns))
        state = file_state(path)
    return ManifestEntry(*state, stored.version, lazy=is_shard(path))
