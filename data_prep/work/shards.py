"""Shards: a command works on every n-th row of its list, into a folder of its own.

``CXR_SHARD=3/64`` asks for the third of 64 shards, and ``CXR_SHARD=slurm`` for that of a task of a
SLURM job array. The variables of SLURM alone ask for nothing, since arrays also run seeds or folds.
The option ``--join`` of the same command joins the folders. A record in each says what was asked
for, so that shards of other settings, rows or versions are refused.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.output_folders import require_same_settings
from cxr_compare.data_prep.contracts.provenance import present_command, software_versions
from cxr_compare.data_prep.contracts.records import Digests, Record, Whole

Rows = TypeVar("Rows", bound=Sequence[Any])
_VARIABLE = "CXR_SHARD"
_MOST_NAMED = 5  # missing shards in a message


@dataclass(frozen=True)
class Shard:
    """One of several equal shares, numbered from 1, of the rows of a command.

    Example:
        >>> Shard(3, 64).take(range(200)), Shard(3, 64).folder(Path("sets/nih")).as_posix()
        (range(2, 200, 64), 'sets/nih-3-of-64')
    """

    number: int
    count: int

    def take(self, rows: Rows) -> Rows:
        """Return the rows of this shard: every `count`-th one."""
        mine: Rows = rows[self.number - 1 :: self.count]  # type: ignore[assignment]
        return mine

    def folder(self, out: Path) -> Path:
        """Return the folder of this shard, beside that of the whole."""
        return out.with_name(f"{out.name}-{self.number}-of-{self.count}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


class _ShardRecord(Record):
    """Record in the folder of a shard.

    Attributes:
        number: Number of the shard, from 1 on; `count` is the number of shards.
        complete: True if all rows of the shard are done.
        command: Command line that made the shard.
        settings: Options that decide the result.
        rows_id: Digest of the list of which each shard takes every n-th row.
        n_rows: Length of that list.
        versions: Versions of the program and of packages.
        files: SHA-256 of each table in the folder, by file name.
    """

    number: Whole
    count: Whole
    complete: bool
    command: str
    settings: dict[str, Any]
    rows_id: str
    n_rows: Whole
    versions: dict[str, str]
    files: Digests = Field(default_factory=dict)

    @property
    def shard(self) -> Shard:
        """The shard that the folder holds."""
        return Shard(self.number, self.count)


class _DataSetShard(_ShardRecord, kind="dataset_shard"):
    """``dataset_shard.json`` of a shard of ``cxr prepare``."""


class _PredictionsShard(_ShardRecord, kind="predictions_shard"):
    """``predictions_shard.json`` of a shard of ``cxr predict``."""


@dataclass(frozen=True)
class ShardedWork:
    """Work that a command does in shards; shards of other work are refused.

    Attributes:
        kind: Kind of the record in the folder of each shard.
        settings: Options that decide the result, JSON-ready.
        rows: Names of all rows, in the order of which each shard takes every n-th one.
    """

    kind: Literal["dataset_shard", "predictions_shard"]
    settings: Mapping[str, Any]
    rows: Sequence[str]

    def begin(self, folder: Path, shard: Shard) -> None:
        """Mark a folder, which the caller has locked, as an unfinished shard of this work.

        A shard that was begun for other work is refused.
        """
        if self._path(folder).is_file():
            self._require_same(folder, shard)
        self._write(folder, shard, complete=False)

    def end(self, folder: Path, shard: Shard, files: Digests) -> None:
        """Mark the folder of a shard as complete, with the SHA-256 of each of its tables."""
        self._write(folder, shard, complete=True, files=files)

    def files(self, folder: Path) -> Digests:
        """Return the SHA-256 of each table in the folder of a complete shard."""
        return self._read(folder).files

    def require_all(self, folders: Sequence[Path]) -> list[Path]:
        """Check that folders hold all shards of this work, each once; return them by number.

        A folder with no shard, an unfinished one, or one of other work is refused, as is a shard
        that is missing or given a second time.
        """
        found: dict[int, Path] = {}
        count = 0
        for folder in folders:
            if not self._path(folder).is_file():
                raise InputError(
                    f"{folder}: holds no shard of this command; give the folders that it made with "
                    f"{_VARIABLE}"
                )
            record = self._read(folder)
            shard = record.shard
            if not record.complete:
                raise InputError(
                    f"{folder}: is unfinished; run its command with {_VARIABLE}={shard} again"
                )
            if count not in (0, shard.count):
                raise InputError(
                    f"{folder}: is shard {shard}, but {folders[0]} is one of {count}; give the "
                    "shards of one count"
                )
            if shard.number in found:
                raise InputError(
                    f"{folder}: is shard {shard}, as {found[shard.number]} is; give each shard once"
                )
            self._require_same(folder, shard)
            count = shard.count
            found[shard.number] = folder
        missing = [number for number in range(1, count + 1) if number not in found]
        if missing:
            names = ", ".join(f"{number}/{count}" for number in missing[:_MOST_NAMED])
            more = len(missing) - _MOST_NAMED
            also = f" and {more} more" if more > 0 else ""
            raise InputError(
                f"--join: {counted(len(missing), 'shard')} missing: {names}{also}; give all "
                f"folders, or run the same command with {_VARIABLE}={missing[0]}/{count}"
            )
        return [found[number] for number in sorted(found)]

    def _path(self, folder: Path) -> Path:
        return folder / f"{self.kind}.json"

    def _read(self, folder: Path) -> _ShardRecord:
        kind = _DataSetShard if self.kind == "dataset_shard" else _PredictionsShard
        return kind.read(self._path(folder))

    def _write(
        self, folder: Path, shard: Shard, *, complete: bool, files: Digests | None = None
    ) -> None:
        kind = _DataSetShard if self.kind == "dataset_shard" else _PredictionsShard
        record = kind(
            number=shard.number,
            count=shard.count,
            complete=complete,
            command=shlex.join(present_command()),
            settings=dict(self.settings),
            rows_id=self._rows_id(),
            n_rows=len(self.rows),
            versions=software_versions(),
            files=files or {},
        )
        record.write(self._path(folder))

    def _rows_id(self) -> str:
        lines = "\n".join(self.rows)
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def _require_same(self, folder: Path, shard: Shard) -> None:
        """Refuse a folder that was begun as another shard, or for other work."""
        record = self._read(folder)
        if record.shard != shard:
            raise InputError(f"{folder}: holds shard {record.shard}, not {shard}; remove it")
        advice = "make and join shards with the same {}"
        versions = software_versions()
        require_same_settings(folder, record.versions, versions, advice.format("versions"))
        require_same_settings(folder, record.settings, self.settings, advice.format("options"))
        if record.rows_id != self._rows_id():
            raise InputError(
                f"{folder}: was made of another list of {record.n_rows:,} images, this command "
                f"has {len(self.rows):,}; make its shards again"
            )


def read_shard(*, join: bool) -> Shard | None:
    """Return the shard that ``CXR_SHARD`` asks for; None if it is not set.

    `join` is True for a call that joins shards, which is none itself. The variable in another form,
    or SLURM's variables that say no shard, are refused.
    """
    text = os.environ.get(_VARIABLE, "")
    if not text:
        return None
    if join:
        refuse_shard("--join joins all shards")
    if text == "slurm":
        return _slurm_shard()
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"{_VARIABLE}={text}: write 1/64 to 64/64 for 64 shards, or slurm")
    return Shard(int(match[1]), int(match[2]))


def refuse_shard(reason: str) -> None:
    """Refuse a call that cannot be done in shards while ``CXR_SHARD`` asks for one."""
    if os.environ.get(_VARIABLE):
        raise InputError(f"{_VARIABLE}={os.environ[_VARIABLE]}: {reason}; unset it")


def _slurm_shard() -> Shard:
    """Return the shard of this task of a SLURM array, whose tasks count from 0 or 1 on."""
    names = ("ID", "MIN", "MAX", "COUNT")
    texts = [os.environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in names]
    if not all(text.isdecimal() for text in texts):
        raise InputError(
            f"{_VARIABLE}=slurm: this is no task of a SLURM array (SLURM_ARRAY_TASK_ID and others "
            "are not set); submit it by sbatch --array=1-64"
        )
    task, first, last, count = map(int, texts)
    # A part of an array that is submitted again would otherwise be other shards.
    if first > 1 or count < 2 or last - first + 1 != count or not first <= task <= last:
        raise InputError(
            f"{_VARIABLE}=slurm: task {task} of an array from {first} to {last} with "
            f"{counted(count, 'task')} does not say its shard; number all tasks from 1 on "
            f"(--array=1-64), or repeat one with {_VARIABLE}=3/64"
        )
    return Shard(task - first + 1, count)
