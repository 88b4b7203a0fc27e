"""Reading of small images of a data set, from a pixel store or from the image files."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.pixel_store import PixelStore, stored_sizes

_LEAST_STORE_PX = 128
_TRIED = 3


class _Unreadable(NamedTuple):
    """Reason why the files of a data set cannot be read."""

    lost: bool  # True if the files should exist; False if the paths are hidden on purpose
    text: str  # the reason
    advice: str


class ImageReader:
    """Reader of small images of a data set, for the search for copies and for thumbnails.

    The images come from a pixel store (images resized to squares of one side), whose black borders
    are cut off, or without one from the original image files. `open_reader` makes an object.
    """

    def __init__(self, dataset: DataSet, store: PixelStore | None) -> None:
        self.dataset = dataset
        self.store = store
        self.stored = set(store.ids) if store else set()
        self.sizes = dataset.images[["width", "height"]].astype("float64").to_numpy()
        self.rows = pd.Index(dataset.images["image_id"]) if store else pd.Index([])

    @property
    def source(self) -> str:
        """Size of the resized images that are read, such as "512 px", or "files"."""
        return "files" if self.store is None else f"{self.store.size} px"

    def __call__(self, image_id: str) -> np.ndarray:
        """Read an image by its id, uint8 ``(H, W)``."""
        if self.store is None or image_id not in self.stored:
            return self.dataset.read_original(image_id)
        width, height = self.sizes[self.rows.get_loc(image_id)].tolist()
        placement = self.store.placement(image_id)
        left = round(placement.offset_x)
        top = round(placement.offset_y)
        right = left + max(round(width * placement.scale_x), 1)
        bottom = top + max(round(height * placement.scale_y), 1)
        return np.asarray(self.store.image(image_id)[top:bottom, left:right])


def open_reader(dataset: DataSet) -> tuple[ImageReader | None, _Unreadable | None]:
    """Open the smallest resized images of a data set for reading, or else its image files.

    The reader is None if no image can be read. The second value is the reason why the image files
    cannot be read, or None.
    """
    store = _smallest_store(dataset)
    lacking = _why_unreadable(dataset)
    return (ImageReader(dataset, store) if store or lacking is None else None), lacking


def _why_unreadable(dataset: DataSet) -> _Unreadable | None:
    """Return why the files cannot be read, or None if one of those tried exists."""
    try:
        paths = dataset.image_files["path"].dropna()
    except InputError as error:
        reason = str(error).removeprefix(f"{dataset.folder}: ")
        return _Unreadable(False, f"the images are not available: {reason}", "")
    tried = paths.iloc[np.linspace(0, len(paths) - 1, _TRIED).astype(int)]
    if any((dataset.source_root / name).is_file() for name in tried):
        return None
    text = f"the images are no longer in {dataset.source_root}"
    advice = "put them back, or prepare the set again from where they are now"
    return _Unreadable(True, text, advice)


def _smallest_store(dataset: DataSet) -> PixelStore | None:
    """Return the smallest complete pixel store that is large enough, or None."""
    for size in stored_sizes(dataset.folder):
        if size < _LEAST_STORE_PX:
            continue
        try:
            return dataset.store(size)
        except InputError:
            continue  # damaged; a larger store or the files are read instead
    return None
