"""The pixel store: every image of a data set as a model reads it, memory-mapped; a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import folder_lock, require_free_space
from data_prep.contracts.json_files import read_json
from data_prep.contracts.tables import read_table
from data_prep.contracts.words import counted
from data_prep.store.decode import DecodedRow, DecodeTask, decode_all
from data_prep.store.pixel_writer import (
    INDEX_NAME,
    INFO_KIND,
    INFO_NAME,
    PixelStoreWriter,
    shard_name,
)
from data_prep.store.preprocess import Placement, store_spec
from data_prep.work.addresses import address_of
from data_prep.work.engine import Engine
from data_prep.work.local_copies import fetch_shard
from data_prep.work.pool import LocalEngine, cpu_count


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

    Attributes:
        folder: Its folder.
        size: Side of the squares, in px.
        index: ``image_id, shard, row, scale_x, scale_y, offset_x, offset_y``.
        ids: Image ids, sorted, unique.
        pixels_id: Identifies the members and their geometry, 16 hexadecimal digits.
        sha256: Of each shard by its name.
    """

    def __init__(self, folder: Path, info: dict[str, Any], index: pd.DataFrame) -> None:
        self.folder, self.index = folder, index
        self.size, self.pixels_id = int(info["size"]), str(info["pixels_id"])
        self.ids = pd.Index(index["image_id"].sort_values(), name="image_id")
        self.sha256: dict[str, str] = info["sha256"]
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
            if address_of(folder) is None or (folder / shard_name(int(shard))).is_file():
                store._require_shard(int(shard), int(images))
        return store

    def image(self, image_id: str) -> np.ndarray:
        """One image."""
        shard, row = self._shards[self._row_of(image_id)]
        return self._shard(int(shard))[row]

    def placement(self, image_id: str) -> Placement:
        """Where the original lies in its square.

        Raises:
            InputError: The store has no such image.
        """
        return Placement(*self._geometry[self._row_of(image_id)].tolist())

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Row of the index by image: a million such pairs are made in a second, objects are not."""
        return dict(zip(self.index["image_id"].tolist(), range(len(self.index)), strict=True))

    @cached_property
    def _shards(self) -> np.ndarray:
        return self.index[["shard", "row"]].to_numpy()

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
            name = shard_name(shard)
            path = fetch_shard(self.folder / name, self.sha256.get(name))
            self._maps[shard] = np.load(path, mmap_mode="r")
            if address_of(self.folder) is not None:  # what made room keeps it while it is mapped
                there = {n for n in self._maps if (self.folder / shard_name(n)).is_file()}
                self._maps = {n: held for n, held in self._maps.items() if n in there}
        return self._maps[shard]

    def _require_shard(self, shard: int, images: int) -> None:
        try:
            shape = self._shard(shard).shape
        except (OSError, ValueError, EOFError) as error:
            reason = f"cannot be read ({str(error).splitlines()[0]})"
        else:
            if shape[0] >= images and shape[1:] == (self.size, self.size):
                return
            reason = f"has shape {shape}, expected ({images}, {self.size}, {self.size})"
        path = self.folder / shard_name(shard)
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
    workers: int | None = None,
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
        if workers is None:
            workers = min(cpu_count(), len(missing) // _WORTH_A_WORKER)
        require_free_space(folder, len(missing) * size * size)
        tasks = _tasks(missing, source_root, size, window)
        decoded = decode_all(tasks, engine=engine or LocalEngine(workers), reads=[source_root])
        _add_all(writer, decoded, size, progress)
    return PixelStore.open(folder)


def _tasks(
    images: pd.DataFrame, source_root: Path, size: int, window: str | None
) -> Iterator[DecodeTask]:
    for image_id, path in zip(images["image_id"], images["path"], strict=True):
        yield DecodeTask(image_id, source_root / path, (size,), window=window, measure=False)


def _add_all(
    writer: PixelStoreWriter,
    rows: Iterator[DecodedRow],
    size: int,
    progress: Callable[[int], object] | None,
) -> None:
    errors = []
    for row in rows:
        if row.error is None:
            writer.add(row.image_id, *row.squares[size])
        else:
            errors.append(row.error)
        if progress is not None:
            progress(1)
    if errors:
        more = f" (and {counted(len(errors) - 1, 'more file')})" if len(errors) > 1 else ""
        raise InputError(f"{errors[0]}{more}; restore the files or run cxr prepare again")
