"""Writing a pixel store so that a kill at any moment loses little and corrupts nothing.

Rows are appended to the last shard; the index names only rows that are on the disk, and is
replaced whole. What lies behind the index's last row is cut off when the next writer starts.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import pandas as pd
from numpy.lib import format as npy_format

from data_prep.errors import InputError
from data_prep.folders import make_folder
from data_prep.preprocess import Placement, store_spec
from data_prep.tables import empty_table, frame_digest, read_table, write_json, write_table

SHARD_IMAGES = 4096
INDEX_NAME, INFO_NAME, INFO_KIND = "index.parquet", "pixels.json", "pixels"

_COMMIT_EVERY = 1024  # images; writing the index costs as much as decoding a handful
_IDENTITY = ("image_id", "size", "scale_x", "scale_y", "offset_x", "offset_y")


def shard_name(shard: int) -> str:
    """File name of a shard.

    Example:
        >>> shard_name(3)
        'shard-00003.npy'
    """
    return f"shard-{shard:05d}.npy"


class PixelStoreWriter:
    """Adds images to a pixel store; a context manager.

    Leaving the block normally completes the store. Leaving it by an exception, Ctrl-C included,
    keeps what was added and leaves the store incomplete: the next writer goes on from there.

    Args:
        folder: The store's folder; made if absent. One writer at a time: hold its lock or that
            of the data set.
        size: Side of the squares, in px.

    Attributes:
        done: Ids of the images that are in the store.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with PixelStoreWriter(Path(folder), 16) as writer:
        ...         writer.add("a", np.zeros((16, 16), np.uint8), Placement(1.0, 1.0, 0.0, 0.0))
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['index.parquet', 'pixels.json', 'shard-00000.npy']
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = make_folder(folder), size
        self._header_bytes = len(_shard_header(0, size))
        self._rows = self._resume()
        self._uncommitted = 0
        self._shard, self._file = -1, None  # type: tuple[int, BinaryIO | None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        with suppress(InputError):  # the first error is the one to show
            self.commit()
        self._close_shard()

    @property
    def done(self) -> set[str]:
        """Ids of the images that are in the store."""
        return set(self._rows)

    def add(self, image_id: str, pixels: np.ndarray, placement: Placement) -> None:
        """Append a picture; one that is in the store already is replaced.

        Args:
            image_id: Name of the image.
            pixels: uint8, shape ``(size, size)``.
            placement: Where the original lies in it.

        Raises:
            ValueError: The picture has another shape or type.
            InputError: The disk is full.
        """
        if pixels.shape != (self.size, self.size) or pixels.dtype != np.uint8:
            wanted = f"uint8 ({self.size}, {self.size})"
            raise ValueError(f"pixels must be {wanted}, got {pixels.dtype} {pixels.shape}")
        known = self._rows.get(image_id)
        shard, row = known[:2] if known else divmod(len(self._rows), SHARD_IMAGES)
        with _disk_errors(self.folder):
            if not self._uncommitted:
                (self.folder / INFO_NAME).unlink(missing_ok=True)
            file = self._open_shard(shard)
            file.seek(self._header_bytes + row * self.size**2)
            file.write(pixels.tobytes())
        place = (placement.scale_x, placement.scale_y, placement.offset_x, placement.offset_y)
        self._rows[image_id] = (shard, row, *place)
        self._uncommitted += 1
        if self._uncommitted >= _COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """Put everything added so far on the disk, so that a kill cannot lose it.

        Raises:
            InputError: The disk is full.
        """
        if not self._uncommitted:
            return
        with _disk_errors(self.folder):
            self._flush_shard()
        write_table(self._index(), self.folder / INDEX_NAME, "pixel_index")
        self._uncommitted = 0

    def close(self) -> None:
        """Commit, and mark the store as complete."""
        self.commit()
        self._close_shard()
        index = self._index()
        if index.empty:
            write_table(index, self.folder / INDEX_NAME, "pixel_index")
        content = {
            "spec": store_spec(self.size),
            "size": self.size,
            "n_images": len(index),
            "pixels_id": frame_digest(index.assign(size=self.size), _IDENTITY),
        }
        write_json(self.folder / INFO_NAME, INFO_KIND, content)

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
            try:
                self._flush_shard()
            finally:
                self._file.close()
                self._file = None

    def _resume(self) -> dict[str, tuple[int, int, float, float, float, float]]:
        """Take up what an earlier writer committed; cut off what it did not.

        A store is a cache: one whose shards and index disagree is started again.
        """
        try:
            index = read_table(self.folder / INDEX_NAME, "pixel_index")
        except InputError:
            index = empty_table("pixel_index")
        index = index.sort_values(["shard", "row"])
        expected = np.arange(len(index))
        whole = np.array_equal(index["shard"] * SHARD_IMAGES + index["row"], expected)
        shards, counts = np.unique(index["shard"] if whole else [], return_counts=True)
        ends = {
            shard_name(int(shard)): self._header_bytes + int(count) * self.size**2
            for shard, count in zip(shards, counts, strict=True)
        }
        paths = {path.name: path for path in self.folder.glob("shard-*.npy")}
        whole &= all(name in paths and paths[name].stat().st_size >= ends[name] for name in ends)
        for name, path in paths.items():
            if whole and name in ends:
                os.truncate(path, ends[name])
            else:
                path.unlink()
        if not whole:
            (self.folder / INFO_NAME).unlink(missing_ok=True)
            return {}
        return {row[0]: tuple(row[1:]) for row in index.itertuples(index=False)}


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
