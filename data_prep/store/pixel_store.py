"""The pixel store of a data set, which holds its images as squares of one size.

The squares are one memory-mapped array, ``pixels/SIZE.npy``, and its index is the table
``pixels/SIZE.parquet``. A store is a cache: it can be made again from the image files. The module
`data_prep.store.decode_writer` writes it.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.data_prep.contracts.ids import find_one
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.preprocess import require_size

_FEW_LOOKUPS = 20  # number of images from which on a dictionary of all ids is worth its time


class PixelSource(Protocol):
    """Interface from which models read the resized square images of a data set by image id.

    The pixel store of a data set (`PixelStore`) and images in memory implement this interface.

    Attributes:
        size: Side S of the resized square images, px.
    """

    size: int

    @property
    def ids(self) -> pd.Index:
        """Ids of the images, unique."""

    def image(self, image_id: str) -> np.ndarray:
        """Return the resized square of an image, uint8, shape ``(S, S)``."""

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in its resized square."""


def pixels_file(dataset_folder: Path, size: int) -> Path:
    """Return the file of all images of a data set as squares of one side, px (its pixel store).

    The file need not exist. A size that no store may have is refused.

    Example:
        >>> pixels_file(Path("out/data"), 512).as_posix()
        'out/data/pixels/512.npy'
    """
    require_size(size)
    return dataset_folder / "pixels" / f"{size}.npy"


def index_file(path: Path) -> Path:
    """Return the index of an array of squares: the row, size and CRC32 of each image."""
    return path.with_suffix(".parquet")


def stored_sizes(dataset_folder: Path) -> list[int]:
    """Return the sizes of the complete pixel stores of a data set, px, the smallest first."""
    names = [path.stem for path in (dataset_folder / "pixels").glob("*.parquet")]
    return sorted(int(name) for name in names if name.isdecimal())


def remove_stores(dataset_folder: Path, *, except_sizes: Collection[int]) -> None:
    """Remove the pixel stores of a data set, except those of some sizes."""
    for size in set(stored_sizes(dataset_folder)) - set(except_sizes):
        path = pixels_file(dataset_folder, size)
        path.unlink(missing_ok=True)
        index_file(path).unlink()


class PixelStore:
    """All images of a data set, resized to squares of one side in one memory-mapped array.

    `PixelStore.open` opens a store. The pixels of an image are read when they are used, and worker
    processes share the memory. A store may be pickled; each process then maps the file again. The
    index, sorted by image, has the row of each image in the array, the size of its original and the
    CRC32 of its square.
    """

    def __init__(self, path: Path, index: pd.DataFrame) -> None:
        self.path = path
        self.index = index
        self.ids = pd.Index(index["image_id"], name="image_id")
        self._n_lookups = 0
        self.size = self._pixels.shape[1]  # side of the square images, px
        self._require_rows()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a complete pixel store by its array, see `pixels_file`; refuse a damaged one."""
        return cls(path, read_table(index_file(path), "pixel_index"))

    def image(self, image_id: str) -> np.ndarray:
        """Return the resized square of an image, uint8, shape ``(S, S)``; it must not be changed.

        An unknown image and damaged pixels are an `InputError`.
        """
        position = self._position_of(image_id)
        pixels: np.ndarray = self._pixels[self._rows[position]]
        if not self._is_checked[position]:
            if self._checksums[position] != zlib.crc32(pixels.data):
                raise self._damage(f"the pixels of image '{image_id}' are not as they were written")
            self._is_checked[position] = True
        return pixels

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in its resized square.

        An unknown image is an `InputError`.
        """
        width, height = self._sides[self._position_of(image_id)].tolist()
        return Placement.in_square(width, height, self.size)

    @cached_property
    def _pixels(self) -> np.ndarray:
        try:
            pixels = np.asarray(np.load(self.path, mmap_mode="r"))
        except (OSError, ValueError, EOFError) as error:
            raise self._damage(f"cannot be read ({first_line(error)})") from None
        is_square = pixels.ndim == 3 and pixels.shape[1] == pixels.shape[2]
        if not is_square or pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
            raise self._damage(f"holds {pixels.dtype} {pixels.shape}, expected squares of uint8")
        return pixels

    def _require_rows(self) -> None:
        if len(self._rows) and self._rows.max() >= len(self._pixels):
            raise self._damage(f"holds {len(self._pixels):,} images, fewer than its index names")
        if self.path.stem != str(self.size):
            raise self._damage(f"holds squares of {self.size} px")

    def _damage(self, fault: str) -> InputError:
        both = f"{self.path} and {index_file(self.path).name}"
        return InputError(f"{self.path}: {fault}; delete {both}, and run cxr prepare again")

    @cached_property
    def _position_by_id(self) -> dict[str, int]:
        # Dictionary of numbers: for a million images objects would take much longer to make.
        return dict(zip(self.index["image_id"].tolist(), range(len(self.index)), strict=True))

    @cached_property
    def _rows(self) -> np.ndarray:
        return self.index["row"].to_numpy()

    @cached_property
    def _sides(self) -> np.ndarray:
        return self.index[["width", "height"]].to_numpy()

    @cached_property
    def _checksums(self) -> np.ndarray:
        return self.index["crc32"].to_numpy()

    @cached_property
    def _is_checked(self) -> np.ndarray:
        """Flag of each image: True once it has been read and its checksum was right."""
        return np.zeros(len(self.index), dtype=bool)

    def _position_of(self, image_id: str) -> int:
        self._n_lookups += 1
        if self._n_lookups > _FEW_LOOKUPS:
            position = self._position_by_id.get(image_id, -1)
        else:
            position = find_one(image_id, self.index["image_id"])
        if position < 0:
            raise InputError(f"{self.path}: holds no image '{image_id}'; run cxr prepare again")
        return position

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled with all of its bytes.
        return {key: value for key, value in self.__dict__.items() if key != "_pixels"}
