"""The pixel store of a data set, which holds its images as squares of one size.

The pixels are in memory-mapped files. A store is a cache: it can be made again from the image
files. The module `data_prep.store.pixel_store_writer` writes it.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import find_one
from cxr_compare.data_prep.contracts.records import Digests, Record, Whole
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.preprocess import store_spec

INDEX_NAME = "index.parquet"
"""Table of a store: the shard, row, position and checksum of each image."""
INFO_NAME = "pixels.json"
"""File that marks a store complete."""


_FEW_LOOKUPS = 20  # number of images from which on a dictionary of all ids is worth its time


class PixelSource(Protocol):
    """Interface from which models read the resized square images of a data set by image id.

    The pixel store of a data set (`PixelStore`), images in memory, and precomputed features
    implement this interface.

    Attributes:
        size: Side S of the resized square images, px.
    """

    size: int

    @property
    def ids(self) -> pd.Index:
        """Ids of the images, unique."""

    def image(self, image_id: str) -> np.ndarray:
        """Return the resized square of an image, uint8, shape ``(S, S)``.

        Args:
            image_id: Id of the image.
        """

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in its resized square.

        Args:
            image_id: Id of the image.
        """


def require_images(source: PixelSource, image_ids: pd.Index) -> None:
    """Check that a source of resized images contains all images that are needed.

    Args:
        source: Pixel store of a data set, images in memory, or features of images.
        image_ids: Ids of the images that are needed.

    Raises:
        InputError: The source lacks an image.
    """
    absent = image_ids.difference(source.ids)
    if len(absent):
        raise InputError(
            f"pixel store: has no image {absent[0]!r} ({len(absent)} of {len(image_ids)} are "
            "missing); prepare the data set again at this size"
        )


def store_folder(dataset_folder: Path, size: int) -> Path:
    """Return the folder of a data set's resized images of one side (its pixel store).

    Args:
        dataset_folder: Folder of the data set.
        size: Side of the resized square images, px.

    Returns:
        Path of the folder, which need not exist.

    Example:
        >>> store_folder(Path("out/data"), 512).as_posix()
        'out/data/pixels/letterbox-512'
    """
    return dataset_folder / "pixels" / store_spec(size)


def shard_name(shard: int) -> str:
    """Return the file name of a shard, which is a file with the resized pixels of many images.

    Args:
        shard: Number of the shard, from 0.

    Example:
        >>> shard_name(3)
        'shard-00003.npy'
    """
    return f"shard-{shard:05d}.npy"


def pixels_checksum(pixels: np.ndarray) -> int:
    """Return the first 8 bytes of the SHA-256 of an image's pixels, as a signed integer.

    Args:
        pixels: Grey values, uint8, of any shape.
    """
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


class PixelsInfo(Record, kind="pixels"):
    """Content of ``pixels.json``, which marks a folder of resized images as complete.

    Attributes:
        spec: Name of the folder.
        size: Side of the resized square images, px.
        n_images: Number of images.
        pixels_id: Digest of the ids of the images and of the positions of the originals in the
            squares.
        sha256: SHA-256 digest of each file of pixels, by file name.
        files: SHA-256 digest of the index, by file name.
    """

    spec: str
    size: Whole
    n_images: Whole
    pixels_id: str
    sha256: Digests
    files: Digests


