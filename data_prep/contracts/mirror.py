"""Twins of remote folders: brought before a command works, sent back while and after it does.

Small files are fetched at once. An image is a stand-in, an empty file of the right size and time,
until `borrowed`; a shard of a pixel store is not there until `shard_at_hand`, which keeps what it
fetches within `CXR_CACHE_GIB`. What a command changes is sent in the order in which it was written,
and a JSON file that is replaced is removed first: at every moment the remote folder is one that the
local one has been, and none looks complete that is not.

A record (SQLite) beside the twins holds what of each file was the same here and there. One machine
writes a folder at a time: where another has written meanwhile, its files win.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data_prep.contracts.addresses import (
    address_of,
    addresses_in,
    is_address,
    twin_of,
    twin_root,
    with_twins,
)
from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import LOCK, make_folder
from data_prep.contracts.object_store import (
    Stated,
    StoreError,
    end_uploads,
    fetch,
    file_digest,
    listing,
    remove,
    send,
    stated_of,
)
from data_prep.contracts.words import counted

CACHE_LIMIT_VARIABLE = "CXR_CACHE_GIB"
_LIMIT_GIB = 50.0
_SEND_EVERY_S = 30.0
_AT_ONCE = 16  # small files under way
_SHARD = re.compile(r"shard-\d+\.npy")
_PIXELS_NAME = "pixels.json"  # removed with its shards
_IMAGE = re.compile(
    r"(?i)[^.]+|[\d.]+|.*\.(dcm|dicom|ima|png|jpe?g|tiff?|bmp|webp|gif|p[gp]m|jp2|j2k|jls)(\.gz)?"
    r"|.*\.(zip|tar|tgz|tar\.gz)"
)
_GROWING = re.compile(r"shard-\d+\.npy|.*\.jsonl")  # written in place: whole at the end
_IN_WORK = re.compile(r"\..*\.tmp")

_Path = str | Path


def _is_image(name: str) -> bool:
    """Whether a file is an image, or may be one: DICOM files often have no extension.

    Example:
        >>> [_is_image(name) for name in ("a.dcm", "1.2.840.7", "IM0001", "a.csv.gz")]
        [True, True, True, False]
    """
    return _IMAGE.fullmatch(name) is not None


class _Row(NamedTuple):
    """What was the same here and there: the file here by size and time, there by its version."""

    size: int
    mtime_ns: int
    version: str
    here: bool


class _Record:
    """One SQLite file for all twins; each process and thread opens it anew."""

    def __init__(self) -> None:
        import sqlite3  # what lies here alone costs nothing

        root = make_folder(twin_root())
        self._root = root
        self._base = sqlite3.connect(root / "record.sqlite", timeout=60, isolation_level=None)
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, size INTEGER, "
            "mtime_ns INTEGER, version TEXT, here INTEGER, used REAL)"
        )

    def __enter__(self) -> _Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def below(self, folder: Path) -> dict[Path, _Row]:
        """The rows of a folder, or of one file."""
        name = self._name(folder)
        rows = self._base.execute(
            "SELECT name, size, mtime_ns, version, here FROM files "
            "WHERE name = ? OR (name > ? AND name < ?)",
            (name, f"{name}/", f"{name}0"),  # 0 follows the slash
        )
        return {self._root / r[0]: _Row(r[1], r[2], r[3], bool(r[4])) for r in rows}

    def of(self, path: Path) -> _Row | None:
        """The row of one file."""
        return self.below(path).get(path)

    def put(self, rows: dict[Path, _Row]) -> None:
        """Write rows, at once."""
        now = time.time()
        values = [
            (self._name(p), r.size, r.mtime_ns, r.version, r.here, now) for p, r in rows.items()
        ]
        self._base.execute("BEGIN IMMEDIATE")
        self._base.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", values)
        self._base.execute("COMMIT")

    def drop(self, paths: Sequence[Path]) -> None:
        """Forget files."""
        names = [(self._name(path),) for path in paths]
        self._base.execute("BEGIN IMMEDIATE")
        self._base.executemany("DELETE FROM files WHERE name = ?", names)
        self._base.execute("COMMIT")

    def used(self, path: Path) -> None:
        """Note that a shard is in use."""
        self._base.execute(
            "UPDATE files SET used = ? WHERE name = ?", (time.time(), self._name(path))
        )

    def shards_here(self) -> list[tuple[Path, _Row]]:
        """Fetched shards, the least recently used first."""
        rows = self._base.execute(
            "SELECT name, size, mtime_ns, version FROM files "
            "WHERE here AND name GLOB '*/shard-*.npy' ORDER BY used"
        )
        return [(self._root / r[0], _Row(r[1], r[2], r[3], True)) for r in rows]


def _state(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _files(twin: Path) -> Iterator[Path]:
    """The files of a twin that are whole."""
    if twin.is_file():
        yield twin
        return
    for folder, _, names in os.walk(twin):
        for name in names:
            if name != LOCK and not _IN_WORK.fullmatch(name):
                yield Path(folder, name)


@contextmanager
def _lock(name: str, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock of all processes of this machine; yields whether it is held."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:24]
    path = make_folder(twin_root() / ".locks") / digest
    with path.open("w") as handle:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(handle, how | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def bring(address: str, *, alone: bool = True) -> Path:
    """Bring the twin of a remote folder or file up to date.

    Args:
        address: Of a folder that is there, or to be made.
        alone: Whether no other command of this machine works in it: only then is work of an
            earlier command dropped that was never sent and that another machine has overtaken.

    Returns:
        The twin.

    Raises:
        InputError: There is no such bucket, no access, or no answer.
    """
    twin = twin_of(address)
    found = listing(address)
    there = {twin / name if name else twin: stated for name, stated in found.items()}
    with _Record() as record:
        rows = record.below(twin)
        here = {path: _state(path) for path in {*there, *rows, *_files(twin)}}
        unsent = {
            path
            for path, state in here.items()
            if state is not None and not _is_sent(rows.get(path), state, there.get(path))
        }
        overtaken = any(p not in rows or not _is_known(rows[p], there[p]) for p in there)
        if overtaken and alone:
            for path in unsent:
                path.unlink(missing_ok=True)
                here[path] = None
            unsent = set()
        gone = [path for path in rows if path not in there]
        for path in gone:
            if path not in unsent:
                path.unlink(missing_ok=True)
        record.drop(gone)
        wanted = {}
        for path, stated in there.items():
            row = rows.get(path)
            if row is not None and _is_after(row, stated):
                at_hand = here[path] is not None or (not row.here and _SHARD.fullmatch(path.name))
                # Work that was not sent, and goes on, has removed what marks the folder complete.
                if at_hand or (unsent and row.here and path.suffix == ".json"):
                    continue
            if path not in unsent:
                wanted[path] = stated
        _take(twin, wanted, record)
    return twin


def bring_named(path: Path) -> Path:
    """A folder by the path that another machine gave it: brought, where it lies in a store.

    Several processes of a machine may ask at a time, beside a command that works in the twin.

    Raises:
        InputError: There is no such bucket, no access, or no answer.

    Example:
        >>> bring_named(Path("/mnt/all/data"))
        PosixPath('/mnt/all/data')
    """
    address = address_of(path)
    if address is None:
        return path
    with _lock(f"bring {address}"):
        return bring(address, alone=False)


_SENDING = "sending after "


def _is_after(row: _Row, stated: Stated) -> bool:
    """Whether the store holds what was sent or fetched last; a kill may have hidden its version."""
    if row.version.startswith(_SENDING):
        return row.version != _SENDING + stated.version and row.size == stated.size
    return row.version == stated.version


def _is_known(row: _Row, stated: Stated) -> bool:
    """Whether the store holds what we sent or fetched, now or before it was to be replaced."""
    return _is_after(row, stated) or row.version == _SENDING + stated.version


def _is_sent(row: _Row | None, state: tuple[int, int], stated: Stated | None) -> bool:
    if row is None or state != row[:2]:
        return False
    if row.version.startswith(_SENDING):
        return stated is not None and _is_after(row, stated)
    return True


def _take(twin: Path, wanted: dict[Path, Stated], record: _Record) -> None:
    """Fetch small files, stand in for images, and leave out shards."""
    rows, small = {}, []
    for path, stated in wanted.items():
        make_folder(path.parent)
        if _SHARD.fullmatch(path.name):
            path.unlink(missing_ok=True)
            rows[path] = _Row(stated.size, 0, stated.version, here=False)
        elif _is_image(path.name) and path != twin:
            _stand_in(path, stated)
            rows[path] = _Row(*(_state(path) or (0, 0)), stated.version, here=False)
        else:
            small.append((path, stated))
    record.put(rows)

    def bring_one(pair: tuple[Path, Stated]) -> tuple[Path, _Row]:
        path, stated = pair
        try:
            fetched = fetch(str(address_of(path)), path, stated)
        except FileNotFoundError:
            raise StoreError(
                f"{address_of(path)}: is gone since it was listed; try again"
            ) from None
        return path, _Row(*(_state(path) or (0, 0)), fetched.version, here=True)

    with ThreadPoolExecutor(_AT_ONCE, "fetch") as pool:
        record.put(dict(pool.map(bring_one, small)))


def _stand_in(path: Path, stated: Stated) -> None:
    """An empty file of the right size and time, which takes no room on the disk."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(stated.size)
    os.utime(path, ns=(stated.changed_ns, stated.changed_ns))


