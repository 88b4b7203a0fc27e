"""The pixels of a data set at a model's size, made now if they are not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts import console

if TYPE_CHECKING:
    from data_prep.dataset import DataSet
    from data_prep.pixel_store import PixelStore


def open_store(dataset: DataSet, size: int) -> PixelStore:
    """Open the pixel store at a size; decode what it lacks.

    Args:
        dataset: The data set.
        size: Side of the model's square, px.

    Raises:
        InputError: The data set has no pixels, or a file is gone.
    """
    from data_prep.pixel_store import build_pixel_store

    with console.progress(f"Pixels at {size} px", len(dataset.images)) as advance:
        return build_pixel_store(
            dataset.folder, dataset.images, dataset.source_root, size, progress=advance
        )
