"""Decoding of image files for a data set, one task at a time.

This module imports no pandas, so that worker processes start fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.border_greys import border_greys, mean_grey
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.refused_files import DECODER_CRASHED
from cxr_compare.data_prep.store.preprocess import letterbox
from cxr_compare.data_prep.work.image_files import require_image_checksum

if TYPE_CHECKING:
    from cxr_compare.data_prep.images.decoded_image import DecodedImage


@dataclass(frozen=True)
class DecodeTask:
    """A request to decode one image file and to resize it to squares of given sizes.

    Attributes:
        sizes: Sides of the resized squares that are made, px; empty if only facts are needed.
        sha256: SHA-256 digest that the file of a prepared data set must have; its facts are known,
            and only squares are made. None accepts any content and measures it.
    """

    image_id: str
    path: Path
    sizes: tuple[int, ...] = ()
    sha256: str | None = None


@dataclass(frozen=True)
class DecodedRow:
    """Result of a `DecodeTask`: facts and square images, or the reason why decoding failed.

    Attributes:
        error: Reason why decoding failed, in one line; None if the file was decoded.
        facts: By name: columns of the decode table except ``image_id``, and ``file_sha256``,
            ``height`` and ``width`` of the images table; empty if they were known before.
        squares: By side in px, the resized square, uint8 (side, side).
    """

    image_id: str
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    squares: dict[int, np.ndarray] = field(default_factory=dict)


def crashed_row(task: DecodeTask) -> DecodedRow:
    """Return the result for a file on which every process that decodes it ends."""
    return DecodedRow(task.image_id, error=f"{task.path}: {DECODER_CRASHED}")


def decode_row(task: DecodeTask) -> DecodedRow:
    """Decode one image file, measure it, and resize it to the requested sizes."""
    try:
        require_image_checksum(task.path, task.sha256)
        return _decode(task)
    except InputError as error:
        return DecodedRow(task.image_id, error=str(error))


def _decode(task: DecodeTask) -> DecodedRow:
    image = read_image(task.path)
    facts = {} if task.sha256 is not None else _facts(image, task.path)
    squares = {size: letterbox(image.pixels, size)[0] for size in task.sizes}
    return DecodedRow(task.image_id, facts=facts, squares=squares)


def _facts(image: DecodedImage, path: Path) -> dict[str, Any]:
    """Return what is known of an image from its file alone."""
    height, width = image.pixels.shape
    status = path.stat()
    return {
        **image.record,
        "height": height,
        "width": width,
        "file_bytes": status.st_size,
        "file_mtime_ns": status.st_mtime_ns,
        "file_sha256": file_digest(path, "sha256"),
        "pixel_sha256": image.pixel_sha256,
        "perceptual_hash": image.perceptual_hash,
        "mean_grey": mean_grey(image.pixels),
        "border_greys": border_greys(image.pixels),
        "header_spacing_row_mm": image.spacing_row_mm,
        "header_spacing_col_mm": image.spacing_col_mm,
        **{f"header_{key}": image.header.get(key) for key in ("view", "sex", "age_years")},
    }
