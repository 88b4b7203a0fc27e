"""The pixels of a data set as a model reads them, made now if they are not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts import console

if TYPE_CHECKING:
    from configs.settings import DataSettings
    from data_prep.store.dataset import DataSet
    from data_prep.store.pixel_store import PixelStore
    from data_prep.store.preprocess import Treatment


def treatment_of(settings: DataSettings) -> Treatment:
    """The crop and enhancement that a configuration asks for."""
    from data_prep.store.preprocess import Treatment

    return Treatment(crop=settings.crop, enhance=settings.enhance)


def open_store(dataset: DataSet, size: int, treatment: Treatment) -> PixelStore:
    """Open the pixel store of a size and treatment; decode what it lacks.

    Where another training is decoding the same pixels, wait for it: one does the work.

    Args:
        dataset: The data set.
        size: Side of the model's square, px.
        treatment: Crop and enhancement.

    Raises:
        InputError: The data set has no pixels, or a file is gone.
    """
    from data_prep.store.pixel_store import build_pixel_store

    steps = [step for step in (treatment.crop, treatment.enhance) if step != "none"]
    title = ", ".join([f"Pixels at {size} px", *steps])
    with console.progress(title, len(dataset.images)) as advance:
        return build_pixel_store(
            dataset.folder,
            dataset.pictures,
            dataset.source_root,
            size,
            treatment,
            window=dataset.window,
            progress=advance,
            before_wait=lambda: console.say(f"{title}: another cxr decodes them; waiting"),
        )
