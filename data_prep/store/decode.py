"""Decoding of image files for a data set, one task at a time.

This module imports no pandas, so that worker processes start fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.border_greys import border_greys, mean_grey
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.refused_files import DECODER_CRASHED
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.preprocess import letterbox
from cxr_compare.data_prep.work.image_files import require_image_checksum
from cxr_compare.data_prep.work.map_images import Workers, map_images

_TOGETHER = 8  # images that a process gets at a time


@dataclass(frozen=True)
class DecodeTask:
    """A request to decode one image file and to resize it to squares of given sizes.

    Attributes:
        image_id: Id of the image.
        path: Path of the file.
        sizes: Sides of the resized squares that are made, px; empty if only facts are needed.
        measure: True to compute the file's SHA-256 and measure its grey values, too.
        sha256: SHA-256 digest that the file must have; None accepts any content.

    Example:
        >>> DecodeTask("a", Path("a.dcm"), sizes=(512,)).measure
        True
    """

    image_id: str
    path: Path
    sizes: tuple[int, ...] = ()
    measure: bool = True
    sha256: str | None = None


@dataclass(frozen=True)
class DecodedRow:
    """Result of a `DecodeTask`: facts and square images, or the reason why decoding failed.

    Attributes:
        image_id: Id of the image.
        error: Reason why decoding failed, in one line; None if the file was decoded.
        facts: By name: columns of the decode table (how the file was decoded) except ``image_id``,
            and columns of the images table: ``height`` and ``width`` of the original in px,
            ``spacing_row_mm``, ``spacing_col_mm``, and ``view``, ``sex`` and ``age_years`` as the
            header states them. If the image was measured, also its digests and measured facts.
        squares: By side in px, a pair: the resized square, uint8 (side, side), and the position of
            the original image in it.

    Example:
        >>> DecodedRow("a", error="a.dcm: is empty (0 bytes)").squares
        {}
    """

    image_id: str
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    squares: dict[int, tuple[np.ndarray, Placement]] = field(default_factory=dict)


def decode_all(
    tasks: Iterable[DecodeTask], *, workers: Workers, reads: Sequence[Path] = ()
) -> Iterator[DecodedRow]:
    """Decode and resize image files on several processes or machines.

    Args:
        tasks: Requests, one for each image file.
        workers: Number of processes, or the Ray cluster, that decode; see `map_images`.
        reads: Folders that contain the files, which every machine must be able to read.

    Yields:
        One result for each task, in the order of the tasks. A file on which the decoding process
        crashes gives a result with an error.
    """
    return map_images(
        decode_row,
        tasks,
        workers,
        on_crash=lambda task: DecodedRow(task.image_id, error=f"{task.path}: {DECODER_CRASHED}"),
        together=_TOGETHER,
        reads=reads,
    )


def decode_row(task: DecodeTask) -> DecodedRow:
    """Decode one image file, measure it, and resize it to the requested sizes.

    Args:
        task: The request: the file, and what to compute from it.

    Returns:
        Facts and resized squares, or an error of one line if the file cannot be decoded.
    """
    try:
        require_image_checksum(task.path, task.sha256)
        return _decode(task)
    except InputError as error:
        return DecodedRow(task.image_id, error=str(error))


def _decode(task: DecodeTask) -> DecodedRow:
    image = read_image(task.path)
    height, width = image.pixels.shape
    facts = {
        "height": height,
        "width": width,
        "spacing_row_mm": image.spacing_row_mm,
        "spacing_col_mm": image.spacing_col_mm,
        **{key: image.header.get(key) for key in ("view", "sex", "age_years")},
        **image.record,
    }
    if task.measure:
        status = task.path.stat()
        facts["file_bytes"] = status.st_size
        facts["file_mtime_ns"] = status.st_mtime_ns
        facts["file_sha256"] = file_digest(task.path, "sha256")
        facts["pixel_sha256"] = image.pixel_sha256
        facts["perceptual_hash"] = image.perceptual_hash
        facts["mean_grey"] = mean_grey(image.pixels)
        facts["border_greys"] = border_greys(image.pixels)
    squares = {size: letterbox(image.pixels, size) for size in task.sizes}
    return DecodedRow(task.image_id, facts=facts, squares=squares)