@contextmanager
def borrowed(path: Path, most_bytes: int | None = None) -> Iterator[Path]:
    """The file of an image to read: itself, or a temporary copy of what lies in a store.

    Works on any machine that may read the store, whether or not a twin is there.

    Args:
        path: Local, or in a twin.
        most_bytes: Larger files are refused before they are fetched.

    Raises:
        InputError: The file is gone or too large; or what the block raises, which then names the
            file by its own path.
        StoreError: The store refuses or does not answer, which is no fault of the file.
    """
    address = address_of(path)
    if address is None or _is_whole(path):
        yield path
        return
    try:
        stated = stated_of(address)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or directory") from None
    if most_bytes is not None and stated.size > most_bytes:
        raise InputError(
            f"{path}: {stated.size / 2**20:,.0f} MiB is larger than the limit of "
            f"{most_bytes / 2**20:,.0f} MiB"
        )
    with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
        copy = Path(folder) / path.name
        try:
            fetch(address, copy, stated)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file or directory") from None
        os.utime(copy, ns=(stated.changed_ns, stated.changed_ns))
        try:
            yield copy
        except InputError as error:
            error.args = (str(error).replace(str(copy), str(path)),)
            raise


def _is_whole(path: Path) -> bool:
    """Whether a file in a twin has its content here, and is no stand-in."""
    if not path.is_file() or not path.is_relative_to(twin_root()):
        return False
    with _Record() as record:
        row = record.of(path)
    return row is None or row.here or _state(path) != row[:2]


