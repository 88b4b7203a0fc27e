"""Writing of a pixel store, so that a kill at any moment loses little and damages nothing.

Images are appended to the last shard, and afterwards their rows are appended to a journal. The
journal therefore names only images that are on the disk. A new writer reads the index and the
journal, and cuts off what follows the images that they name. When the store is complete, the
journal becomes the index.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.lib import format as npy_format

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.disk_space import disk_errors, make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import (
    empty_table,
    frame_digest,
    read_table,
    write_table,
)
from cxr_compare.data_prep.store.pixel_store import (
    INDEX_NAME,
    INFO_NAME,
    PixelsInfo,
    pixels_checksum,
    shard_name,
)
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.preprocess import store_spec

SHARD_IMAGES = 4096
"""Number of images in a full shard."""
_COMMIT_IMAGES = 256  # images between two commits: a kill loses a few seconds of work at most
_JOURNAL_NAME = "journal.jsonl"
_ID_COLUMNS = ("image_id", "spec", "scale_x", "scale_y", "offset_x", "offset_y")


class _IndexRow(NamedTuple):
    """An image's row in the index, without its id; the order of the fields is that of columns."""

    shard: int
    row: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    pixels_hash: int


class PixelStoreWriter:
    """A context manager that adds resized square images to the pixel store of a data set.

    A pixel store is a folder with all images of a data set, resized to squares of one side. A
    normal end of the ``with`` block completes the store. An exception, including Ctrl-C, keeps the
    images that were added and leaves the store incomplete, so that the next writer continues.

    Args:
        folder: Folder of the pixel store.
        size: Side of the square images, px.
    """

    def __init__(self, folder: Path, size: int) -> None:
        """Begin a store or continue one.

        Args:
            folder: The folder of the store, made if absent. The caller has locked it.
            size: Side of the square images, px.
        """
        self.folder = make_folder(folder)
        self.size = size
        self._sha256 = _read_shard_checksums(self.folder / INFO_NAME)
        self._header_bytes = len(_shard_header(0, size))
        self._rows = self._read_committed_rows()
        self._uncommitted: list[str] = []  # ids
        self._open_shard_number = -1
        self._open_file: BinaryIO | None = None

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
        """Ids of the images that the pixel store already contains."""
        return set(self._rows)

    def add(self, image_id: str, pixels: np.ndarray, placement: Placement) -> None:
        """Append an image, or replace the stored image with the same id.

        Args:
            image_id: Id of the image.
            pixels: The image as a resized square, uint8, shape ``(size, size)``.
            placement: Position of the original image in the square.

        Raises:
            ValueError: The pixels have another type or shape.
            InputError: The disk is full.
        """
        if pixels.shape != (self.size, self.size) or pixels.dtype != np.uint8:
            expected = f"uint8 ({self.size}, {self.size})"
            raise ValueError(f"pixels must be {expected}, got {pixels.dtype} {pixels.shape}")
        replaced = self._rows.get(image_id)
        if replaced is None:
            shard, row = divmod(len(self._rows), SHARD_IMAGES)
        else:
            shard = replaced.shard
            row = replaced.row
        with disk_errors(self.folder):
            if not self._uncommitted:
                (self.folder / INFO_NAME).unlink(missing_ok=True)
            file = self._open_shard(shard)
            self._sha256.pop(shard_name(shard), None)
            file.seek(self._shard_bytes(row))
            file.write(np.ascontiguousarray(pixels).data)
        self._rows[image_id] = _IndexRow(
            shard,
            row,
            placement.scale_x,
            placement.scale_y,
            placement.offset_x,
            placement.offset_y,
            pixels_checksum(pixels),
        )
        self._uncommitted.append(image_id)
        if len(self._uncommitted) >= _COMMIT_IMAGES:
            self.commit()

    def commit(self) -> None:
        """Write all images that were added to the disk, so that they survive a kill of the process.

        Raises:
            InputError: The disk is full.
        """
        if not self._uncommitted:
            return
        with disk_errors(self.folder):
            self._flush_shard()
            lines = [
                _journal_line([image_id, *self._rows[image_id]]) for image_id in self._uncommitted
            ]
            with (self.folder / _JOURNAL_NAME).open("a", encoding="utf-8") as journal:
                journal.writelines(lines)
        self._uncommitted = []

    def close(self) -> None:
        """Write all images that were added to the disk, and mark the pixel store as complete.

        Raises:
            InputError: The disk is full.
        """
        self.commit()
        self._close_shard()
        index = self._index()
        digest = write_table(index, self.folder / INDEX_NAME, "pixel_index")
        (self.folder / _JOURNAL_NAME).unlink(missing_ok=True)
        spec = store_spec(self.size)
        record = PixelsInfo(
            spec=spec,
            size=self.size,
            n_images=len(index),
            pixels_id=frame_digest(index.assign(spec=spec), _ID_COLUMNS),
            sha256=self._shard_checksums(),
            files={INDEX_NAME: digest},
        )
        record.write(self.folder / INFO_NAME)

    def _shard_checksums(self) -> dict[str, str]:
        """Return the SHA-256 of each shard; those of unchanged shards are known."""
        checksums = {}
        for row in self._rows.values():
            name = shard_name(row.shard)
            if name not in checksums:
                known = self._sha256.get(name)
                checksums[name] = known or file_digest(self.folder / name, "sha256")
        return checksums

    def _index(self) -> pd.DataFrame:
        if not self._rows:
            return empty_table("pixel_index")
        rows = [(image_id, *row) for image_id, row in self._rows.items()]
        return pd.DataFrame(rows, columns=["image_id", *_IndexRow._fields])

    def _open_shard(self, shard: int) -> BinaryIO:
        if self._open_file is None or shard != self._open_shard_number:
            self._close_shard()
            path = self.folder / shard_name(shard)
            self._open_file = path.open("r+b" if path.exists() else "w+b")
            self._open_shard_number = shard
        return self._open_file

    def _flush_shard(self) -> None:
        if self._open_file is None:
            return
        images = min(len(self._rows) - self._open_shard_number * SHARD_IMAGES, SHARD_IMAGES)
        self._open_file.seek(0)
        self._open_file.write(_shard_header(images, self.size))
        self._open_file.flush()
        os.fsync(self._open_file.fileno())

    def _close_shard(self) -> None:
        if self._open_file is not None:
            with self._open_file:
                try:
                    self._flush_shard()
                finally:
                    self._open_file = None

    def _read_committed_rows(self) -> dict[str, _IndexRow]:
        """Return what an earlier writer committed, and cut off what it did not.

        A store is a cache: one whose shards and index disagree is started again.
        """
        rows = {**_read_index(self.folder / INDEX_NAME), **_read_journal(self.folder)}
        rows = dict(sorted(rows.items(), key=lambda item: (item[1].shard, item[1].row)))
        images_by_shard = Counter(shard_name(row.shard) for row in rows.values())
        paths = {path.name: path for path in self.folder.glob("shard-*.npy")}
        if not self._is_whole(rows, images_by_shard, paths):
            for name in (INFO_NAME, INDEX_NAME, _JOURNAL_NAME):
                (self.folder / name).unlink(missing_ok=True)
            rows = {}
            images_by_shard = Counter()
        for name, path in paths.items():
            if name in images_by_shard:
                os.truncate(path, self._shard_bytes(images_by_shard[name]))
            else:
                path.unlink()
        return rows

    def _is_whole(
        self,
        rows: dict[str, _IndexRow],
        images_by_shard: Counter[str],
        paths: dict[str, Path],
    ) -> bool:
        """Return True if the rows have no gap and the shards hold all of them."""
        positions = [row.shard * SHARD_IMAGES + row.row for row in rows.values()]
        if positions != list(range(len(rows))):
            return False
        return all(
            name in paths and paths[name].stat().st_size >= self._shard_bytes(images)
            for name, images in images_by_shard.items()
        )

    def _shard_bytes(self, images: int) -> int:
        """Return the size in bytes of a shard with a number of images."""
        return self._header_bytes + images * self.size**2


