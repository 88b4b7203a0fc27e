"""Decoding of images into squares of one size, and reading of these squares.

Each size has one array, ``pixels/SIZE.npy``, with a row for each image from the start. What is
known of an image is a line of ``decoded.jsonl``, written after its squares: a kill at any moment
costs a few images, and a torn line is cut off.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
from numpy.lib import format as npy_format

from cxr_compare.data_prep.base.errors import InputError, counted, first_line
from cxr_compare.data_prep.base.files import (
    disk_errors,
    file_digest,
    make_folder,
    require_free_space,
)
from cxr_compare.data_prep.base.ids import TEXT
from cxr_compare.data_prep.base.tables import KINDS, read_table, write_table
from cxr_compare.data_prep.images.border_greys import border_greys, mean_grey
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.refused_files import DECODER_CRASHED
from cxr_compare.data_prep.parallel import Engine, map_images
from cxr_compare.data_prep.preprocess import Placement, letterbox, require_size

JOURNAL = "decoded.jsonl"
_COMMIT_IMAGES = 32  # images between two commits: a kill loses a few seconds of work at most
_TOGETHER = 8  # images that a process gets at a time
_FACTS = {
    **KINDS["decode"].columns,
    **{name: KINDS["images"].columns[name] for name in ("file_sha256", "height", "width")},
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


@dataclass(frozen=True)
class DecodeTask:
    """A request to decode one image file and to resize it to squares of given sizes."""

    image_id: str
    file: ImageFile
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class DecodedRow:
    """Facts and squares of a decoded image, or the reason why decoding failed."""

    image_id: str
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    squares: dict[int, np.ndarray] = field(default_factory=dict)


def decode_one(task: DecodeTask) -> DecodedRow:
    """Decode one image file, measure it, and resize it to the requested sizes."""
    path = task.file.path
    try:
        task.file.require_same()
        image = read_image(path)
        status = path.stat()
        digest = task.file.sha256 or file_digest(path)
    except InputError as error:
        return DecodedRow(task.image_id, error=str(error).removeprefix(f"{path}: "))
    height, width = image.pixels.shape
    facts = {
        **image.record,
        "height": height,
        "width": width,
        "file_bytes": status.st_size,
        "file_mtime_ns": status.st_mtime_ns,
        "file_sha256": digest,
        "pixel_sha256": image.pixel_sha256,
        "perceptual_hash": image.perceptual_hash,
        "mean_grey": mean_grey(image.pixels),
        "border_greys": border_greys(image.pixels),
        "header_spacing_row_mm": image.spacing_row_mm,
        "header_spacing_col_mm": image.spacing_col_mm,
        **{f"header_{key}": image.header.get(key) for key in ("view", "sex", "age_years")},
    }
    squares = {size: letterbox(image.pixels, size)[0] for size in task.sizes}
    return DecodedRow(task.image_id, facts=facts, squares=squares)


def _crashed(task: DecodeTask) -> DecodedRow:
    return DecodedRow(task.image_id, error=DECODER_CRASHED)


class SquareWriter:
    """A context manager that stores facts and squares of the images of a data set.

    Args:
        folder: Folder of the data set.
        key: Digest of the request; earlier work with another one does not count.
        ids: Ids of all images, in the order of the rows of the arrays.
        sizes: Sides of the squares, px.

    Attributes:
        done: Line of each image that is stored, by id.
    """

    def __init__(self, folder: Path, key: str, ids: Iterable[str], sizes: Sequence[int]) -> None:
        self.rows = {image_id: row for row, image_id in enumerate(ids)}
        self.done: dict[str, dict[str, Any]] = {}
        self._folder = make_folder(folder)
        self._paths = {size: pixels_file(folder, size) for size in sizes}
        self._headers = {size: _header(len(self.rows), size) for size in sizes}
        self._waiting: list[str] = []
        with disk_errors(folder):
            valid_bytes = self._read_journal(key)
            self._journal = (folder / JOURNAL).open("r+b" if valid_bytes else "wb")
            self._journal.truncate(valid_bytes)
            self._journal.seek(valid_bytes)
            if not valid_bytes:
                self._journal.write(f"{json.dumps({'key': key})}\n".encode())
            self._files = {size: self._open_array(size) for size in sizes}

    def _read_journal(self, key: str) -> int:
        """Read the whole lines of earlier work with the same key, and return their bytes."""
        journal = self._folder / JOURNAL
        whole = all(
            p.is_file() and p.stat().st_size == self._n_bytes(s) for s, p in self._paths.items()
        )
        valid_bytes = 0
        for line in journal.read_bytes().splitlines(keepends=True) if journal.is_file() else ():
            try:
                content = json.loads(line)
            except ValueError:
                break
            is_first = valid_bytes == 0
            if not line.endswith(b"\n") or (is_first and (content.get("key") != key or not whole)):
                break
            valid_bytes += len(line)
            if not is_first:
                self.done[content["image_id"]] = content
        return valid_bytes

    def _n_bytes(self, size: int) -> int:
        return len(self._headers[size]) + len(self.rows) * size * size

    def _open_array(self, size: int) -> Any:
        path = self._paths[size]
        make_folder(path.parent)
        file = path.open("r+b" if self.done and path.is_file() else "w+b")
        file.write(self._headers[size])
        file.truncate(self._n_bytes(size))
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            for file in (self._journal, *self._files.values()):
                file.close()

    def add(self, image: DecodedRow) -> None:
        """Store the squares and facts of a decoded image."""
        line: dict[str, Any] = {"image_id": image.image_id}
        facts = image.facts.items()
        line |= {name: value for name, value in facts if value is not None and value == value}
        for size, square in image.squares.items():
            start = len(self._headers[size]) + self.rows[image.image_id] * size * size
            with disk_errors(self._folder):
                self._files[size].seek(start)
                self._files[size].write(np.ascontiguousarray(square).data)
            line[f"crc32_{size}"] = zlib.crc32(np.ascontiguousarray(square).data)
        self.done[image.image_id] = line
        self._waiting.append(json.dumps(line, default=lambda value: value.item()) + "\n")
        if len(self._waiting) >= _COMMIT_IMAGES:
            self.commit()

    def commit(self) -> None:
        """Bring squares, then lines, to the disk, so that they survive a kill of the process."""
        with disk_errors(self._folder):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
            self._journal.write("".join(self._waiting).encode())
            self._journal.flush()
        self._waiting = []

    def facts(self) -> pd.DataFrame:
        """Return the facts of all stored images, sorted by id."""
        rows = pd.DataFrame([self.done[i] for i in self.rows if i in self.done])
        types = {name: column.dtype for name, column in _FACTS.items()}
        return rows.reindex(columns=list(types)).astype(types)

    def finish(self, images: pd.DataFrame) -> None:
        """Write the index of each array for the images that are kept."""
        self.commit()
        ids = images["image_id"].tolist()
        for size, path in self._paths.items():
            index = images[["image_id", "width", "height"]].assign(
                row=[self.rows[i] for i in ids], crc32=[self.done[i][f"crc32_{size}"] for i in ids]
            )
            write_table(index.sort_values("image_id"), index_file(path), "pixel_index")


def _header(images: int, size: int) -> bytes:
    header = BytesIO()
    content = {"descr": "|u1", "fortran_order": False, "shape": (images, size, size)}
    npy_format.write_array_header_1_0(header, content)
    return header.getvalue()


def decode_all(
    writer: SquareWriter,
    tasks: Iterable[DecodeTask],
    workers: int,
    on_decoded: Callable[[int], object] = lambda n: None,
    engine: Engine = "local",
) -> Iterator[DecodedRow]:
    """Decode images in order, store them, and yield those that failed."""
    rows = map_images(
        decode_one,
        tasks,
        workers,
        on_crash=_crashed,
        together=_TOGETHER,
        engine=engine,
    )
    for row in rows:
        if row.error is None:
            writer.add(row)
        else:
            yield row
        on_decoded(1)


def add_size(
    folder: Path,
    images: pd.DataFrame,
    source_root: Path,
    size: int,
    workers: int = 1,
    on_decoded: Callable[[int], object] = lambda n: None,
) -> PixelStore:
    """Store the images of a complete data set as squares of a further size.

    `images` have ``image_id, path, file_sha256, width, height``.
    """
    if images["path"].isna().any():
        raise InputError(f"{folder}: the data set has no image files, so it has no pixels")
    require_free_space(folder, len(images) * size * size)
    ids = images["image_id"].sort_values().tolist()
    work = make_folder(folder / f".pixels-{size}")
    with SquareWriter(work, f"size {size}", ids, [size]) as writer:
        columns = images[["image_id", "path", "file_sha256"]].itertuples(index=False, name=None)
        tasks = (
            DecodeTask(image_id, ImageFile(source_root / path, sha256), (size,))
            for image_id, path, sha256 in columns
            if image_id not in writer.done
        )
        on_decoded(len(writer.done))
        failed = list(decode_all(writer, tasks, workers, on_decoded))
        if failed:
            more = f" (and {counted(len(failed) - 1, 'more file')})" if len(failed) > 1 else ""
            raise InputError(f"image {failed[0].image_id!r}: {failed[0].error}{more}")
        writer.finish(images)
    path = pixels_file(folder, size)
    make_folder(path.parent)
    for made in (pixels_file(work, size), index_file(pixels_file(work, size))):  # the index last
        made.replace(path.with_suffix(made.suffix))
    (work / JOURNAL).unlink()
    (work / "pixels").rmdir()
    work.rmdir()
    return PixelStore.open(path)


class PixelSource(Protocol):
    """Interface from which models read the resized square images of a data set by image id."""

    size: int

    @property
    def ids(self) -> pd.Index:
        """Ids of the images, unique."""

    def image(self, image_id: str) -> np.ndarray:
        """Return the resized square of an image, uint8, shape ``(S, S)``."""

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in its resized square."""