def is_there(path: Path) -> bool:
    """Whether there is a file at a path, or at the address that it stands for.

    Raises:
        StoreError: The store refuses or does not answer.
    """
    address = address_of(path)
    if address is None or path.is_file():
        return path.is_file()
    try:
        stated_of(address)
    except FileNotFoundError:
        return False
    return True


def shard_at_hand(path: Path, sha256: str | None) -> Path:
    """A shard of a pixel store: itself, or fetched into its twin, where there is room for it.

    Args:
        path: Local, or in a twin.
        sha256: Of its bytes, as its store recorded it; None of stores that did not.

    Raises:
        InputError: It is larger than the cache may be, is gone, or does not have that hash.
    """
    address = address_of(path)
    if address is None:
        return path
    with _Record() as record:
        if path.is_file():
            record.used(path)
            return path
        with _lock("shards"):
            if path.is_file():  # another process has fetched it
                return path
            try:
                stated = stated_of(address)
                _make_room(record, stated.size, address)
                make_folder(path.parent)
                _fetch_checked(address, path, stated, sha256)
            except FileNotFoundError:
                raise InputError(f"{path}: is gone; prepare the data set again") from None
            record.put({path: _Row(*(_state(path) or (0, 0)), stated.version, here=True)})
    return path


def _fetch_checked(address: str, path: Path, stated: Stated, sha256: str | None) -> None:
    for _ in range(2):
        fetch(address, path, stated)
        if sha256 is None or file_digest(path, "sha256") == sha256:
            return
        path.unlink()
    raise InputError(
        f"{path}: is not what was written (its SHA-256 differs from the one in pixels.json); "
        f"remove {path.parent} and run cxr prepare again"
    )


def cache_limit() -> int:
    """How many bytes of fetched shards may lie on the disk.

    Raises:
        InputError: ``CXR_CACHE_GIB`` is no number above 0.
    """
    text = os.environ.get(CACHE_LIMIT_VARIABLE, str(_LIMIT_GIB))
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise InputError(f"{CACHE_LIMIT_VARIABLE}={text}: give a number of GiB above 0")
    return int(limit * 2**30)


def _make_room(record: _Record, need: int, address: str) -> None:
    """Remove the least recently used shards until one more fits; never one that is not sent."""
    limit = cache_limit()
    if need > limit:
        raise InputError(
            f"{address}: has {need / 2**30:.2f} GiB, more than the cache may hold "
            f"({CACHE_LIMIT_VARIABLE}={limit / 2**30:g}); set it higher"
        )
    held = [(path, row) for path, row in record.shards_here() if _state(path) == row[:2]]
    total = sum(row.size for _, row in held)
    for path, row in held:
        if total + need <= limit:
            return
        path.unlink(missing_ok=True)
        record.put({path: row._replace(here=False)})
        total -= row.size


