"""Images of a data set as plain 8-bit PNG or JPEG files: the pixels that the models see.

Imports no pandas: worker processes start with this module, and start fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.image_files import open_image
from cxr_compare.data_prep.work.local_engine import LocalEngine

SUFFIXES = {"png": ".png", "jpeg": ".jpg"}
"""Suffix of a rendered file by the name of its format."""
_OPTIONS = {".png": (), ".jpg": (cv2.IMWRITE_JPEG_QUALITY, 95)}
_ROWS_A_WORKER = 16  # fewer are done before another process has started


@dataclass(frozen=True)
class RenderTask:
    """An image to render."""

    origin: Path  # the file to decode
    place: Path  # the file to write; its suffix says the format
    window: str | None  # name of the DICOM window; None for the first
    sha256: str  # of the file when it was prepared
    # width and height that the tables state, px; None where they state none
    size: tuple[int, int] | None


def render_all(tasks: Sequence[RenderTask], *, workers: int) -> Iterator[None]:
    """Render images at their original size, so that boxes hold as they are."""
    workers = min(workers, 1 + len(tasks) // _ROWS_A_WORKER)
    for error in LocalEngine(workers).map_rows(_render, tasks, on_crash=_crashed):
        if error is not None:
            raise InputError(error)
        yield


def _render(task: RenderTask) -> str | None:
    """Write one image; returns what went wrong."""
    from cxr_compare.data_prep.images.image import (
        read_image,  # names of label files need no decoder
    )

    try:
        with open_image(task.origin, task.sha256) as path:
            pixels = read_image(path, window=task.window).pixels
        height, width = pixels.shape
        if task.size is not None and task.size != (width, height):
            stated = " x ".join(map(str, task.size))
            return f"{task.origin}: {width} x {height} px, not {stated} as when it was prepared"
        options = _OPTIONS[task.place.suffix]
        encoded = cv2.imencode(task.place.suffix, pixels, options)[1]
        with atomic_path(task.place) as temporary:
            temporary.write_bytes(encoded.tobytes())
    except InputError as error:
        return str(error)
    return None


def _crashed(task: RenderTask) -> str:
    return f"{task.origin}: the decoder crashed or ran out of memory on this file"
