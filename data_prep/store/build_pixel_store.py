"""Decoding of images into a data set: facts and squares, or squares of a further size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.disk_space import require_free_space
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.store.decode import DecodedRow, DecodeTask, crashed_row, decode_row
from cxr_compare.data_prep.store.decode_writer import JOURNAL, DecodeWriter
from cxr_compare.data_prep.store.pixel_store import PixelStore, index_file, pixels_file
from cxr_compare.data_prep.work.map_images import Workers, map_images

WORK_FOLDER = ".prepare"
"""Folder in a data set that `cxr prepare` has begun and not completed, with its settings."""
_TOGETHER = 8  # images that a process gets at a time
_IMAGES_PER_WORKER = 200  # starting a process takes as long as decoding these
_REPAIR_ADVICE = "; bring it back, or remove the data set and run cxr prepare again"


def decode_into(
    writer: DecodeWriter,
    tasks: Iterable[DecodeTask],
    *,
    workers: Workers,
    reads: Sequence[Path] = (),
    on_decoded: Callable[[int], object] = lambda n: None,
) -> Iterator[DecodedRow]:
    """Decode images in order, store their facts and squares, and yield the images that failed.

    `reads` are files and folders that every machine must be able to read; `on_decoded` is called
    with 1 after each image.
    """
    rows = map_images(
        decode_row, tasks, workers, on_crash=crashed_row, together=_TOGETHER, reads=reads
    )
    for row in rows:
        if row.error is None:
            writer.add(row)
        else:
            yield row
        on_decoded(1)


def open_complete_store(dataset_folder: Path, size: int, image_ids: pd.Series) -> PixelStore | None:
    """Open the pixel store of a size; None if it does not hold all images of the data set."""
    path = pixels_file(dataset_folder, size)
    if not index_file(path).is_file():
        return None
    store = PixelStore.open(path)
    return store if is_member(image_ids, store.ids).all() else None


def build_pixel_store(
    dataset_folder: Path,
    images: pd.DataFrame,
    source_root: Path,
    size: int,
    *,
    workers: Workers | None = None,
    on_decoded: Callable[[int], object] = lambda n: None,
) -> PixelStore:
    """Decode and resize those images of a data set that are not yet stored at a given size (px).

    The result is the complete pixel store: an array with all images of the data set as squares of
    one size, with black borders. The caller has locked the folder. The images, one row for each,
    have ``image_id``, ``path`` (relative to `source_root`), ``file_sha256``, ``width`` and
    ``height``; one without a file, or that cannot be decoded, is refused. None for `workers` uses
    processes of this machine; `on_decoded` is called with 1 after each image.
    """
    without_file = images.loc[images["path"].isna(), "image_id"]
    if len(without_file):
        raise InputError(
            f"image '{without_file.iloc[0]}': has no file; this data set has no pixels"
        )
    store = open_complete_store(dataset_folder, size, images["image_id"])
    if store is not None:
        return store
    with DecodeWriter(dataset_folder, [size]) as writer:
        missing = images[~is_member(images["image_id"], list(writer.rows[size]))]
        require_free_space(dataset_folder / "pixels", len(missing) * size * size)
        if workers is None:
            workers = min(cpu_count(), len(missing) // _IMAGES_PER_WORKER)
        tasks = (
            DecodeTask(image_id, source_root / path, sizes=(size,), sha256=str(sha256))
            for image_id, path, sha256 in missing[["image_id", "path", "file_sha256"]].to_numpy()
        )
        failed = decode_into(
            writer, tasks, workers=workers, reads=[source_root], on_decoded=on_decoded
        )
        errors = [str(row.error) for row in failed]
        if errors:
            message = errors[0].removesuffix(_REPAIR_ADVICE)
            if len(errors) > 1:
                message += f" (and {counted(len(errors) - 1, 'more file')})"
            raise InputError(message + _REPAIR_ADVICE)
        writer.finish(images)
    if not (dataset_folder / WORK_FOLDER).exists():  # images that are being added are in it, too
        (dataset_folder / JOURNAL).unlink(missing_ok=True)
    return PixelStore.open(pixels_file(dataset_folder, size))
