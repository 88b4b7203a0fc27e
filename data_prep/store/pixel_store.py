"""The pixel store: every image of a data set as a model reads it, memory-mapped; a cache.

It is written so that a kill at any moment loses little and corrupts nothing: images are appended
to the last shard, then their rows to a journal, which so names only what is on the disk. A writer
that starts takes up index and journal, and cuts off what lies behind them. Completing the store
turns the journal into the index.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import pandas as pd
from numpy.lib import format as npy_format

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.disk_space import disk_errors, make_folder, require_free_space
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.contracts.tables import (
    empty_table,
    frame_digest,
    read_table,
    write_table,
)
from cxr_compare.data_prep.store.decode import DecodeTask, decode_all
from cxr_compare.data_prep.store.preprocess import Placement, store_spec
from cxr_compare.data_prep.work.engine import Engine
from cxr_compare.data_prep.work.local_engine import LocalEngine
from cxr_compare.data_prep.work.shard_cache import fetch_shard
from cxr_compare.data_prep.work.store_addresses import store_address

SHARD_IMAGES = 4096
INDEX_NAME, INFO_NAME, INFO_KIND = "index.parquet", "pixels.json", "pixels"

_COMMIT_EVERY = 256  # images: a kill loses a few seconds of work at most
_JOURNAL_NAME = "journal.jsonl"
_IDENTITY = ("image_id", "spec", "scale_x", "scale_y", "offset_x", "offset_y")

_Place = tuple[int, int, float, float, float, float, int]
"""Shard, row, scale x and y, offset x and y, and `_pixels_hash`."""


def _shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"shard-{shard:05d}.npy"


def _pixels_hash(pixels: np.ndarray) -> int:
    """The first 8 bytes of the SHA-256 of an image; 0 stands where none was recorded."""
    digest = hashlib.sha256(pixels.tobytes()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


class PixelStoreWriter:
    """Adds images to a pixel store; a context manager.

    Leaving the block normally completes the store. Leaving it by an exception, Ctrl-C included,
    keeps what was added and leaves the store incomplete: the next writer goes on from there.
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
        with disk_errors(self.folder):
            if not self._uncommitted:
                (self.folder / INFO_NAME).unlink(missing_ok=True)
            file = self._open_shard(shard)
            self._sha256.pop(_shard_name(shard), None)
            file.seek(self._end(row))
            file.write(pixels.tobytes())
        place = (placement.scale_x, placement.scale_y, placement.offset_x, placement.offset_y)
        self._rows[image_id] = (shard, row, *place, _pixels_hash(pixels))
        self._uncommitted.append(image_id)
        if len(self._uncommitted) >= _COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """Put everything added so far on the disk, so that a kill cannot lose it."""
        if not self._uncommitted:
            return
        with disk_errors(self.folder):
            self._flush_shard()
            lines = [_journal_line([name, *self._rows[name]]) for name in self._uncommitted]
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
        names = dict.fromkeys(_shard_name(shard) for shard, *_ in self._rows.values())
        known = self._sha256
        return {n: known.get(n) or file_digest(self.folder / n, "sha256") for n in names}

    def _index(self) -> pd.DataFrame:
        columns = [*empty_table("pixel_index").columns, "pixels_hash"]
        rows = [(image_id, *place) for image_id, place in self._rows.items()]
        return pd.DataFrame(rows, columns=columns) if rows else empty_table("pixel_index")

    def _open_shard(self, shard: int) -> BinaryIO:
        if self._file is None or shard != self._shard:
            self._close_shard()
            path = self.folder / _shard_name(shard)
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
        ends = Counter(_shard_name(shard) for shard, *_ in rows.values())
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
    index["pixels_hash"] = index.get("pixels_hash", 0)
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


def _journal_line(row: list[Any]) -> str:
    return json.dumps([*row, zlib.crc32(json.dumps(row).encode())]) + "\n"


def _journal_row(line: bytes) -> list[Any] | None:
    """A row of the journal, or None where a kill or a full disk cut it short, or it has changed."""
    try:
        row: list[Any] = json.loads(line)[:-1]
    except (ValueError, TypeError):
        return None
    return row if _journal_line(row).encode() == line else None


def _shard_header(images: int, size: int) -> bytes:
    """A ``.npy`` header; NumPy pads it so that the first axis can grow in place."""
    header = BytesIO()
    shape = (images, size, size)
    npy_format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


class PixelSource(Protocol):
    """Letterboxed pixels by image id: a data set's pixel store, or loose files."""

    size: int  # side S of the squares, px
    ids: pd.Index  # the images it holds, unique

    def image(self, image_id: str) -> np.ndarray:
        """The letterboxed image, uint8 (S, S)."""

    def placement(self, image_id: str) -> Placement:
        """Where the original lies in the square."""


def require_images(source: PixelSource, image_ids: pd.Index) -> None:
    """Check that a source holds all images that are wanted of it."""
    absent = image_ids.difference(source.ids)
    if len(absent):
        raise InputError(
            f"pixel store: has no image {absent[0]!r} ({len(absent)} of {len(image_ids)} are "
            "missing); prepare the data set again at this size"
        )


_WORTH_A_WORKER = 200  # images: starting a process costs as much as decoding these


def store_folder(dataset_folder: Path, size: int) -> Path:
    """Where a data set keeps its pixels of a size."""
    return dataset_folder / "pixels" / store_spec(size)


