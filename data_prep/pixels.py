"""Decoding of images into squares of one size, and reading of these squares.

Each size has one array, ``pixels/SIZE.npy``, with a row for each image from the start. What is
known of an image is a line of a journal, written after its squares: a kill at any moment costs a
few images, and a torn line is cut off.
"""

from __future__ import annotations

import json
import os
import platform
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.lib import format as npy_format

from cxr_compare.data_prep.base.errors import InputError, counted, first_line
from cxr_compare.data_prep.base.files import (
    disk_errors,
    file_digest,
    make_folder,
    require_free_space,
    whole_lines,
)
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.tables import (
    HEADER_FACTS,
    KINDS,
    read_table,
    validated,
    write_table,
)
from cxr_compare.data_prep.images.border_greys import border_greys, mean_grey
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.refused_files import DECODER_CRASHED
from cxr_compare.data_prep.parallel import Engine, map_images
from cxr_compare.data_prep.preprocess import Placement, letterbox, require_side

JOURNAL = "decoded.jsonl"
"""Journal of a data set that is not complete."""
_COMMIT_IMAGES = 32  # images between two commits: a kill loses a few seconds of work at most
_TOGETHER = 8  # images that a process gets at a time
_FACTS = {
    **KINDS["decode"].columns,
    **{name: KINDS["images"].columns[name] for name in ("file_sha256", "height", "width")},
    **{f"header_{name}": KINDS["images"].columns[name] for name in HEADER_FACTS},
}


@dataclass(frozen=True)
class ImageFile:
    """An image file of a data set, with the digest by which an exchanged file is refused."""

    path: Path
    sha256: str | None = None

    def require_same(self) -> None:
        """Refuse a file that is not the one that the data set was made of."""
        if self.sha256 and self.path.is_file() and file_digest(self.path) != self.sha256:
            raise InputError(
                f"{self.path}: is not the file that the data set was made of (its SHA-256 differs);"
                " bring it back, or prepare the data set again"
            )

    def read(self) -> np.ndarray:
        """Decode the file into the grey levels that a viewer displays, uint8 ``(H, W)``."""
        self.require_same()
        return read_image(self.path).pixels


class DecodeTask(NamedTuple):
    """A request to decode one image file and to resize it to squares of given sizes."""

    image_id: str
    file: ImageFile
    sizes: Sequence[int]


class Decoded(NamedTuple):
    """Facts and squares of a decoded image, or the reason why it cannot be decoded."""

    image_id: str
    facts: dict[str, Any]
    squares: dict[int, np.ndarray]
    error: str = ""


def decode_one(task: DecodeTask) -> Decoded:
    """Decode one image file, measure it if it is not of a complete data set, and resize it."""
    path = task.file.path
    if not path.parent.is_dir():  # a disk that is gone, or that this machine does not see
        raise InputError(f"{path.parent}: {platform.node()} has no such folder")
    try:
        task.file.require_same()
        image = read_image(path)
        facts = {}
        if not task.file.sha256:
            _require_contrast(image, path)
            facts = _facts(image, path)
    except InputError as error:
        return Decoded(task.image_id, {}, {}, str(error).removeprefix(f"{path}: "))
    squares = {size: letterbox(image.pixels, size)[0] for size in task.sizes}
    return Decoded(task.image_id, facts, squares)


def _require_contrast(image: DecodedImage, path: Path) -> None:
    """Refuse an image that shows one grey value alone, as after a failed conversion."""
    grey = int(image.pixels.min())
    if grey == int(image.pixels.max()):
        raise InputError(f"{path}: shows nothing: all pixels have the same grey value ({grey})")


def _facts(image: DecodedImage, path: Path) -> dict[str, Any]:
    height, width = image.pixels.shape
    return {
        **image.record,
        "height": height,
        "width": width,
        "file_sha256": file_digest(path),
        "pixel_sha256": image.pixel_sha256,
        "perceptual_hash": image.perceptual_hash,
        "mean_grey": mean_grey(image.pixels),
        "border_greys": border_greys(image.pixels),
        **{f"header_{key}": image.header.get(key) for key in HEADER_FACTS},
    }


def _crashed(task: DecodeTask) -> Decoded:
    return Decoded(task.image_id, {}, {}, DECODER_CRASHED)


