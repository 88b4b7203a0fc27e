"""Writing a pixel store so that a kill at any moment loses little and corrupts nothing.

Images are appended to the last shard, then their rows to a journal, which so names only what is
on the disk. A writer that starts takes up index and journal, and cuts off what lies behind them.
Completing the store turns the journal into the index.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pandas as pd
from numpy.lib import format as npy_format

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import make_folder
from data_prep.contracts.json_files import read_json, write_json
from data_prep.contracts.tables import empty_table, frame_digest, read_table, write_table
from data_prep.store.preprocess import Placement, store_spec
from data_prep.work.local_copies import fetch_shard
from data_prep.work.object_store import file_digest

SHARD_IMAGES = 4096
INDEX_NAME, INFO_NAME, INFO_KIND = "index.parquet", "pixels.json", "pixels"

_COMMIT_EVERY = 256  # images: a kill loses a few seconds of work at most
_JOURNAL_NAME = "journal.jsonl"
_IDENTITY = ("image_id", "spec", "scale_x", "scale_y", "offset_x", "offset_y")

_Place = tuple[int, int, float, float, float, float]  # shard, row, scale x and y, offset x and y


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"shard-{shard:05d}.npy"


class PixelStoreWriter:
    """Adds images to a pixel store; a context manager.

    Leaving the block normally completes the store. Leaving it by an exception, Ctrl-C included,
    keeps what was added and leaves the store incomplete: the next writer goes on from there.

    Attributes:
        done: Ids of the images that are in the store.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = make_folder(folder), size
        self._sha256 = _read_hashes(self.folder / INFO_NAME)
        self._header_bytes = len(_shard_header(0, size))
        self._rows = self._resume()
        self._uncommitted: list[str] = []
        self._shard, self._file = -1, None  # type: tuple[int, BinaryIO | None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
            else:
                with suppress(InputError, OSError):  # the first error is the one to show
                    self.commit()
        finally:
            with suppress(OSError):
                self._close_shard()

    @property
    def done(self) -> set[str]:
        """Ids of the images that are in the store."""
        return set(self._rows)

    def add(self, image_id: str, pixels: np.ndarray, placement: Placement) -> None:
        """Append an image; one that is in the store already is replaced."""
        if pixels.shape != (self.size, self.size) or pixels.dtype != np.uint8:
            wanted = f"uint8 ({self.size}, {self.size})"
            raise ValueError(f"pixels must be {wanted}, got {pixels.dtype} {pixels.shape}")
        known = self._rows.get(image_id)
        shard, row = known[:2] if known else divmod(len(self._rows), SHARD_IMAGES)
        with _disk_errors(self.folder):
            if not self._uncommitted:
                (self.folder / INFO_NAME).unlink(missing_ok=True)
            file = self._open_shard(shard)
            self._sha256.pop(shard_name(shard), None)
            file.seek(self._end(row))
            file.write(pixels.tobytes())
        place = (placement.scale_x, placement.scale_y, placement.offset_x, placement.offset_y)
        self._rows[image_id] = (shard, row, *place)
        self._uncommitted.append(image_id)
        if len(self._uncommitted) >= _COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """Put everything added so far on the disk, so that a kill cannot lose it."""
        if not self._uncommitted:
            return
        with _disk_errors(self.folder):
            self._flush_shard()
            lines = [json.dumps([name, *self._rows[name]]) + "\n" for name in self._uncommitted]
            with (self.folder / _JOURNAL_NAME).open("a", encoding="utf-8") as journal:
                journal.writelines(lines)
        self._uncommitted = []

    def close(self) -> None:
        """Commit, and mark the store as complete."""
        self.commit()
        self._close_shard()
        index = self._index()
        write_table(index, self.folder / INDEX_NAME, "pixel_index")
        (self.folder / _JOURNAL_NAME).unlink(missing_ok=True)
        spec = store_spec(self.size)
        content = {
            "spec": spec,
            "size": self.size,
            "n_images": len(index),
            "pixels_id": frame_digest(index.assign(spec=spec), _IDENTITY),
            "sha256": self._hashes(),
        }
        write_json(self.folder / INFO_NAME, INFO_KIND, content)

    def _hashes(self) -> dict[str, str]:
        """SHA-256 of each shard: of those written now, the others' are known."""
        names = dict.fromkeys(shard_name(shard) for shard, *_ in self._rows.values())
        known = self._sha256
        return {n: known.get(n) or file_digest(self.folder / n, "sha256") for n in names}

    def _index(self) -> pd.DataFrame:
        columns = empty_table("pixel_index").columns
        rows = [(image_id, *place) for image_id, place in self._rows.items()]
        return pd.DataFrame(rows, columns=columns) if rows else empty_table("pixel_index")

    def _open_shard(self, shard: int) -> BinaryIO:
        if self._file is None or shard != self._shard:
            self._close_shard()
            path = self.folder / shard_name(shard)
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._shard = shard
        return self._file

    def _flush_shard(self) -> None:
        if self._file is None:
            return
        images = min(len(self._rows) - self._shard * SHARD_IMAGES, SHARD_IMAGES)
        self._file.seek(0)
        self._file.write(_shard_header(images, self.size))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _close_shard(self) -> None:
        if self._file is not None:
            with self._file:
                try:
                    self._flush_shard()
                finally:
                    self._file = None

    def _resume(self) -> dict[str, _Place]:
        """Take up what an earlier writer committed; cut off what it did not.

        A store is a cache: one whose shards and index disagree is started again.
        """
        rows = {**_read_index(self.folder / INDEX_NAME), **_read_journal(self.folder)}
        rows = dict(sorted(rows.items(), key=lambda item: item[1][:2]))
        positions = [shard * SHARD_IMAGES + row for shard, row, *_ in rows.values()]
        ends = Counter(shard_name(shard) for shard, *_ in rows.values())
        for name in ends:
            fetch_shard(self.folder / name, self._sha256.get(name))
        paths = {path.name: path for path in self.folder.glob("shard-*.npy")}
        whole = positions == list(range(len(rows))) and all(
            name in paths and paths[name].stat().st_size >= self._end(images)
            for name, images in ends.items()
        )
        if not whole:
            for name in (INFO_NAME, INDEX_NAME, _JOURNAL_NAME):
                (self.folder / name).unlink(missing_ok=True)
            rows, ends = {}, Counter()
        for name, path in paths.items():
            if name in ends:
                os.truncate(path, self._end(ends[name]))
            else:
                path.unlink()
        return rows

    def _end(self, images: int) -> int:
        """Bytes of a shard with so many images."""
        return self._header_bytes + images * self.size**2