class PixelStore:
    """A complete pixel store, read-only; open it with `PixelStore.open`.

    Images are views of memory-mapped shards: nothing is read before it is looked at, and
    worker processes share the pages. A store may be pickled; each process maps it anew.
    """

    def __init__(self, folder: Path, info: dict[str, Any], index: pd.DataFrame) -> None:
        self.folder, self.index = folder, index
        self.size = int(info["size"])  # side of the squares, px
        self.pixels_id = str(info["pixels_id"])  # of the members and their geometry
        self.ids = pd.Index(index["image_id"].sort_values(), name="image_id")
        self.sha256: dict[str, str] = info.get("sha256", {})  # of each shard by its name
        self._maps: dict[int, np.ndarray] = {}

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a complete store."""
        info = read_json(folder / INFO_NAME, INFO_KIND)
        store = cls(folder, info, read_table(folder / INDEX_NAME, "pixel_index"))
        if len(store.index) != info["n_images"]:
            raise InputError(
                f"{folder}: its index has {counted(len(store.index), 'image')}, {INFO_NAME} says "
                f"{info['n_images']}; delete the folder and run cxr prepare again"
            )
        for shard, images in zip(*np.unique(store.index["shard"], return_counts=True), strict=True):
            if store_address(folder) is None or (folder / _shard_name(int(shard))).is_file():
                store._require_shard(int(shard), int(images))
        return store

    def image(self, image_id: str) -> np.ndarray:
        """One image."""
        place = self._row_of(image_id)
        shard, row = self._shards[place]
        pixels = self._shard(int(shard))[row]
        if not self._checked[place]:
            if self._hashes[place] not in (0, _pixels_hash(pixels)):
                path = self.folder / _shard_name(int(shard))
                raise InputError(
                    f"{path}: the pixels of image '{image_id}' are not as they were written; "
                    f"delete {self.folder} and run cxr prepare again"
                )
            self._checked[place] = True
        return pixels

    def placement(self, image_id: str) -> Placement:
        """Where the original lies in its square; `InputError` where there is no such image."""
        return Placement(*self._geometry[self._row_of(image_id)].tolist())

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Row of the index by image: a million such pairs are made in a second, objects are not."""
        return dict(zip(self.index["image_id"].tolist(), range(len(self.index)), strict=True))

    @cached_property
    def _shards(self) -> np.ndarray:
        return self.index[["shard", "row"]].to_numpy()

    @cached_property
    def _hashes(self) -> np.ndarray:
        return np.asarray(self.index.get("pixels_hash", np.zeros(len(self.index), np.int64)))

    @cached_property
    def _checked(self) -> np.ndarray:
        """Which images have been read once, and were as they were written."""
        return np.zeros(len(self.index), dtype=bool)

    @cached_property
    def _geometry(self) -> np.ndarray:
        return self.index[["scale_x", "scale_y", "offset_x", "offset_y"]].to_numpy()

    def _row_of(self, image_id: str) -> int:
        try:
            return self._rows[image_id]
        except KeyError:
            raise InputError(
                f"{self.folder}: holds no image '{image_id}'; run cxr prepare again"
            ) from None

    def _shard(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            name = _shard_name(shard)
            path = fetch_shard(self.folder / name, self.sha256.get(name))
            self._maps[shard] = np.load(path, mmap_mode="r")
            if store_address(self.folder) is not None:  # what made room keeps it while it is mapped
                there = {n for n in self._maps if (self.folder / _shard_name(n)).is_file()}
                self._maps = {n: held for n, held in self._maps.items() if n in there}
        return self._maps[shard]

    def _require_shard(self, shard: int, images: int) -> None:
        try:
            pixels = self._shard(shard)
        except (OSError, ValueError, EOFError) as error:
            reason = f"cannot be read ({str(error).splitlines()[0]})"
        else:
            square = (self.size, self.size)
            held = (pixels.dtype, pixels.shape[1:], pixels.flags.c_contiguous)
            if len(pixels) >= images and held == (np.uint8, square, True):
                return
            reason = f"holds {pixels.dtype} {pixels.shape}, expected uint8 {(images, *square)}"
        path = self.folder / _shard_name(shard)
        raise InputError(f"{path}: {reason}; delete {self.folder} and run cxr prepare again")

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as all of its bytes.
        return {**self.__dict__, "_maps": {}}


def build_pixel_store(
    dataset_folder: Path,
    images: pd.DataFrame,
    source_root: Path,
    size: int,
    *,
    window: str | None = None,
    engine: Engine | None = None,
    progress: Callable[[int], object] | None = None,
    before_wait: Callable[[], object] | None = None,
) -> PixelStore:
    """Make sure that a data set has its pixels at a size; only what is missing is decoded."""
    folder = store_folder(dataset_folder, size)
    no_file = images.loc[images["path"].isna(), "image_id"]
    if len(no_file):
        raise InputError(f"image '{no_file.iloc[0]}': has no file; this data set has no pixels")
    if (folder / INFO_NAME).is_file():
        store = PixelStore.open(folder)
        if images["image_id"].isin(store.ids).all():
            return store
    with folder_lock(folder, before_wait), PixelStoreWriter(folder, size) as writer:
        missing = images[~images["image_id"].isin(list(writer.done))]
        engine = engine or LocalEngine(min(cpu_count(), len(missing) // _WORTH_A_WORKER))
        require_free_space(folder, len(missing) * size * size)
        tasks = (
            DecodeTask(image_id, source_root / path, (size,), window, False, str(sha256))
            for image_id, path, sha256 in missing[["image_id", "path", "file_sha256"]].to_numpy()
        )
        errors = []
        for row in decode_all(tasks, engine=engine, reads=[source_root]):
            if row.error is None:
                writer.add(row.image_id, *row.squares[size])
            else:
                errors.append(row.error)
            if progress is not None:
                progress(1)
        if errors:
            more = f" (and {counted(len(errors) - 1, 'more file')})" if len(errors) > 1 else ""
            advice = "; bring it back, or remove the data set and run cxr prepare again"
            raise InputError(f"{errors[0].removesuffix(advice)}{more}{advice}")
    return PixelStore.open(folder)
