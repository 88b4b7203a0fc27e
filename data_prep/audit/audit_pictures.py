"""Pictures for the audit: read from wherever they are at hand, shown small."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd

from data_prep.audit.problem import Problem, Severity
from data_prep.contracts.errors import InputError
from data_prep.store.dataset import DataSet
from data_prep.store.pixel_store import PixelStore

THUMBNAIL_PX = 166
ILLEGIBLE_PX = 72
"""Longest side of a picture that may show a name; lines of text cannot be read at this size."""
_LEAST_STORE_PX = 128
_TRIED = 3
_QUALITY = 72

Read = Callable[[str], np.ndarray]


def open_pictures(dataset: DataSet) -> tuple[Read | None, Problem | None]:
    """Find out where the pictures can be read: from a pixel store, else from their files.

    Args:
        dataset: The data set.

    Returns:
        A function that gives a picture, uint8 ``(H, W)``, by its id, and raises `InputError`
        where it cannot; None if there are no pictures. Beside it what there is to say about that.
    """
    n_paths = int(dataset.images["path"].notna().sum())
    if not n_paths:
        text = "the set has no pictures, so tables only were checked"
        return None, Problem("pictures_none", "info", text, len(dataset.images))
    store = _smallest_store(dataset)
    lacking = _why_unreadable(dataset)
    if lacking is None:
        return _Pictures(dataset, store), None
    severity, text, advice = lacking
    if store is None:
        text += "; tables only were checked"
    problem = Problem("pictures_gone", severity, text, n_paths, (), advice)
    return (_Pictures(dataset, store) if store else None), problem


def _why_unreadable(dataset: DataSet) -> tuple[Severity, str, str] | None:
    """Why the files cannot be read, and what to do; None if those tried are there."""
    try:
        paths = dataset.pictures["path"].dropna()
    except InputError as error:
        where, advice = f"{dataset.folder}: ", ""
        return "info", f"the pictures are not at hand: {str(error).removeprefix(where)}", advice
    tried = paths.iloc[np.linspace(0, len(paths) - 1, _TRIED).astype(int)]
    if any((dataset.source_root / name).is_file() for name in tried):
        return None
    advice = "put them back, or prepare the set again from where they are now"
    return "warning", f"the pictures are no longer in {dataset.source_root}", advice


class _Pictures:
    """Reads a picture from the store, without its black border, else from its file."""

    def __init__(self, dataset: DataSet, store: PixelStore | None) -> None:
        self.dataset, self.store = dataset, store
        self.stored = set(store.ids) if store else set()
        sizes = dataset.images[["width", "height"]].astype("float64").to_numpy()
        self.rows = pd.Index(dataset.images["image_id"]) if store else pd.Index([])
        self.sizes = sizes

    def __call__(self, image_id: str) -> np.ndarray:
        if self.store is None or image_id not in self.stored:
            return self.dataset.read_original(image_id)
        width, height = self.sizes[self.rows.get_loc(image_id)].tolist()
        place = self.store.placement(image_id)
        left, top = round(place.offset_x), round(place.offset_y)
        right = left + max(round(width * place.scale_x), 1)
        bottom = top + max(round(height * place.scale_y), 1)
        return np.asarray(self.store.image(image_id)[top:bottom, left:right])


def _smallest_store(dataset: DataSet) -> PixelStore | None:
    """The smallest plain pixel store that still shows what there is to see."""
    found = {}
    for folder in (dataset.folder / "pixels").glob("letterbox-*"):
        size = re.fullmatch(r"letterbox-(\d+)", folder.name)
        if size and int(size[1]) >= _LEAST_STORE_PX:
            found[int(size[1])] = folder
    for size_px in sorted(found):
        try:
            return PixelStore.open(found[size_px])
        except InputError:
            continue  # begun and not complete; the files have the pictures too
    return None


def thumbnail(pixels: np.ndarray, longest: int = THUMBNAIL_PX) -> str:
    """A small copy of a picture for a page.

    Args:
        pixels: uint8, shape ``(H, W)``.
        longest: Longest side of the copy, px.

    Returns:
        A JPEG as a ``data:`` address.

    Example:
        >>> thumbnail(np.zeros((400, 200), np.uint8))[:23]
        'data:image/jpeg;base64,'
    """
    height, width = pixels.shape
    scale = min(longest / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
