"""Rendering of images as 8-bit PNG files, with the pixels that the models see.

This module does not import pandas, so that worker processes start fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.image_files import require_image_checksum
from cxr_compare.data_prep.work.map_images import map_images

_ROWS_A_WORKER = 16  # fewer images are finished before another process has started


@dataclass(frozen=True)
class RenderTask:
    """A request to decode an image file and to write it as an 8-bit PNG file.

    Attributes:
        origin: File to decode.
        target: File to write.
        sha256: SHA-256 digest that the file must have, from when the data set was prepared; None
            accepts any.
        size: Width and height that the image must have, px; None accepts any.
    """

    origin: Path
    target: Path
    sha256: str | None
    size: tuple[int, int] | None


def render_all(tasks: Sequence[RenderTask], *, workers: int) -> Iterator[None]:
    """Decode image files and write them as PNG in their original size.

    Args:
        tasks: Requests, one for each image.
        workers: Largest number of worker processes.

    Yields:
        None after each image.

    Raises:
        InputError: An image cannot be read, or its checksum or size has changed.
    """
    workers = min(workers, 1 + len(tasks) // _ROWS_A_WORKER)
    for error in map_images(_render, tasks, workers, on_crash=_crashed):
        if error is not None:
            raise InputError(error)
        yield


def _render(task: RenderTask) -> str | None:
    """Write one image; return the error message, or None."""
    from cxr_compare.data_prep.images.image import (
        read_image,  # names of label files need no decoder
    )

    try:
        require_image_checksum(task.origin, task.sha256)
        pixels = read_image(task.origin).pixels
        height, width = pixels.shape
        if task.size is not None and task.size != (width, height):
            stated = " x ".join(map(str, task.size))
            return f"{task.origin}: {width} x {height} px, not {stated} as when it was prepared"
        encoded = cv2.imencode(".png", pixels)[1]
        with atomic_path(task.target) as temporary:
            temporary.write_bytes(encoded.tobytes())
    except InputError as error:
        return str(error)
    return None


def _crashed(task: RenderTask) -> str:
    return f"{task.origin}: the decoder crashed or ran out of memory on this file"
