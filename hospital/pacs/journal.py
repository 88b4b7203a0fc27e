"""The journal of `cxr pacs`: an SQLite file with the state of each image, also after a kill.

The journal contains no text of a header. Images, studies and results are named by digests of their
UIDs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from cxr_compare.data_prep.contracts.disk_space import disk_errors
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.hospital.pacs.patience import UnreachableError

State = Literal["fetched", "answered", "sent", "skipped", "failed"]

_VERSION = 2
_TABLES = """
CREATE TABLE images (
    job TEXT, image TEXT, state TEXT NOT NULL, reason TEXT,
    fetched REAL, answered REAL, sent REAL, PRIMARY KEY (job, image)
) WITHOUT ROWID;
CREATE TABLE results (result TEXT PRIMARY KEY, image TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE studies (
    search TEXT, study TEXT, since TEXT NOT NULL, held TEXT NOT NULL, PRIMARY KEY (search, study)
) WITHOUT ROWID;
"""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report an error of the disk or of the journal's file in a ``with`` block as a one-line error.

    The block reads or writes the journal (see `Journal`), of which `path` is the SQLite file. A
    damaged journal is an `InputError`; a disk that is full or cannot be written is an
    `UnreachableError`.
    """
    try:
        with disk_errors(path):
            try:
                yield
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
                if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
                    raise InputError(f"--journal {path}: is damaged; give another file") from None
                if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOTADB):
                    raise
                number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
                raise OSError(number, str(error)) from None
    except OSError as error:
        raise UnreachableError(f"{path}: {str(error.strerror).lower()}; put that right") from None
    except InputError as error:
        if error.__cause__ is None:  # damaged
            raise
        raise UnreachableError(str(error), full_disk=error.full_disk) from None


def digest(uid: str) -> str:
    """Return the digest that stands for a UID in the journal, in file names and in messages.

    It is the first 32 hexadecimal digits of the SHA-256.

    Example:
        >>> digest("1.2.3")[:12]
        'c47f5b18b8a4'
    """
    return hashlib.sha256(uid.strip(" \0").encode()).hexdigest()[:32]


