"""Local copies of folders in object stores: fetched before a command works, sent while and after.

Small files are fetched at once. An image is an empty placeholder of the right size and time until
`open_image` fetches it for the moment in which it is read. A shard of a pixel store is fetched by
`fetch_shard`, and all of them stay within `CXR_CACHE_GIB`. What a command changes is sent in the
order in which it was written, and a JSON file that is replaced is removed first: at every moment
the folder in the store is one that the local copy has been, and none looks complete that is not.

A manifest beside the copies says what the local file and the store's were when they were last the
same. One machine writes a folder at a time: where another has written meanwhile, its files win.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.locks import LOCK_NAME, LockFile
from cxr_compare.data_prep.work import object_store
from cxr_compare.data_prep.work.object_store import (
    Stored,
    StoreError,
    address_of,
    addresses_in,
    copies_root,
    file_digest,
    is_address,
    local_path,
    with_local_paths,
)

MAX_FILE_BYTES = 1 << 29
"""Largest image file accepted, and the most that a deflated DICOM may inflate to."""
CACHE_LIMIT_VARIABLE = "CXR_CACHE_GIB"
_LIMIT_GIB = 50.0
_SEND_EVERY_S = 30.0
_AT_ONCE = 16  # small files that are fetched at a time
_SHARD = re.compile(r"shard-\d+\.npy")
_PIXELS_NAME = "pixels.json"  # removed with its shards
_IMAGE = re.compile(
    r"(?i)[^.]+|[\d.]+|.*\.(dcm|dicom|ima|png|jpe?g|tiff?|bmp|webp|gif|p[gp]m|jp2|j2k|jls)(\.gz)?"
    r"|.*\.(zip|tar|tgz|tar\.gz)"
)
_GROWING = re.compile(r"shard-\d+\.npy|\.jsonl$")  # written in place: whole at the end
_TEMPORARY = re.compile(r"\..*\.tmp")


class _Entry(NamedTuple):
    """A file when it was last the same here and in the store."""

    size: int
    mtime_ns: int  # of the local file
    version: str  # of the stored one
    lazy: bool  # an image or a shard, whose content may be in the store alone


_Manifest = dict[Path, _Entry]


# ---------------------------------------------------------------------- folders of a command


@contextmanager
def local_folders(
    arguments: Mapping[str, Any], say: Callable[[str], object] = lambda line: None
) -> Iterator[dict[str, Any]]:
    """Work with the folders in stores that a command names as with local ones."""
    addresses = list(dict.fromkeys(addresses_in(dict(arguments))))
    if not addresses:
        yield dict(arguments)
        return
    for address in addresses:
        local_path(address)  # refuses a wrong one before anything is fetched
    _cache_limit()
    sends = not _is_rank_above_0()
    with ExitStack() as stack:
        for address in addresses:
            stack.enter_context(_in_use(address, sends=sends))
        sender = _Sender(addresses if sends else [], say)
        complete = False
        try:
            yield with_local_paths(dict(arguments))
            complete = True
        except SystemExit:  # a command that has found a problem
            complete = True
            raise
        finally:
            sender.end(complete=complete)


def _is_rank_above_0() -> bool:
    """Whether a launcher has started this process beside another that writes the results."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID"))
    return any(rank.isdigit() and int(rank) > 0 for rank in ranks)


def local_folder(folder: str | Path) -> Path:
    """The folder that a person or a program names; one in a store is fetched first."""
    if not is_address(folder):
        return Path(folder)
    _fetch_folder(str(folder), alone=False)
    return local_path(str(folder))


@contextmanager
def _in_use(address: str, *, sends: bool) -> Iterator[None]:
    """Fetch a folder, and note for other processes of this machine that it is worked in."""
    in_use = _lock_file(f"in use {address}")
    with ExitStack() as stack:
        with _locked(f"use {address}"):
            alone = not any(_is_held(path) for path in in_use.parent.glob(f"{in_use.name}.*"))
            own = in_use.with_name(f"{in_use.name}.{uuid.uuid4().hex}")
            stack.enter_context(closing(LockFile(own, _wait)))
            if alone and sends:
                object_store.end_uploads(address)
            _fetch_folder(address, alone=alone)
        yield