def _read_hashes(path: Path) -> dict[str, str]:
    """Hashes of the shards of a complete store; none of another."""
    try:
        return dict(read_json(path, INFO_KIND).get("sha256", {}))
    except InputError:
        return {}


def _read_index(path: Path) -> dict[str, _Place]:
    try:
        index = read_table(path, "pixel_index")
    except InputError:  # none yet, or damaged: then the shards and it disagree
        return {}
    return {row[0]: tuple(row[1:]) for row in index.itertuples(index=False)}


def _read_journal(folder: Path) -> dict[str, _Place]:
    path = folder / _JOURNAL_NAME
    if not path.is_file():
        return {}
    rows, end = {}, 0
    for line in path.read_bytes().splitlines(keepends=True):
        parsed = _journal_row(line)
        if parsed is None:
            break
        rows[parsed[0]], end = tuple(parsed[1:]), end + len(line)
    os.truncate(path, end)
    return rows


def _journal_row(line: bytes) -> list[Any] | None:
    """A row of the journal, or None where a kill or a full disk cut it short."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _shard_header(images: int, size: int) -> bytes:
    """A ``.npy`` header; NumPy pads it so that the first axis can grow in place."""
    header = BytesIO()
    shape = (images, size, size)
    npy_format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{folder}: no space left on the disk; free some and run again to resume"
        ) from None