class SquareWriter:
    """A context manager that stores facts and squares of the images of a data set.

    Args:
        folder: Folder of the data set.
        journal: Journal of this work; its whole lines count, and it is gone on with.
        ids: Ids of all images, in the order of the rows of the arrays.
        sizes: Sides of the squares, px.

    Attributes:
        done: Line of each image that is stored, by id.
    """

    def __init__(
        self, folder: Path, journal: Path, ids: Iterable[str], sizes: Sequence[int]
    ) -> None:
        self.sizes = sizes
        self.done: dict[str, dict[str, Any]] = {}
        self._folder = folder
        self._rows = {image_id: row for row, image_id in enumerate(ids)}
        self._waiting: list[dict[str, Any]] = []
        self._heads = {size: _array_head(len(self._rows), size) for size in sizes}
        make_folder(folder / "pixels")
        with disk_errors(folder):
            self._journal = journal.open("a+b")
            if self._journal.tell() == 0:
                self._journal.write(b"{}\n")
            self._files = {size: self._open_array(size) for size in sizes}
            lines = whole_lines(self._journal)
        self.done |= {line["image_id"]: line for line in lines if "image_id" in line}

    def _open_array(self, size: int) -> BinaryIO:
        """Open the array of one size; without the whole array, no line of the journal counts."""
        path = pixels_file(self._folder, size)
        n_bytes = len(self._heads[size]) + len(self._rows) * size**2
        if not path.is_file() or path.stat().st_size != n_bytes:
            self._journal.seek(0)
            self._journal.truncate(len(self._journal.readline()))
            path.write_bytes(self._heads[size])
            os.truncate(path, n_bytes)
        return path.open("r+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._commit()
        finally:
            for file in (self._journal, *self._files.values()):
                file.close()

    def decode(
        self,
        images: pd.DataFrame,
        root: Path,
        workers: int,
        on_decoded: Callable[[int], object],
        engine: Engine = "local",
    ) -> dict[str, str]:
        """Decode and store the images that lack; return why others cannot be decoded, by id.

        `images` have ``image_id``, ``path`` and, if it is known, ``file_sha256``.
        """
        files = images.reindex(columns=["image_id", "path", "file_sha256"]).astype(object)
        todo = files.where(files.notna(), None)[~is_member(files["image_id"], self.done)]
        tasks = (
            DecodeTask(image_id, ImageFile(root / path, digest), self.sizes)
            for image_id, path, digest in todo.itertuples(index=False)
        )
        errors = {}
        on_decoded(len(self.done))
        for image in map_images(
            decode_one,
            tasks,
            workers,
            on_crash=_crashed,
            together=_TOGETHER,
            engine=engine,
        ):
            if image.error:
                errors[image.image_id] = image.error
            else:
                self.add(image)
            on_decoded(1)
        return errors

    def add(self, image: Decoded) -> None:
        """Store the squares and facts of a decoded image."""
        facts = {name: value for name, value in image.facts.items() if not pd.isna(value)}
        line = {"image_id": image.image_id, **facts}
        row = self._rows[image.image_id]
        with disk_errors(self._folder):
            for size, square in image.squares.items():
                line[f"crc32_{size}"] = zlib.crc32(square.data)
                self._files[size].seek(len(self._heads[size]) + row * size**2)
                self._files[size].write(square.data)
            self._waiting.append(line)
            if len(self._waiting) == _COMMIT_IMAGES:
                self._commit()

    def _commit(self) -> None:
        """Bring squares, then lines, to the disk, so that they survive a kill of the process."""
        with disk_errors(self._folder):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
            for line in self._waiting:
                text = json.dumps(line, default=lambda value: value.item())
                self._journal.write(f"{text}\n".encode())
            self._journal.flush()
        self.done |= {line["image_id"]: line for line in self._waiting}
        self._waiting = []

    def facts(self) -> pd.DataFrame:
        """Return the facts of all stored images, sorted by id."""
        self._commit()
        rows = pd.DataFrame([self.done[i] for i in self._rows if i in self.done])
        types = {name: column.dtype for name, column in _FACTS.items()}
        return rows.reindex(columns=list(types)).astype(types)

    def finish(self, images: pd.DataFrame) -> dict[str, str]:
        """Write the index of each array for the images that are kept."""
        self._commit()
        files = {}
        ids = images["image_id"]
        for size in self.sizes:
            checksums = [self.done[i][f"crc32_{size}"] for i in ids]
            index = images[["image_id", "width", "height"]].assign(
                row=ids.map(self._rows), crc32=checksums
            )
            path = _index_file(pixels_file(self._folder, size))
            digest = write_table(index.sort_values("image_id"), path, "pixel_index")
            files[index_name(size)] = digest
        return files


def _array_head(images: int, size: int) -> bytes:
    """Return the first bytes of a NumPy file of that many squares."""
    head = BytesIO()
    content = {"descr": "|u1", "fortran_order": False, "shape": (images, size, size)}
    npy_format.write_array_header_1_0(head, content)
    return head.getvalue()


def add_size(
    folder: Path,
    images: pd.DataFrame,
    root: Path,
    size: int,
    workers: int,
    on_decoded: Callable[[int], object],
) -> dict[str, str]:
    """Store the images of a complete data set as squares of a further size.

    Return the digest of the index by its name. The journal is left, for the record names the index
    before it goes.
    """
    if images["path"].isna().any():
        raise InputError(f"{folder}: the data set has no image files, so it has no pixels")
    require_free_space(folder, len(images) * size**2)
    images = images.sort_values("image_id")
    with SquareWriter(folder, size_journal(folder, size), images["image_id"], [size]) as writer:
        failed = writer.decode(images, root, workers, on_decoded)
        if failed:
            image_id, error = next(iter(failed.items()))
            in_all = counted(len(failed), "image")
            raise InputError(f"image '{image_id}': {error} ({in_all} in all)")
        return writer.finish(images)


def size_journal(folder: Path, size: int) -> Path:
    """Return the journal of a further size of a complete data set."""
    return pixels_file(folder, size).with_suffix(".jsonl")


def pixels_file(folder: Path, size: int) -> Path:
    """Return the file of all images of a data set as squares of one side, px."""
    return folder / "pixels" / f"{require_side(size)}.npy"


def _index_file(path: Path) -> Path:
    """Return the index of an array of squares: the row, size and CRC32 of each image."""
    return path.with_suffix(".parquet")


def index_name(size: int) -> str:
    """Return the name by which the record of a data set names the index of its squares."""
    return f"pixels/{size}.parquet"


class PixelStore:
    """All images of a data set, resized to squares of one side, in one file."""

    def __init__(self, path: Path, index: pd.DataFrame) -> None:
        self.path = path
        self.ids = pd.Index(index["image_id"], name="image_id")
        self.size = int(path.stem)
        self._index = {name: index[name].to_numpy() for name in ("row", "width", "height", "crc32")}
        try:
            array: Any = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise self._damage(f"cannot be read ({first_line(error)})") from None
        is_square = array.dtype == np.uint8 and array.shape[1:] == (self.size, self.size)
        if not is_square or (self._index["row"] >= len(array)).any():
            raise self._damage(f"holds {array.dtype} {array.shape}")
        self._start = array.offset

    @classmethod
    def open(cls, path: Path, files: Mapping[str, str]) -> Self:
        """Open a complete pixel store by its array, see `pixels_file`.

        `files` are the SHA-256 digests in the record of the data set.
        """
        file = _index_file(path)
        index = read_table(file, "pixel_index", files, path.parent.parent)
        return cls(path, validated(index, "pixel_index", str(file)))

    def image(self, image_id: str) -> np.ndarray:
        """Return the square of an image, uint8, shape ``(S, S)``."""
        position = self._position(image_id)
        start = self._start + int(self._index["row"][position]) * self.size**2
        pixels = np.fromfile(self.path, np.uint8, self.size**2, offset=start)
        if zlib.crc32(pixels.data) != self._index["crc32"][position]:
            raise self._damage(f"the pixels of image '{image_id}' are not as they were written")
        return pixels.reshape(self.size, self.size)

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in its resized square."""
        position = self._position(image_id)
        width, height = (int(self._index[side][position]) for side in ("width", "height"))
        return Placement.in_square(width, height, self.size)

    def image_without_border(self, image_id: str) -> np.ndarray:
        """Return the part of a square that the image fills."""
        position, placement = self._position(image_id), self.placement(image_id)
        left, top = int(placement.offset_x), int(placement.offset_y)
        right = left + round(self._index["width"][position] * placement.scale_x)
        bottom = top + round(self._index["height"][position] * placement.scale_y)
        return self.image(image_id)[top:bottom, left:right]

    def _position(self, image_id: str) -> int:
        if image_id not in self.ids:
            raise InputError(f"{self.path}: holds no image '{image_id}'; run cxr prepare again")
        return int(self.ids.get_loc(image_id))

    def _damage(self, fault: str) -> InputError:
        both = f"{self.path} and {_index_file(self.path).name}"
        return InputError(f"{self.path}: {fault}; delete {both}, and run cxr prepare again")
