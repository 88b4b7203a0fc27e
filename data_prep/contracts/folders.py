"""Folders that other programs may read at any time: whole files, one writer, known origin.

JSON files name their kind and the schema version, which tables share. Every folder has one that
records what was asked: `record_of_same` compares it with what is asked now.

A sealed file carries its own SHA-256, computed with 64 zeros in its place: in the last key of a
JSON file, the metadata of a table or of weights, the comment of a checkpoint or a TOML file. A file
whose bytes have changed since is refused when it is read. Files that cannot carry theirs have it in
their folder: a graph in export.json, each image of a shard in the pixel index (``pixels_hash``).
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import json
import logging
import mmap
import os
import platform
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
from filelock import FileLock, Timeout

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.kinds import kind_holding

_RECORDED = (
    "albumentations", "lightning", "nncf", "numpy", "onnxruntime", "opencv-python-headless",
    "openvino", "pandas", "pillow", "pyarrow", "pydicom", "pyjpegls", "pylibjpeg",
    "pylibjpeg-openjpeg", "python-gdcm", "scipy", "simplejpeg", "torch", "torchvision",
)  # fmt: skip

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TEMPORARY = "cxr-command-"
_UNFINISHED = re.compile(r"\..+\.(\d+)(-[0-9a-f]{8})?\.tmp")  # names of `temporary_beside`
_LEAST_FREE = 1 << 16  # bytes: a disk with less is the full one
_IS_WINDOWS = os.name == "nt"
_LEFT_BEHIND_S = 3600.0  # no file takes so long to write
_PATIENCE_S = 0.1  # a lock may be in the middle of being removed
# Older releases of filelock remove the file of a lock themselves, while the lock is held.
_RELEASE_REMOVES_FILE = tuple(map(int, filelock.__version__.split(".")[:3])) < (3, 29, 5)


@contextmanager
def atomic_path(path: Path, *, sealed: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place, or remove it on any error.

    Of a `sealed` one the block writes `SEAL` somewhere; its SHA-256 then takes that place.
    """
    temporary = temporary_beside(path)
    with disk_errors(path):
        try:
            yield temporary
            if sealed:
                _seal(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """Return a new name for a file that is to become `path`, in the same folder.

    No two writers get the same name: processes in two containers may have the same number.

    Example:
        >>> temporary_beside(Path("out/a.csv")) != temporary_beside(Path("out/a.csv"))
        True
    """
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


SEAL = {"sha256_of_this_file": "0" * 64}
"""Metadata of a file that is sealed when it is written."""
# Half of its name is enough: a bit that changes in the other does not hide it.
_SEALED = re.compile(rb"(?:sha256_of_.{9}|this_file)[^0-9a-z]{1,6}(.{64})", re.DOTALL)
_LOG = logging.getLogger("cxr")
_NOTED: set[Path] = set()  # folders of which unsealed files were said
_ENDS = 1 << 18  # bytes at either end of a file in which its seal stands


def _seal(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        start, end = _place_of_seal(content)
        file.seek(start)
        file.write(_digest(content, start, end))


def _place_of_seal(content: bytes | mmap.mmap) -> tuple[int, int]:
    """From where to where a file's SHA-256 stands in it; at the same byte where it has none."""
    found = [*_SEALED.finditer(content, max(len(content) - _ENDS, 0))]
    found = found or [*_SEALED.finditer(content, 0, _ENDS)]
    return found[-1].span(1) if found else (0, 0)


def _digest(content: bytes | mmap.mmap, start: int, end: int) -> bytes:
    """SHA-256 of a file with zeros in the place of its own."""
    digest = hashlib.sha256(memoryview(content)[:start])
    digest.update(b"0" * (end - start))
    digest.update(memoryview(content)[end:])
    return digest.hexdigest().encode()


def _is_sealed(path: Path, content: bytes | mmap.mmap, kind: str) -> bool:
    """Whether a file carries its SHA-256, which is then checked."""
    start, end = _place_of_seal(content)
    if start == end:
        return False
    if content[start:end] != _digest(content, start, end):
        raise _changed(path, kind)
    return True


def require_unchanged(path: Path, kind: str, sha256: str | None = None) -> None:
    """Refuse a file that is not as it was written, by its seal or by the `sha256` recorded of it.

    A file that carries no seal passes without one. `kind`, of JSON, or the table's name, is for the
    remedy in the message.
    """
    with path.open("rb") as file:
        if sha256 is not None:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise _changed(path, kind)
        elif os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _is_sealed(path, content, kind)


def _changed(path: Path, kind: str) -> InputError:
    """What is said of a file whose SHA-256 is not the one that was recorded of it."""
    return InputError(
        f"{path}: is not as it was written (its SHA-256 differs); bring back an unchanged copy, or "
        f"{_again(kind)}"
    )


def _again(kind: str) -> str:
    """Say how a file of a kind is made again."""
    folder = kind_holding(kind)
    if folder is None:
        return "make it again"
    return f"remove the {folder.name} and run {folder.command_line} again"


def _note_unsealed(path: Path) -> None:
    """Say once of each folder in a process that files are read which cannot be checked."""
    if _NOTED.isdisjoint(path.parents):
        _NOTED.add(path.parent)
        _LOG.warning("%s: was written without a checksum; unchecked until it is made again", path)


def write_text(path: Path, text: str, *, sealed: bool = False) -> Path:
    """Write a text file, whole or not at all; return its path."""
    with atomic_path(path, sealed=sealed) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


@contextmanager
def disk_errors(*places: Path) -> Iterator[None]:
    """Say in one line where a disk is full, or what may not be read or written.

    Of several places the file is named that the system names, else the first that is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {*_FULL, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM}:
            raise
        full, named = error.errno in _FULL, error.filename2 or error.filename
        place = next((path for path in places if _free_bytes(path) < _LEAST_FREE), places[0])
        if isinstance(named, str) and not (full and len(places) == 1):
            place = Path(named)
        remedy = "; put that right"
        if full:
            remedy = f" ({_in_units(_free_bytes(place))} free); free some"
        elif error.errno == errno.EFBIG:
            remedy = "; allow larger files (ulimit -f, or another file system)"
        said = f"{place}: {os.strerror(error.errno)}{remedy} and run again"
        raise InputError(said, full_disk=full) from error


def make_folder(folder: Path) -> Path:
    """Make a folder and its parents; `InputError` where a file stands or none can be made."""
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        is_file = isinstance(error, FileExistsError | NotADirectoryError)
        why = "a file stands where a folder is needed" if is_file else "no folder can be made there"
        raise InputError(f"{folder}: {why}; choose another place") from None
    return folder


LOCK = ".lock"  # in every folder while it is written


def require_only(out: Path, names: Collection[str], what: str, pattern: str | None = None) -> None:
    """Refuse a folder, if it is there, that holds more than the named files, a lock, and a pattern.

    So no work is mixed with other work. The message says `what` kind of folder is wanted.

    Example:
        >>> require_only(Path("nowhere"), {"metrics.json"}, "report")
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file stands where a folder is needed")
    for path in sorted(out.iterdir()) if out.is_dir() else ():
        if path.name not in {*names, LOCK} and not (pattern and path.match(pattern)):
            held = f"{out}: holds '{path.name}', which no {what} has"
            raise InputError(f"{held}; choose another --out")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; it takes that place at the end, or is removed."""
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is there and is no empty folder; choose a new one")
    make_folder(out.parent)
    _remove_abandoned(out.parent, f".{out.name}.[0-9]*.tmp")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with closing(HeldLock(temporary / LOCK, lambda: None)) as held:
        try:
            yield temporary
            if _IS_WINDOWS:  # which moves no folder with an open file, and onto no other folder
                held.close()
                if out.exists():
                    out.rmdir()
            temporary.replace(out)
            (out / LOCK).unlink(missing_ok=True)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise InputError(
                f"{out}: another command made it meanwhile; choose a new one"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(parent: Path, pattern: str) -> None:
    """Remove the folders of killed commands: those with a lock that no process holds."""
    for folder in parent.glob(pattern):
        with suppress(InputError, OSError):  # a living process holds it, or it has just gone
            if _is_ours(folder):
                with closing(HeldLock(folder / LOCK, None)) as held:
                    if _IS_WINDOWS:  # which removes no open file
                        held.close()
                    shutil.rmtree(folder)


def _is_ours(folder: Path) -> bool:
    """Return True if a folder belongs to this user, and is no link to another."""
    if not hasattr(os, "getuid"):  # Windows, where each user has a folder for temporary files
        return not folder.is_symlink()
    return folder.lstat().st_uid == os.getuid()


@cache
def own_temporary_files() -> None:
    """Put temporary files of this process, and of those it starts, into a folder of its own.

    It goes when the process ends; that of a killed process goes with the next.
    """
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError:  # all are full: what needs one is to say so
        tempfile.tempdir = os.environ.get("TMPDIR", "/tmp")  # noqa: S108
        return
    with suppress(InputError, OSError):  # no space: a command may need no temporary files
        if parent.name.startswith(_TEMPORARY):  # of the command that started this one
            parent = parent.parent
        _remove_abandoned(parent, f"{_TEMPORARY}*")
        folder = tempfile.mkdtemp(prefix=_TEMPORARY, dir=parent)
        held = HeldLock(Path(folder) / LOCK, lambda: None)
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        owner = os.getpid()

        def remove() -> None:
            if os.getpid() == owner:  # not in its forks
                if _IS_WINDOWS:
                    held.close()
                shutil.rmtree(folder, ignore_errors=True)
                held.close()

        if util := sys.modules.get("multiprocessing.util"):  # which removes its own part before
            util.Finalize(None, remove, exitpriority=-200)
        else:
            atexit.register(remove)


class HeldLock:
    """A lock file that one process has at a time.

    The operating system keeps the lock, not the file: what a killed process leaves stops nobody.
    """

    def __init__(
        self,
        path: Path,
        before_wait: Callable[[], object] | None,
        *,
        protected: Path | None = None,
    ) -> None:
        """Take the lock.

        Args:
            path: The file, made if absent, as its folder is; it goes with the lock.
            before_wait: Called once where another process has the lock, which is then waited for.
                None refuses that.
            protected: The file or folder that is written, for the refusal; by default the folder
                of the lock.

        Raises:
            InputError: Another process has the lock, or the file cannot be made.
        """
        self._path, self._lock = path, FileLock(path, thread_local=False)
        wait_s = _PATIENCE_S
        while not self._lock.is_locked:
            make_folder(path.parent)
            try:
                with disk_errors(path):
                    self._lock.acquire(timeout=wait_s)
            except FileNotFoundError:  # who held it has just removed the folder
                continue
            except Timeout:
                if before_wait is None:
                    raise InputError(
                        f"{protected or path.parent}: another cxr is writing here; wait for it or "
                        "choose another name"
                    ) from None
                before_wait()
                wait_s = -1.0  # for ever

    def close(self) -> None:
        """Remove the file, and let go of the lock; nothing where that was done before."""
        if not self._lock.is_locked:
            return
        # Removed once, and while the lock is held: later the file may be of another process.
        if not (_IS_WINDOWS or _RELEASE_REMOVES_FILE):
            self._path.unlink(missing_ok=True)
        self._lock.release()
        if _IS_WINDOWS:  # which removes no open file
            with suppress(OSError):
                self._path.unlink()


@contextmanager
def folder_lock(folder: Path, before_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold a folder, made if absent, for one writer; the lock goes with the process.

    `before_wait` is called once where another process holds the folder, which is then waited for;
    without it that is refused. Unfinished files of killed processes are removed.
    """
    made = not folder.exists()
    try:
        with closing(HeldLock(folder / LOCK, before_wait)):
            _remove_unfinished(folder)
            yield
    finally:
        with suppress(OSError):  # somebody else writes there, or has removed it
            if made and not any(folder.iterdir()):  # refused before anything was written
                folder.rmdir()


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold one file that is about to be written, for one writer; the lock goes with the process.

    For a file in a folder that is not the command's own, where `folder_lock` would keep out others
    without need.

    Raises:
        InputError: Another process holds the file.
    """
    with closing(HeldLock(path.with_name(f".{path.name}{LOCK}"), None, protected=path)):
        yield


def _remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half written, below a folder that this process has locked.

    A folder inside with a lock file of its own belongs to another writer, who does the same.
    """
    for place, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if not (Path(place, name) / LOCK).exists()]
        for name in names:
            path = Path(place, name)
            if (match := _UNFINISHED.fullmatch(name)) and not _is_running(int(match[1])):
                with suppress(OSError):  # of another user: it harms nothing
                    path.unlink()
        remove_old_unfinished(Path(place))


def _is_running(process: int) -> bool:
    """Return False if no process of this machine has the number."""
    if _IS_WINDOWS:  # which has no signal that does nothing
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def remove_traces(folder: Path) -> None:
    """Remove the lock and the unfinished files of killed processes from a finished folder.

    Nothing happens where there is no lock file, or where a process holds it.
    """
    if (folder / LOCK).is_file():
        with suppress(InputError, OSError), folder_lock(folder):
            pass


def remove_old_unfinished(folder: Path) -> None:
    """Remove unfinished files of killed processes from a folder that several processes write to.

    Nobody locks such a folder, so a file counts as left behind once it is an hour old.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _UNFINISHED.fullmatch(entry.name):
                continue
            with suppress(OSError):  # its writer has just finished it, or it is another user's
                status = entry.stat(follow_symlinks=False)
                if time.time() - status.st_mtime > _LEFT_BEHIND_S:
                    Path(entry.path).unlink()


def require_free_space(folder: Path, need_bytes: int) -> None:
    """Refuse work that cannot fit, before it starts."""
    free = _free_bytes(folder)
    if free < need_bytes:
        raise InputError(
            f"{folder}: needs about {_in_units(need_bytes)}, {_in_units(free)} are free on that "
            f"disk; free {_in_units(need_bytes - free)} more or choose another folder",
            full_disk=True,
        )


def _free_bytes(place: Path) -> int:
    """What may still be written there: nothing where a disk takes no more files."""
    while not place.exists():
        place = place.parent
    if hasattr(os, "statvfs"):  # not on Windows
        stat = os.statvfs(place)
        if stat.f_files and not stat.f_favail:
            return 0
    return shutil.disk_usage(place).free


def _in_units(size: float) -> str:
    """A number of bytes: 1536 is 1.5 KiB."""
    step = min((max(int(size), 1).bit_length() - 1) // 10, 3)
    number = f"{size / 1024**step:,.1f}".removesuffix(".0")
    return f"{number} {('bytes', 'KiB', 'MiB', 'GiB')[step]}"


def usable_processors() -> int:
    """Return how many processors the system lets this process use; a scheduler may grant few."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_ASKED = ContextVar("asked", default="")


@contextmanager
def asked_as(command: str) -> Iterator[None]:
    """Record what is made in the block as made by a command, also where Python asked for it."""
    before = _ASKED.set(command)
    try:
        yield
    finally:
        _ASKED.reset(before)


@cache
def _git_revision() -> str | None:
    repository = Path(__file__).resolve().parents[2]
    if not (repository / ".git").exists():
        return None
    command = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


@cache
def _package_versions() -> dict[str, str]:
    """Versions of Python, of cxr-compare and of the packages that decide results."""
    versions = {"python": platform.python_version()}
    for package in ("cxr-compare", *_RECORDED):
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def provenance() -> dict[str, Any]:
    """What made a folder: command, without this machine's folders, time, versions, hardware."""
    words = shlex.split(_ASKED.get()) or ["cxr", *sys.argv[1:]]
    words = [re.sub(r"(?<![\w.:/])/[^,:;]+", lambda path: Path(path[0]).name, w) for w in words]
    return {
        "command": shlex.join(words),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": _git_revision(),
        "versions": dict(_package_versions()),
        "hardware": {"machine": platform.machine(), "cpus": usable_processors()},
    }


SCHEMA_VERSION = 1


def write_json(path: Path, kind: str, payload: dict[str, Any]) -> None:
    """Write a JSON file with its kind and schema version, whole or not at all.

    Non-finite numbers are refused: an undefined figure is ``null`` with a reason beside it.
    """
    content = {**payload, "contract": kind, "schema_version": SCHEMA_VERSION, **SEAL}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    write_text(path, text + "\n", sealed=True)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numbers and arrays of numpy, columns of pandas
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


class _CheckedRecord(dict[str, Any]):
    """The content of a checked JSON file without its seal.

    Some keys may be absent, as files of older versions lack them. A program that cannot do without
    such a key asks for it as of any dictionary; the error then names the file.
    """

    def __init__(self, path: Path, kind: str, content: dict[str, Any]) -> None:
        super().__init__({key: value for key, value in content.items() if key not in SEAL})
        self._path, self._kind = path, kind

    def __missing__(self, key: str) -> Any:
        raise InputError(
            f"{self._path}: lacks '{key}'; bring back an unchanged copy, or {_again(self._kind)}"
        )


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON file written by `write_json`.

    `InputError` where it is missing, not JSON, of another kind or version, or does not hold what
    the model of its kind in `data_prep.contracts.records` says.
    """
    # Here: a command that reads no file, such as a help, starts without pydantic.
    from cxr_compare.data_prep.contracts.records import record_error

    if not path.is_file():
        raise InputError(
            f"{path}: not found, so {path.parent} is not a complete {kind.replace('_', ' ')} "
            "folder; run the command that makes it again"
        )
    written = path.read_bytes()
    if not _is_sealed(path, written, kind):
        _note_unsealed(path)
    try:
        content = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); make it again") from None
    found = content.get("contract") if isinstance(content, dict) else None
    if found != kind:
        raise InputError(f"{path}: holds '{found}', expected '{kind}'; is this the right folder?")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {content.get('schema_version')}, this program reads "
            f"{SCHEMA_VERSION}; make the folder again with this version"
        )
    problem = record_error(kind, content)
    if problem is not None:
        raise InputError(f"{path}: {problem}; bring back an unchanged copy, or {_again(kind)}")
    return _CheckedRecord(path, kind, content)


def record_of_same(
    out: Path,
    files: Mapping[str, str],
    question: Mapping[str, Any],
    *,
    stored: Callable[[dict[str, Any]], Mapping[str, Any]],
    refusal: Callable[[str, Any, Any], str],
) -> dict[str, Any] | None:
    """What a folder records of the question that is asked; None where it records no question.

    Args:
        out: The folder; it need not exist.
        files: Name and kind of the files that may record it; the first that is there counts.
        question: All that must be the same, by key.
        stored: Picks the question out of a record.
        refusal: Message about the first key that differs, from the key and both values; a value
            is None where there is none.

    Raises:
        InputError: The folder was begun, or made, with another question.

    Example:
        >>> record_of_same(Path("nowhere"), {"run.json": "run"}, {}, stored=dict, refusal=str)
    """
    for name, kind in files.items():
        if (out / name).is_file():
            record = read_json(out / name, kind)
            before = stored(record)
            for key in {**question, **before}:
                if before.get(key) != question.get(key):
                    message = refusal(key, before.get(key), question.get(key))
                    raise InputError(f"{out}: {message}")
            return record
    return None