def _lock_file(name: str) -> Path:
    return copies_root() / ".locks" / hashlib.sha256(name.encode()).hexdigest()[:24]


def _wait() -> None:
    """Wait for a lock without a word."""


def _is_held(lock: Path) -> bool:
    """Whether a process has a lock; the file that a killed one left is removed."""
    try:
        LockFile(lock, None).close()
    except InputError:
        return True
    return False


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with closing(LockFile(_lock_file(name), _wait)):
        yield


def _manifest_file(folder: Path) -> Path:
    """The part of the manifest for the files of one folder: addresses within others share it."""
    return copies_root() / ".manifests" / folder.relative_to(copies_root()) / "files.json"


def _read_manifest(copy: Path) -> _Manifest:
    """The entries of a folder, or of one file."""
    manifest = {}
    tree = _manifest_file(copy).parent
    for path in (_manifest_file(copy.parent), *tree.rglob("files.json")):
        folder = copies_root() / path.parent.relative_to(copies_root() / ".manifests")
        for name, entry in (json.loads(path.read_bytes()) if path.is_file() else {}).items():
            if folder != copy.parent or name == copy.name:
                manifest[folder / name] = _Entry(*entry)
    return manifest


def _write_manifest(before: _Manifest, now: _Manifest) -> None:
    changes = defaultdict[Path, dict[str, _Entry | None]](dict)
    for path in before.keys() | now.keys():
        if before.get(path) != now.get(path):
            changes[path.parent][path.name] = now.get(path)
    for folder, entries in changes.items():
        path = _manifest_file(folder)
        kept = json.loads(path.read_bytes()) if path.is_file() else {}
        kept = {name: entry for name, entry in {**kept, **entries}.items() if entry is not None}
        make_folder(path.parent)
        write_text(path, json.dumps(kept))


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _local_files(copy: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of the files of a copy that are whole."""
    if copy.is_file():
        return {copy: _state(copy)}
    states = {}
    for folder, _, names in os.walk(copy):
        for name in names:
            if name != LOCK_NAME and not _TEMPORARY.fullmatch(name):
                with suppress(FileNotFoundError):
                    states[Path(folder, name)] = _state(Path(folder, name))
    return states


def _is_shard(path: Path) -> bool:
    return _SHARD.fullmatch(path.name) is not None


def _url(path: Path) -> str:
    return str(address_of(path))


# ------------------------------------------------------------------------------- fetching


def _fetch_folder(address: str, *, alone: bool) -> None:
    """Bring the local copy up to date.

    Work of an earlier command that was never sent stays; only where no other command of this
    machine works in the copy, and the store has changed since, it is dropped.
    """
    copy = local_path(address)
    with _locked(f"manifest {copy}"):
        files = object_store.list_files(address)
        stored = {copy / name if name else copy: file for name, file in files.items()}
        before, local = _read_manifest(copy), _local_files(copy)
        manifest = dict(before)
        unsent = {p for p, state in local.items() if p not in before or before[p][:2] != state}
        changed = [p for p, s in stored.items() if p not in before or before[p].version != s[1]]
        # A kill may have come between sending a file and noting that.
        sent = {p for p in changed if p in unsent and _has_content(p, stored[p])}
        if sent.issuperset(changed):
            manifest |= {p: _Entry(*local[p], stored[p].version, _is_shard(p)) for p in sent}
            unsent -= sent
        elif alone:
            for path in unsent:
                path.unlink(missing_ok=True)
                del local[path]
            unsent = set()
        for path in before.keys() - stored.keys():
            if path not in unsent:
                path.unlink(missing_ok=True)
            del manifest[path]
        wanted = {}
        for path, file in stored.items():
            entry = manifest.get(path)
            if entry is not None and entry.version == file.version:
                is_here = path in local or _is_shard(path)
                # Work that was not sent, and goes on, has removed what marks the folder complete.
                if is_here or (unsent and not entry.lazy and path.suffix == ".json"):
                    continue
            if path not in unsent:
                wanted[path] = file
        try:
            for path, entry in _take(copy, wanted):
                manifest[path] = entry
        finally:
            _write_manifest(before, manifest)


def _has_content(path: Path, stored: Stored) -> bool:
    """Whether a local file is what the store says, as far as it says it."""
    if path.stat().st_size != stored.size:
        return False
    return stored.md5 is None or file_digest(path, "md5") == stored.md5


def _take(copy: Path, wanted: dict[Path, Stored]) -> Iterator[tuple[Path, _Entry]]:
    """Fetch small files, write placeholders for images, and leave out shards."""
    small = []
    for path, stored in wanted.items():
        make_folder(path.parent)
        if _is_shard(path):
            path.unlink(missing_ok=True)
            yield path, _Entry(stored.size, stored.changed_ns, stored.version, lazy=True)
        elif path != copy and _IMAGE.fullmatch(path.name):
            path.unlink(missing_ok=True)
            with path.open("wb") as file:
                file.truncate(stored.size)  # takes no room on the disk
            os.utime(path, ns=(stored.changed_ns, stored.changed_ns))
            yield path, _Entry(*_state(path), stored.version, lazy=True)
        else:
            small.append(path)

    def fetch_one(path: Path) -> tuple[Path, _Entry]:
        try:
            stored = object_store.fetch(_url(path), path, wanted[path])
        except FileNotFoundError:
            raise StoreError(f"{_url(path)}: is gone since it was listed; try again") from None
        return path, _Entry(*_state(path), stored.version, lazy=False)

    with ThreadPoolExecutor(_AT_ONCE, "fetch") as pool:
        yield from pool.map(fetch_one, small)


def is_there(path: Path) -> bool:
    """Whether there is a file at a path, or at the address of which it is the local copy."""
    address = address_of(path)
    if address is None or path.is_file():
        return path.is_file()
    try:
        object_store.describe(address)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def open_image(path: Path, sha256: str | None = None) -> Iterator[Path]:
    """The file of an image to read: itself, or a temporary copy of what lies in a store.

    Works on any machine that may read the store, whether or not it has a local copy. A file whose
    SHA-256 is not the one that is given is refused, so that a stranger's data set reads no other
    file of this machine, wherever its paths and links lead.
    """
    address = address_of(path)
    if address is None or (path.is_file() and not _is_placeholder(path)):
        _require_same(path, path, sha256)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
        temporary = Path(folder) / path.name
        try:
            stored = object_store.describe(address)
            if stored.size > MAX_FILE_BYTES:
                raise InputError(
                    f"{path}: {stored.size / 2**20:,.0f} MiB is larger than the limit of "
                    f"{MAX_FILE_BYTES / 2**20:,.0f} MiB"
                )
            object_store.fetch(address, temporary, stored)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file or directory") from None
        os.utime(temporary, ns=(stored.changed_ns, stored.changed_ns))
        _require_same(temporary, path, sha256)
        try:
            yield temporary
        except InputError as error:
            error.args = (str(error).replace(str(temporary), str(path)),)
            raise


def _require_same(file: Path, path: Path, sha256: str | None) -> None:
    if sha256 is None or not file.is_file() or file.stat().st_size > MAX_FILE_BYTES:
        return  # unknown, or refused by what reads it
    if file_digest(file, "sha256") != sha256:
        raise InputError(
            f"{path}: is not the file that the data set was made of (its SHA-256 is not the one "
            "in images.parquet); bring it back, or remove the data set and run cxr prepare again"
        )


def _is_placeholder(path: Path) -> bool:
    """Whether a file begins with zeros alone, as no file of an image does."""
    with path.open("rb") as file:
        return not any(file.read(4096))


# --------------------------------------------------------------------------------- shards


def fetch_shard(path: Path, sha256: str | None) -> Path:
    """A shard of a pixel store: itself, or fetched into the local copy where that has room."""
    address = address_of(path)
    if address is None:
        return path
    if not path.is_file():
        with _locked("shards"):
            if not path.is_file():  # no other process has fetched it meanwhile
                _fetch_checked(address, path, sha256)
    with suppress(FileNotFoundError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # in use: see _make_room
    return path


def _fetch_checked(address: str, path: Path, sha256: str | None) -> None:
    try:
        stored = object_store.describe(address)
        _make_room(stored.size, address)
        make_folder(path.parent)
        for _ in range(2):
            stored = object_store.fetch(address, path)
            if sha256 is None or file_digest(path, "sha256") == sha256:
                os.utime(path, ns=(stored.changed_ns, stored.changed_ns))
                return
            path.unlink()
    except FileNotFoundError:
        raise InputError(f"{path}: is gone; prepare the data set again") from None
    raise InputError(
        f"{path}: is not what was written (its SHA-256 differs from the one in pixels.json); "
        f"remove {path.parent} and run cxr prepare again"
    )


def _cache_limit() -> int:
    """How many bytes of shards may lie on the disk."""
    text = os.environ.get(CACHE_LIMIT_VARIABLE, str(_LIMIT_GIB))
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise InputError(f"{CACHE_LIMIT_VARIABLE}={text}: give a number of GiB above 0")
    return int(limit * 2**30)


def _make_room(need: int, address: str) -> None:
    """Remove the least recently used shards until one more fits; never one that is not sent."""
    limit = _cache_limit()
    if need > limit:
        raise InputError(
            f"{address}: has {need / 2**30:.2f} GiB, more than the cache may hold "
            f"({CACHE_LIMIT_VARIABLE}={limit / 2**30:g}); set it higher"
        )
    shards = [(path.stat(), path) for path in copies_root().glob("**/shard-*.npy")]
    total = sum(status.st_size for status, _ in shards)
    for status, path in sorted(shards, key=lambda shard: shard[0].st_atime_ns):
        if total + need <= limit:
            return
        if _is_stored(path):
            path.unlink(missing_ok=True)
            total -= status.st_size


def _is_stored(path: Path) -> bool:
    """Whether the store holds a shard as it is here; fetched and sent ones have its time."""
    try:
        stored = object_store.describe(str(address_of(path)))
    except FileNotFoundError:
        return False
    return _state(path) == (stored.size, stored.changed_ns)


# --------------------------------------------------------------------------------- sending


class _Sender:
    """Sends what changes in the local copies of a command, by a thread that runs beside it."""

    def __init__(self, addresses: list[str], say: Callable[[str], object]) -> None:
        self._addresses, self._say = addresses, say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_often, daemon=True)
        self._thread.start()

    def _send_often(self) -> None:
        while not self._stop.wait(_SEND_EVERY_S):
            # A store that fails now is tried again, and heard at the end.
            with suppress(InputError, OSError):
                for address in self._addresses:
                    _send_changes(address, last=False)

    def end(self, *, complete: bool) -> None:
        """Stop the thread; send the rest, if the command came to its end."""
        self._stop.set()
        self._thread.join()
        for address in self._addresses if complete else ():
            number, size = _send_changes(address, last=True)
            if number:
                self._say(f"Sent: {address} ({counted(number, 'file')}, {size / 2**20:,.1f} MiB)")


def _send_changes(address: str, *, last: bool) -> tuple[int, int]:
    """Send what has changed; while the command works, only files that are finished."""
    copy, start = local_path(address), time.time_ns()
    with _locked(f"manifest {copy}"):
        before, local = _read_manifest(copy), _local_files(copy)
        manifest = dict(before)
        changed = [p for p, state in local.items() if p not in before or before[p][:2] != state]
        if not last:
            changed = [p for p in changed if local[p][1] < start and not _GROWING.search(p.name)]
        # An empty copy is a cache that somebody has emptied, which is no wish to empty the store.
        gone = [p for p, entry in before.items() if not entry.lazy and p not in local and local]
        stores = {p.parent for p in gone if p.name == _PIXELS_NAME and not p.parent.exists()}
        gone += [p for p, entry in before.items() if entry.lazy and p.parent in stores]
        if len(changed) > 1:
            gone += [p for p in changed if p in before and p.suffix == ".json"]
        try:
            for path in gone:
                object_store.remove(_url(path))
                del manifest[path]
            for path in sorted(changed, key=lambda p: (local[p][1], p.suffix == ".json", p)):
                stored = object_store.send(path, _url(path))
                state, is_shard = local[path], _is_shard(path)
                if is_shard and _state(path) == state:
                    os.utime(path, ns=(time.time_ns(), stored.changed_ns))
                    state = _state(path)
                manifest[path] = _Entry(*state, stored.version, lazy=is_shard)
        finally:
            _write_manifest(before, manifest)
    return len(changed), sum(local[p][0] for p in changed)