def _read_shard_checksums(path: Path) -> dict[str, str]:
    """Return the checksums of the shards of a complete store; empty for another."""
    try:
        return PixelsInfo.read(path).sha256
    except InputError:
        return {}


def _read_index(path: Path) -> dict[str, _IndexRow]:
    try:
        index = read_table(path, "pixel_index")
    except InputError:  # there is none yet, or it is damaged: then the shards disagree with it
        return {}
    return {row[0]: _IndexRow(*row[1:]) for row in index.itertuples(index=False)}


def _read_journal(folder: Path) -> dict[str, _IndexRow]:
    """Read the journal up to its first broken line, and cut off the rest."""
    path = folder / _JOURNAL_NAME
    if not path.is_file():
        return {}
    rows = {}
    valid_bytes = 0
    for line in path.read_bytes().splitlines(keepends=True):
        fields = _parse_journal_line(line)
        if fields is None:
            break
        rows[fields[0]] = _IndexRow(*fields[1:])
        valid_bytes += len(line)
    os.truncate(path, valid_bytes)
    return rows


def _journal_line(fields: list[Any]) -> str:
    return json.dumps([*fields, zlib.crc32(json.dumps(fields).encode())]) + "\n"


def _parse_journal_line(line: bytes) -> list[Any] | None:
    """Return the fields of a line; None if it was cut short or has been changed."""
    try:
        fields: list[Any] = json.loads(line)[:-1]
    except (ValueError, TypeError):
        return None
    return fields if _journal_line(fields).encode() == line else None


def _shard_header(images: int, size: int) -> bytes:
    """Return a ``.npy`` header; NumPy pads it so that the first axis can grow in place."""
    header = BytesIO()
    shape = (images, size, size)
    npy_format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return header.getvalue()