@dataclass
class _Session:
    """The twins that one command works in, and a thread that sends what is finished in them."""

    addresses: list[str]
    say: Callable[[str], object]
    started: dict[Path, set[Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_often, daemon=True)

    def begin(self) -> None:
        for address in self.addresses:
            twin = twin_of(address)
            with _Record() as record:
                self.started[twin] = {p for p, row in record.below(twin).items() if row.here}
        self._thread.start()

    def _send_often(self) -> None:
        while not self._stop.wait(_SEND_EVERY_S):
            # A store that fails now is tried again, and heard at the end.
            with suppress(InputError, OSError):
                for twin in self.started:
                    self._send(twin, last=False)

    def end(self, *, complete: bool) -> None:
        """Stop the thread; send the rest, if the command came to its end."""
        self._stop.set()
        self._thread.join()
        for twin in self.started if complete else ():
            number, size = self._send(twin, last=True)
            if number:
                files = f"{counted(number, 'file')}, {size / 2**20:,.1f} MiB"
                self.say(f"Sent: {address_of(twin)} ({files})")

    def _send(self, twin: Path, *, last: bool) -> tuple[int, int]:
        """Send what has changed; while the command works, only files that are finished."""
        start = time.time_ns()
        with _lock(f"send {twin}"), _Record() as record:
            rows = record.below(twin)
            here = {path: state for path in _files(twin) if (state := _state(path)) is not None}
            self.started[twin] |= here.keys()
            changed = [p for p, state in here.items() if p not in rows or state != rows[p][:2]]
            gone = [p for p in rows if rows[p].here and p in self.started[twin] and p not in here]
            stores = {p.parent for p in gone if p.name == _PIXELS_NAME and not p.parent.exists()}
            gone += [p for p in rows if not rows[p].here and p.parent in stores]
            if not here or not last:
                changed = [
                    p for p in changed if here[p][1] < start and not _GROWING.fullmatch(p.name)
                ]
            if not here:  # somebody has emptied the cache, which is no wish to empty the store
                gone = []
            replaced = [p for p in changed if p in rows and p.suffix == ".json"]
            for path in [*gone, *(replaced if len(changed) > 1 else ())]:
                remove(str(address_of(path)))
            record.drop(gone)
            for path in sorted(changed, key=lambda p: (here[p][1], p.suffix == ".json", p)):
                before = "" if path not in rows or path in replaced else rows[path].version
                record.put({path: _Row(*here[path], _SENDING + before, here=True)})
                sent = send(path, str(address_of(path)))
                record.put({path: _Row(*here[path], sent.version, here=True)})
        return len(changed), sum(here[p][0] for p in changed)


@contextmanager
def remote_folders(
    words: Sequence[str], say: Callable[[str], object] = lambda line: None
) -> Iterator[list[str]]:
    """Work with the remote folders that a command names as with local ones.

    Args:
        words: Of the command line; some may hold addresses.
        say: Called with lines for the person at the terminal.

    Yields:
        The words, with paths of twins for addresses.

    Raises:
        InputError: A store refuses or does not answer.

    Example:
        >>> with remote_folders(["show", "out/data"]) as words:
        ...     words
        ['show', 'out/data']
    """
    addresses = list(dict.fromkeys(a.rstrip("/") for word in words for a in addresses_in(word)))
    if not addresses:
        yield list(words)
        return
    for address in addresses:
        twin_of(address)  # refuses a wrong one before anything is fetched
    cache_limit()
    with ExitStack() as stack:
        for address in addresses:
            with _lock(address, wait=False) as alone:
                if not _is_rank_above_0():
                    end_uploads(address) if alone else None
                bring(address, alone=alone)
            stack.enter_context(_lock(address, shared=True))
        session = _Session([] if _is_rank_above_0() else addresses, say)
        session.begin()
        complete = False
        try:
            yield [with_twins(word) for word in words]
            complete = True
        except SystemExit:  # a verb that has found a problem
            complete = True
            raise
        finally:
            session.end(complete=complete)


def _is_rank_above_0() -> bool:
    """Whether a launcher has started this process beside another that writes the results."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID"))
    return any(rank.isdigit() and int(rank) > 0 for rank in ranks)


def folder_of(given: _Path) -> Path:
    """The folder that a person or a program names: an address is brought first.

    Raises:
        InputError: A store refuses or does not answer.

    Example:
        >>> folder_of("out/data")
        PosixPath('out/data')
    """
    return bring(str(given)) if is_address(given) else Path(given)
