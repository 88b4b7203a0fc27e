"""One decoded DICOM frame into the 8-bit grey picture that is displayed (PS3.3 C.11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from data_prep.decoded import colour_note, grey_from_rgb
from data_prep.voi import grey_table

_BLOCK = 1 << 20  # pixels handled at a time where an index array is needed


def show_colour(values: np.ndarray, header: Dataset, notes: list[str]) -> np.ndarray:
    """Turn a colour frame into 8-bit grey.

    Args:
        values: RGB, unsigned, shape ``(H, W, 3)``; or indices of a palette, ``(H, W)``.
        header: The picture's data set.
        notes: Takes what a reader of the record should know.

    Returns:
        uint8, shape ``(H, W)``.
    """
    depth = int(header.BitsStored)
    if values.ndim == 2:
        values = apply_color_lut(values, header)
        depth = values.dtype.itemsize * 8
    if depth != 8:
        values = np.rint(values * (255 / ((1 << depth) - 1))).astype(np.uint8)
    notes.append(colour_note(values))
    return grey_from_rgb(values)


def show_grey(
    values: np.ndarray, header: Dataset, notes: list[str]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Turn a frame of stored values into 8-bit grey: LUTs, window, inversion, padding black.

    Args:
        values: Stored values, at most 16 bits, shape ``(H, W)``.
        header: The picture's data set.
        notes: Takes what a reader of the record should know.

    Returns:
        uint8, shape ``(H, W)``; what was done, as columns of the decode table.
    """
    low, high = int(values.min()), int(values.max())
    stored = np.arange(low, high + 1)
    padding = _padding(stored, header)
    greys, known, more = grey_table(stored, _counter(values, low, high, padding), header)
    notes.extend(more)
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    # Not twice: a DX picture that is MONOCHROME1 must also say INVERSE (PS3.3 C.8.11.3).
    known["inverted"] = header.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE"
    if known["inverted"]:
        greys = 255 - greys
    if padding.any():
        greys[padding] = 0
        notes.append("padding shown black")
    if "PresentationLUTSequence" in header:
        notes.append("presentation LUT not applied")
    return _replace_by_grey(values, low, greys), known


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Which stored values stand for "outside the picture"; none if that would be all of them."""
    value = header.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(stored.shape, dtype=bool)
    limit = header.get("PixelPaddingRangeLimit")
    ends = sorted((value, limit if isinstance(limit, int) else value))
    padding = (stored >= ends[0]) & (stored <= ends[1])
    return padding & ~padding.all()


def _counter(
    values: np.ndarray, low: int, high: int, padding: np.ndarray
) -> Callable[[], np.ndarray]:
    """A function that counts the pixels of each stored value, padding left out."""

    def count() -> np.ndarray:
        counts = np.zeros(high - low + 1, dtype=np.int64)
        flat = values.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.int64) - low
            counts += np.bincount(block, minlength=counts.size)
        return np.where(padding, 0, counts)

    return count


def _replace_by_grey(values: np.ndarray, low: int, greys: np.ndarray) -> np.ndarray:
    """Replace each stored value by its grey, in blocks: an index array is 8 bytes a pixel."""
    if values.dtype == np.uint8 and np.array_equal(greys, np.arange(low, low + greys.size)):
        return values
    shown = np.empty(values.shape, dtype=np.uint8)
    flat, out = values.reshape(-1), shown.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK].astype(np.int64) - low
        out[start : start + _BLOCK] = greys[block]
    return shown
