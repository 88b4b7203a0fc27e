"""Building of a data set's pixel store from its image files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.disk_space import require_free_space
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.locks import folder_lock, remove_leftovers
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.store.decode import DecodeTask, decode_all
from cxr_compare.data_prep.store.pixel_store import INFO_NAME, PixelStore, store_folder
from cxr_compare.data_prep.store.pixel_store_writer import PixelStoreWriter
from cxr_compare.data_prep.work.map_images import Workers

_IMAGES_PER_WORKER = 200  # starting a process takes as long as decoding these
_REPAIR_ADVICE = "; bring it back, or remove the data set and run cxr prepare again"


def build_pixel_store(
    dataset_folder: Path,
    images: pd.DataFrame,
    source_root: Path,
    size: int,
    *,
    workers: Workers | None = None,
    on_decoded: Callable[[int], object] | None = None,
    before_wait: Callable[[], object] | None = None,
) -> PixelStore:
    """Decode and resize those images of a data set that are not yet stored at a given size.

    The result is the pixel store: files with all images of the data set as squares of one size,
    with black borders.

    Args:
        dataset_folder: Folder of the data set.
        images: Table with ``image_id``, ``path`` (relative to `source_root`) and ``file_sha256``,
            one row for each image of the data set.
        source_root: Folder of the image files.
        size: Side of the square images, px.
        workers: Number of processes, or the Ray cluster, that decode; None uses processes of this
            machine.
        on_decoded: Function that is called with 1 after each image.
        before_wait: Function without arguments that is called once if another process is building
            this store; the call then waits for that process. None raises an error instead of
            waiting.

    Returns:
        The complete pixel store.

    Raises:
        InputError: An image has no file or cannot be decoded, or the disk is full.
    """
    folder = store_folder(dataset_folder, size)
    without_file = images.loc[images["path"].isna(), "image_id"]
    if len(without_file):
        raise InputError(
            f"image '{without_file.iloc[0]}': has no file; this data set has no pixels"
        )
    if (folder / INFO_NAME).is_file():
        store = PixelStore.open(folder)
        if images["image_id"].isin(store.ids).all():
            remove_leftovers(folder)  # of a process that was killed when the store was complete
            return store
    with folder_lock(folder, before_wait), PixelStoreWriter(folder, size) as writer:
        missing = images[~images["image_id"].isin(list(writer.done))]
        require_free_space(folder, len(missing) * size * size)
        if workers is None:
            workers = min(cpu_count(), len(missing) // _IMAGES_PER_WORKER)
        tasks = (
            DecodeTask(
                image_id,
                source_root / path,
                sizes=(size,),
                measure=False,
                sha256=str(sha256),
            )
            for image_id, path, sha256 in missing[["image_id", "path", "file_sha256"]].to_numpy()
        )
        errors = []
        for row in decode_all(tasks, workers=workers, reads=[source_root]):
            if row.error is None:
                pixels, placement = row.squares[size]
                writer.add(row.image_id, pixels, placement)
            else:
                errors.append(row.error)
            if on_decoded is not None:
                on_decoded(1)
        if errors:
            message = errors[0].removesuffix(_REPAIR_ADVICE)
            if len(errors) > 1:
                message += f" (and {counted(len(errors) - 1, 'more file')})"
            raise InputError(message + _REPAIR_ADVICE)
    return PixelStore.open(folder)