def job_id(systems: Sequence[dict[str, Any]], destination: str) -> str:
    """Return an id for a set of systems together with the archive that receives their results.

    The journal records the images of each such job separately. If the systems or the destination
    change, all images are therefore answered again. Facts of a system, such as name, digest of the
    weights and threshold, are values for JSON; the destination is an address such as
    ``ARCHIVE@pacs:104`` or a URL.
    """
    text = json.dumps([*systems, destination], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Journal:
    """Record of the state of each image of an archive, so that each is answered once.

    A system is a trained classifier or detector. A job is a set of systems together with the
    destination of their results, see `job_id`. Only one process can open a journal at a time. All
    images, studies and results are named by the `digest` of their UID.

    The state of an image is first ``fetched`` (copied from the archive), then ``answered``
    (predicted by all systems), and finally ``sent`` (its results are in the archive); or it is
    ``skipped`` or ``failed`` with a reason. Each state is on the disk when its method returns. If
    the program ends between ``answered`` and ``sent``, the image is answered and sent again. The
    UIDs of results depend only on image and systems, so the archive stores each result once.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, job: str) -> None:
        self._connection = connection
        self._path = path
        self._job = job

    @classmethod
    def open(cls, path: Path, job: str, *, dry_run: bool = False) -> Self:
        """Open the journal of a job by its SQLite file, or make a new one.

        With `dry_run`, it is a copy in memory, and nothing is recorded in the file. A file that is
        no journal, or that another process uses, is refused.
        """
        if path.is_dir():
            raise InputError(f"--journal {path}: is a folder; name a file in it")
        try:
            with writing(path):
                connection = _in_memory(path) if dry_run else _connect(path)
                try:
                    _require_version(connection, path)
                except BaseException:
                    connection.close()
                    raise
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                raise InputError(
                    f"--journal {path}: another cxr pacs uses it; end that, or give another file"
                ) from None
            raise InputError(f"--journal {path}: is not a journal of cxr pacs") from None
        return cls(connection, path, job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def state(self, image: str) -> State | None:
        """Return the last state of an image in the journal; None if this job has recorded none."""
        rows = self._rows("SELECT state FROM images WHERE job = ? AND image = ?", self._job, image)
        return rows[0][0] if rows else None

    def is_result(self, image: str) -> bool:
        """Return True if an image is a result that this program made and sent to the archive."""
        return bool(self._rows("SELECT 1 FROM results WHERE result = ?", image))

    def record(self, image: str, state: State, reason: str | None = None) -> None:
        """Record the state of an image, and the reason why it was skipped or failed."""
        with writing(self._path), self._connection:
            self._write(image, state, reason)

    def record_answer(self, image: str, results: Sequence[str]) -> None:
        """Record that all systems have predicted an image, before their results are sent.

        The results are recorded so that they are not taken for images later.
        """
        rows = [(result, image) for result in results]
        with writing(self._path), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", rows)
            self._write(image, "answered", None)

    def forget_failures(self) -> None:
        """Forget which images failed, so that they are tried again."""
        with writing(self._path), self._connection:
            self._connection.execute(
                "DELETE FROM images WHERE job = ? AND state = 'failed'", (self._job,)
            )

    def images_of_study(self, study: str, modalities: str) -> set[str]:
        """Return the images that the last search of the archive found in a study.

        `modalities` are the DICOM codes of the search in one string: sorted and separated by one
        space, such as ``CR DX``. The set is empty if no search has recorded the study.
        """
        query = "SELECT held FROM studies WHERE search = ? AND study = ?"
        rows = self._rows(query, f"{self._job} {modalities}", study)
        return set(rows[0][0].split()) if rows else set()

    def record_study(self, study: str, modalities: str, since: str, images: Iterable[str]) -> None:
        """Record which images a search of the archive found in a study; replace an earlier record.

        `modalities` are as in `images_of_study`. `since` is the first study date of the search,
        ``YYYYMMDD``, empty for all dates. `images` is empty if the archive no longer lists any.
        """
        row = (f"{self._job} {modalities}", study, since, " ".join(images))
        with writing(self._path), self._connection:
            self._connection.execute("INSERT OR REPLACE INTO studies VALUES (?, ?, ?, ?)", row)

    def listed_studies(self, modalities: str, since: str) -> set[str]:
        """Return the studies in which the latest recorded search of the archive found images.

        The caller compares them with the studies that the archive lists now. A study that has
        disappeared since can then be recorded as empty. Only searches for the same modalities (as
        in `images_of_study`) of the same job are taken into account, and of these only those whose
        first study date is `since` (``YYYYMMDD``; empty for a search of all dates) or later,
        because the present search then covers them as well.
        """
        query = "SELECT study FROM studies WHERE search = ? AND since >= ? AND held != ''"
        return {study for (study,) in self._rows(query, f"{self._job} {modalities}", since)}

    def _rows(self, query: str, *values: str) -> list[Any]:
        with writing(self._path):
            return self._connection.execute(query, values).fetchall()

    def _write(self, image: str, state: State, reason: str | None) -> None:
        self._connection.execute(
            "INSERT INTO images (job, image, state, reason) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET state = excluded.state, reason = excluded.reason",
            (self._job, image, state, reason),
        )
        if state not in ("skipped", "failed"):
            self._connection.execute(
                f"UPDATE images SET {state} = ? WHERE job = ? AND image = ?",  # noqa: S608
                (time.time(), self._job, image),
            )


def _connect(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=0.5)
    try:
        # One process alone; each transaction is on the disk when it ends.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN EXCLUSIVE")
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def _in_memory(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    if path.is_file():
        source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.5)
        try:
            source.backup(connection)
        finally:
            source.close()
    return connection


def _require_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == _VERSION:
        return
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version or tables:
        raise InputError(
            f"--journal {path}: is not a journal of this version of cxr pacs; give another file"
        )
    connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
