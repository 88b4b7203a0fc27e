"""One source file into everything that a data set keeps of it: a pure function of one row.

Imports no pandas: worker processes start with this module, and start fast.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.contracts.errors import InputError
from data_prep.contracts.workers import map_rows
from data_prep.images.image import read_image
from data_prep.images.image_facts import image_facts
from data_prep.store.preprocess import Placement, letterbox

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DecodeTask:
    """A file to decode.

    Attributes:
        image_id: Name of the image.
        path: Its file.
        sizes: Sides of the squares wanted, in px; may be empty.
        window: Name of the DICOM window wanted; None for the first.
        measure: Whether to hash the file and to measure the image; pixels alone need neither.
    """

    image_id: str
    path: Path
    sizes: tuple[int, ...] = ()
    window: str | None = None
    measure: bool = True


@dataclass(frozen=True)
class DecodedRow:
    """What came of a `DecodeTask`: an image's facts and squares, or the reason for none.

    Attributes:
        image_id: Name of the image.
        error: None, or one line that says why there is nothing else.
        record: Columns of the decode table except ``image_id``.
        height: Rows of the original, in px.
        width: Columns of the original, in px.
        spacing_row_mm: As the header states it, in mm.
        spacing_col_mm: Likewise.
        header: ``view``, ``sex``, ``age_years``, ``modality``; each may be missing or None.
        file_sha256: Of the file's bytes, 64 hexadecimal digits; empty where not measured.
        squares: Per size, uint8 ``(size, size)`` and the image's place in it.
    """

    image_id: str
    error: str | None = None
    record: dict[str, Any] = field(default_factory=dict)
    height: int = 0
    width: int = 0
    spacing_row_mm: float | None = None
    spacing_col_mm: float | None = None
    header: dict[str, Any] = field(default_factory=dict)
    file_sha256: str = ""
    squares: dict[int, tuple[np.ndarray, Placement]] = field(default_factory=dict)


def decode_and_letterbox(task: DecodeTask) -> DecodedRow:
    """Decode one file and bring it to the wanted sizes."""
    try:
        image = read_image(task.path, window=task.window)
    except InputError as error:
        return DecodedRow(task.image_id, error=str(error))
    height, width = image.pixels.shape
    return DecodedRow(
        task.image_id,
        record={**image.record, **(_facts(task.path, image.pixels) if task.measure else {})},
        height=height,
        width=width,
        spacing_row_mm=image.spacing_row_mm,
        spacing_col_mm=image.spacing_col_mm,
        header=image.header,
        file_sha256=_sha256(task.path) if task.measure else "",
        squares={size: letterbox(image.pixels, size) for size in task.sizes},
    )


def _facts(path: Path, pixels: np.ndarray) -> dict[str, Any]:
    state = path.stat()
    file = {"file_bytes": state.st_size, "file_mtime_ns": state.st_mtime_ns}
    return {**file, **image_facts(pixels)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decode_all(tasks: Iterable[DecodeTask], *, workers: int) -> Iterator[DecodedRow]:
    """Decode files in worker processes.

    Args:
        tasks: Read lazily.
        workers: Processes; 0 and 1 work in this one.

    Yields:
        One row per task, in their order. A file that ends its worker process gives a row with
        an ``error``.
    """
    return map_rows(decode_and_letterbox, tasks, workers=workers, lost=_lost)


def _lost(task: DecodeTask) -> DecodedRow:
    reason = "the decoder crashed or ran out of memory on this file"
    return DecodedRow(task.image_id, error=f"{task.path}: {reason}")


@dataclass
class LoosePixels:
    """A stretch of decoded files; reads like a pixel store.

    Attributes:
        size: Side S of the squares, px.
        ids: The images that were decoded.
        images: uint8 (S, S) by image id.
        placements: Where each original lies in its square.
        sizes: ``image_id, width, height`` of the originals, px.
        failed: ``image_id, status, reason`` of the files that could not be decoded.
    """

    size: int
    ids: pd.Index
    images: dict[str, np.ndarray]
    placements: dict[str, Placement]
    sizes: pd.DataFrame
    failed: pd.DataFrame

    def image(self, image_id: str) -> np.ndarray:
        """The letterboxed image, uint8 (S, S)."""
        return self.images[image_id]

    def placement(self, image_id: str) -> Placement:
        """Where the original lies in the square."""
        return self.placements[image_id]


def list_images(sources: Sequence[Path]) -> dict[str, Path]:
    """Name the files to predict: files as given, folders with all that lies in them.

    Args:
        sources: Files and folders.

    Returns:
        Path by image id: the file's name, or its path below the folder. Hidden files are skipped.

    Raises:
        InputError: A source does not exist, a folder is empty, or two files get one id.
    """
    found: dict[str, Path] = {}
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder")
        paths = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        root = source if source.is_dir() else source.parent
        paths = [p for p in paths if not p.name.startswith(".")]
        if not paths:
            raise InputError(f"{source}: holds no files; give a folder with images")
        for path in paths:
            image_id = path.relative_to(root).as_posix()
            if image_id in found:
                raise InputError(
                    f"{path}: has the same name as {found[image_id]}; predict the folders apart"
                )
            found[image_id] = path
    return found


def decode_loose(files: dict[str, Path], size: int, *, chunk: int = 256) -> Iterator[LoosePixels]:
    """Decode files and bring them to a size, a stretch at a time, so that memory stays bounded.

    Args:
        files: Path by image id.
        size: Side of the model's square, px.
        chunk: Files in one stretch.

    Yields:
        One stretch of files; those that cannot be decoded are in ``failed`` with the reason.
    """
    import pandas as pd  # the decoding workers start without it

    ids = list(files)
    for start in range(0, len(ids), chunk):
        images, placements, sizes, failed = {}, {}, [], []
        for image_id in ids[start : start + chunk]:
            try:
                pixels = read_image(files[image_id]).pixels
            except InputError as error:
                failed.append((image_id, "failed", str(error)))
                continue
            sizes.append((image_id, pixels.shape[1], pixels.shape[0]))
            images[image_id], placements[image_id] = letterbox(pixels, size)
        yield LoosePixels(
            size,
            pd.Index(list(images), name="image_id", dtype="str"),
            images,
            placements,
            pd.DataFrame(sizes, columns=["image_id", "width", "height"]),
            pd.DataFrame(failed, columns=["image_id", "status", "reason"]),
        )
