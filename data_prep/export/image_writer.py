"""Writing of the images of an export: as 8-bit PNG files, or as links."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet, ImageFile
from cxr_compare.data_prep.images.refused_files import DECODER_CRASHED
from cxr_compare.data_prep.work.map_images import map_images

_ROWS_A_WORKER = 16  # fewer images are finished before another process has started


def write_images(
    dataset: DataSet,
    names: Mapping[str, Path],
    mode: str,
    workers: int,
    advance: Callable[[int], None],
) -> None:
    """Write image files, as decoded ``png`` of 8 bits with the pixels that models see, or ``link``.

    `names` is the file to write by image id, and `advance` is called with 1 after each image. An
    image that is gone, cannot be read, or is not the one that was prepared is refused.
    """
    tasks = []
    for image_id, target in names.items():
        file = dataset.image_file(image_id)
        if not file.path.is_file():
            raise InputError(f"{file.path}: the image is gone; bring it back")
        target.parent.mkdir(parents=True, exist_ok=True)
        if mode == "png":
            tasks.append((file, target))
        else:
            target.symlink_to(file.path.absolute())
            advance(1)
    workers = min(workers, 1 + len(tasks) // _ROWS_A_WORKER)
    for error in map_images(_render, tasks, workers, on_crash=_crashed):
        if error is not None:
            raise InputError(error)
        advance(1)


def _render(task: tuple[ImageFile, Path]) -> str | None:
    """Write one image; return the error message, or None."""
    file, target = task
    try:
        encoded = cv2.imencode(".png", file.read())[1]
    except InputError as error:
        return str(error)
    with atomic_path(target) as temporary:
        temporary.write_bytes(encoded.tobytes())
    return None


def _crashed(task: tuple[ImageFile, Path]) -> str:
    return f"{task[0].path}: {DECODER_CRASHED}"