def require_images(source: PixelSource, image_ids: pd.Index) -> None:
    """Refuse a source of resized images that lacks one of the images that are needed."""
    absent = image_ids.difference(source.ids)
    if len(absent):
        raise InputError(
            f"pixel store: has no image {absent[0]!r} ({len(absent)} of {len(image_ids)} are "
            "missing); prepare the data set again at this size"
        )


def pixels_file(folder: Path, size: int) -> Path:
    """Return the file of all images of a data set as squares of one side, px."""
    return folder / "pixels" / f"{require_size(size)}.npy"


def index_file(path: Path) -> Path:
    """Return the index of an array of squares: the row, size and CRC32 of each image."""
    return path.with_suffix(".parquet")


def stored_sizes(folder: Path) -> list[int]:
    """Return the sizes of the complete pixel stores of a data set, px, the smallest first."""
    return sorted(int(p.stem) for p in folder.glob("pixels/*.parquet") if p.stem.isdecimal())


class PixelStore:
    """All images of a data set, resized to squares of one side in one memory-mapped array."""

    def __init__(self, path: Path, index: pd.DataFrame) -> None:
        self.path = path
        self.index = index
        self.ids = pd.Index(index["image_id"], name="image_id")
        self.size = int(path.stem)
        columns = index[["row", "width", "height", "crc32"]].itertuples(index=False, name=None)
        self._entries = dict(zip(index["image_id"], columns, strict=True))
        self._checked: set[str] = set()
        if len(index) and index["row"].max() >= len(self._pixels):
            raise self._damage("holds fewer images than its index names")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a complete pixel store by its array, see `pixels_file`."""
        return cls(path, read_table(index_file(path), "pixel_index"))

    def image(self, image_id: str) -> np.ndarray:
        """Return the square of an image, uint8, shape ``(S, S)``; it must not be changed."""
        row, _, _, checksum = self._entry(image_id)
        pixels: np.ndarray = self._pixels[row]
        if image_id not in self._checked:
            if zlib.crc32(pixels.data) != checksum:
                raise self._damage(f"the pixels of image '{image_id}' are not as they were written")
            self._checked.add(image_id)
        return pixels

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in its resized square."""
        _, width, height, _ = self._entry(image_id)
        return Placement.in_square(width, height, self.size)

    def _entry(self, image_id: str) -> tuple[int, int, int, int]:
        if image_id not in self._entries:
            raise InputError(f"{self.path}: holds no image '{image_id}'; run cxr prepare again")
        return self._entries[image_id]

    @cached_property
    def _pixels(self) -> np.ndarray:
        try:
            pixels = np.asarray(np.load(self.path, mmap_mode="r"))
        except (OSError, ValueError, EOFError) as error:
            raise self._damage(f"cannot be read ({first_line(error)})") from None
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (self.size, self.size):
            raise self._damage(f"holds {pixels.dtype} {pixels.shape}")
        return pixels

    def _damage(self, fault: str) -> InputError:
        both = f"{self.path} and {index_file(self.path).name}"
        return InputError(f"{self.path}: {fault}; delete {both}, and run cxr prepare again")

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled with all of its bytes.
        return {key: value for key, value in self.__dict__.items() if key != "_pixels"}


class LoosePixels:
    """Images resized to squares of one side, in memory, for images without a data set."""

    def __init__(self, originals: Mapping[str, np.ndarray], size: int) -> None:
        self.size = size
        self.ids = pd.Index(list(originals), name="image_id", dtype=TEXT)
        self._originals = originals
        self._squares = {name: letterbox(pixels, size) for name, pixels in originals.items()}

    @property
    def sizes(self) -> pd.DataFrame:
        """Table with columns ``image_id, width, height`` of the original images, px."""
        rows = [(name, *pixels.shape[::-1]) for name, pixels in self._originals.items()]
        return pd.DataFrame(rows, columns=["image_id", "width", "height"])

    def resized(self, size: int) -> LoosePixels:
        """Return the same images, resized from the originals to squares of another side, px."""
        return self if size == self.size else LoosePixels(self._originals, size)

    def image(self, image_id: str) -> np.ndarray:
        """Return the resized square of an image, uint8, shape ``(S, S)``."""
        return self._squares[image_id][0]

    def placement(self, image_id: str) -> Placement:
        """Return the position of the original image in its resized square."""
        return self._squares[image_id][1]