class PixelStore:
    """All images of a data set, resized to squares of one side and stored in memory-mapped files.

    `PixelStore.open` opens a store. The pixels of an image are read when they are used, and worker
    processes share the memory. A store may be pickled; each process then maps the files again.

    Args:
        folder: Folder of the store.
        info: Content of the file ``pixels.json`` in the folder.
        index: Table with the file, row, position and checksum of each image.
    """

    def __init__(self, folder: Path, info: PixelsInfo, index: pd.DataFrame) -> None:
        self.folder = folder
        self.index = index
        self.size = info.size  # side of the square images, px
        self.pixels_id = info.pixels_id  # id of the images and their positions
        self.ids = pd.Index(index["image_id"].sort_values(), name="image_id")
        self.sha256 = info.sha256  # of each shard by its name
        self._shards_in_memory: dict[int, np.ndarray] = {}
        self._n_lookups = 0

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a complete pixel store.

        Args:
            folder: Folder of the store; see `store_folder`.

        Raises:
            InputError: The store is incomplete or damaged.
        """
        info = PixelsInfo.read(folder / INFO_NAME)
        index = read_table(folder / INDEX_NAME, "pixel_index", files=info.files)
        store = cls(folder, info, index)
        if len(store.index) != info.n_images:
            raise InputError(
                f"{folder}: its index has {counted(len(store.index), 'image')}, {INFO_NAME} says "
                f"{info.n_images}; delete the folder and run cxr prepare again"
            )
        shards, image_counts = np.unique(store.index["shard"], return_counts=True)
        for shard, images in zip(shards.tolist(), image_counts.tolist(), strict=True):
            store._require_shard(shard, images)
        return store

    def image(self, image_id: str) -> np.ndarray:
        """Return the resized square of an image, uint8, shape ``(S, S)``; it must not be changed.

        Args:
            image_id: Id of the image.

        Raises:
            InputError: There is no such image, or its pixels are damaged.
        """
        position = self._position_of(image_id)
        shard, row = self._shard_and_row[position].tolist()
        pixels = self._shard(shard)[row]
        if not self._is_checked[position]:
            if self._checksums[position] != pixels_checksum(pixels):
                raise InputError(
                    f"{self.folder / shard_name(shard)}: the pixels of image '{image_id}' are not "
                    f"as they were written; delete {self.folder} and run cxr prepare again"
                )
            self._is_checked[position] = True
        return pixels

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in its resized square.

        Args:
            image_id: Id of the image.

        Raises:
            InputError: There is no such image.
        """
        return Placement(*self._placements[self._position_of(image_id)].tolist())

    @cached_property
    def _position_by_id(self) -> dict[str, int]:
        # Dictionary of numbers: for a million images objects would take much longer to make.
        return dict(zip(self.index["image_id"].tolist(), range(len(self.index)), strict=True))

    @cached_property
    def _shard_and_row(self) -> np.ndarray:
        return self.index[["shard", "row"]].to_numpy()

    @cached_property
    def _checksums(self) -> np.ndarray:
        return self.index["pixels_hash"].to_numpy()

    @cached_property
    def _is_checked(self) -> np.ndarray:
        """Flag of each image: True once it has been read and its checksum was right."""
        return np.zeros(len(self.index), dtype=bool)

    @cached_property
    def _placements(self) -> np.ndarray:
        return self.index[["scale_x", "scale_y", "offset_x", "offset_y"]].to_numpy()

    def _position_of(self, image_id: str) -> int:
        self._n_lookups += 1
        if self._n_lookups > _FEW_LOOKUPS:
            position = self._position_by_id.get(image_id, -1)
        else:
            position = find_one(image_id, self.index["image_id"])
        if position < 0:
            raise InputError(f"{self.folder}: holds no image '{image_id}'; run cxr prepare again")
        return position

    def _shard(self, shard: int) -> np.ndarray:
        if shard not in self._shards_in_memory:
            path = self.folder / shard_name(shard)
            self._shards_in_memory[shard] = np.load(path, mmap_mode="r")
        return self._shards_in_memory[shard]

    def _require_shard(self, shard: int, images: int) -> None:
        square = (self.size, self.size)
        try:
            pixels = self._shard(shard)
        except (OSError, ValueError, EOFError) as error:
            reason = f"cannot be read ({str(error).splitlines()[0]})"
        else:
            if (
                len(pixels) >= images
                and pixels.dtype == np.uint8
                and pixels.shape[1:] == square
                and pixels.flags.c_contiguous
            ):
                return
            reason = f"holds {pixels.dtype} {pixels.shape}, expected uint8 {(images, *square)}"
        path = self.folder / shard_name(shard)
        raise InputError(f"{path}: {reason}; delete {self.folder} and run cxr prepare again")

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled with all of its bytes.
        return {**self.__dict__, "_shards_in_memory": {}}
