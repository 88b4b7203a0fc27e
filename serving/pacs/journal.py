"""What became of each image of an archive: one SQLite file that survives being killed.

It holds no text of a header: images, studies and results are digests of their UIDs.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from data_prep.contracts.errors import InputError

State = Literal["fetched", "answered", "sent", "skipped", "failed"]

_VERSION = 1
_TABLES = """
CREATE TABLE images (
    job TEXT, image TEXT, state TEXT NOT NULL, reason TEXT,
    fetched REAL, answered REAL, sent REAL, PRIMARY KEY (job, image)
) WITHOUT ROWID;
CREATE TABLE studies (
    job TEXT, study TEXT, instances INTEGER NOT NULL, PRIMARY KEY (job, study)
) WITHOUT ROWID;
CREATE TABLE results (result TEXT PRIMARY KEY, image TEXT NOT NULL) WITHOUT ROWID;
"""


def digest(uid: str) -> str:
    """What stands for a UID in the journal, in names of files and in what is shown."""
    return hashlib.sha256(uid.strip(" \0").encode()).hexdigest()[:32]


def job_id(systems: Sequence[dict[str, Any]], destination: str) -> str:
    """A job: the same systems whose results go to the same place. Other ones answer anew."""
    text = json.dumps([*systems, destination], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Journal:
    """Says of each image of a job what was done; opened by one process at a time.

    An image is ``fetched``, then ``answered``, and at last ``sent``, or it is ``skipped`` or
    ``failed`` for a reason. Each step is on the disk when its method returns. Results have UIDs
    that follow from image and systems: what was answered but is not known to be sent is answered
    and sent again, and the archive keeps it once.
    """

    def __init__(self, connection: sqlite3.Connection, job: str) -> None:
        self._connection, self._job = connection, job

    @classmethod
    def open(cls, path: Path, job: str, *, dry_run: bool = False) -> Self:
        """Open or begin a journal; with `dry_run` a copy in memory is written."""
        if path.is_dir():
            raise InputError(f"--journal {path}: is a folder; name a file in it")
        try:
            connection = _in_memory(path) if dry_run else _connect(path)
            try:
                _require_version(connection, path)
            except BaseException:
                connection.close()
                raise
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise InputError(
                    f"--journal {path}: another cxr pacs uses it; end that, or give another file"
                ) from None
            raise InputError(f"--journal {path}: cannot be opened ({error})") from None
        except sqlite3.DatabaseError:
            raise InputError(f"--journal {path}: is not a journal of cxr pacs") from None
        except OSError as error:
            raise InputError(f"--journal {path}: {error.strerror}; give another file") from None
        return cls(connection, job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def is_done(self, image: str) -> bool:
        """Whether nothing is left to do for an image, or it failed since `forget_failures`."""
        state = self._value("SELECT state FROM images WHERE job = ? AND image = ?", image)
        return state in ("sent", "skipped", "failed")

    def is_result(self, image: str) -> bool:
        """Whether an image is a result that was made here, by any job."""
        rows = self._connection.execute("SELECT 1 FROM results WHERE result = ?", (image,))
        return rows.fetchone() is not None

    def enter(self, image: str, state: State, reason: str | None = None) -> None:
        """Note the state of an image, and why it is skipped or failed."""
        with self._connection:
            self._write(image, state, reason)

    def answer(self, image: str, results: Sequence[str]) -> None:
        """An image is answered for; its results are about to be sent."""
        rows = [(result, image) for result in results]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", rows)
            self._write(image, "answered", None)

    def forget_failures(self) -> None:
        """Try again what failed: another version, or another state of the archive, may do it."""
        with self._connection:
            failed = self._connection.execute(
                "DELETE FROM images WHERE job = ? AND state = 'failed'", (self._job,)
            )
            if failed.rowcount:  # a study may have been finished with one of them
                self._connection.execute("DELETE FROM studies WHERE job = ?", (self._job,))

    def is_finished(self, study: str, instances: int) -> bool:
        """Whether nothing was left to do in a study when it had as many instances."""
        stored = self._value("SELECT instances FROM studies WHERE job = ? AND study = ?", study)
        return stored == instances

    def finish(self, study: str, instances: int) -> None:
        """Nothing is left to do in a study as long as it has as many instances."""
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO studies VALUES (?, ?, ?)", (self._job, study, instances)
            )

    def _value(self, query: str, key: str) -> Any:
        row = self._connection.execute(query, (self._job, key)).fetchone()
        return None if row is None else row[0]

    def _write(self, image: str, state: State, reason: str | None) -> None:
        self._connection.execute(
            "INSERT INTO images (job, image, state, reason) VALUES (?1, ?2, ?3, ?4) "
            "ON CONFLICT DO UPDATE SET state = ?3, reason = ?4",
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
    # One process alone; each transaction is on the disk when it ends.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA synchronous = FULL")
    try:
        connection.execute("BEGIN EXCLUSIVE")
        connection.commit()
    except sqlite3.Error:
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
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version or tables:
        raise InputError(
            f"--journal {path}: is not a journal of this version of cxr pacs; give another file"
        )
    connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
