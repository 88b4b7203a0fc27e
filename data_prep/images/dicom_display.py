"""One decoded DICOM frame into the 8-bit grey picture that is displayed (PS3.3 C.11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from data_prep.images.decoded_image import colour_note, grey_from_rgb
from data_prep.images.voi import grey_table

_BLOCK = 1 << 20  # pixels handled at a time where an index array is needed
_STUDIO_RANGE = (16, 235)  # black and white of the luma in YBR_PARTIAL


def show_colour(
    values: np.ndarray, photometric: str, header: Dataset, notes: list[str]
) -> np.ndarray:
    """Turn a colour frame into 8-bit grey.

    Args:
        values: Colour, unsigned, shape ``(H, W, 3)``; or indices of a palette, ``(H, W)``.
        photometric: What the values are: RGB, PALETTE COLOR, or YBR that no decoder turned.
        header: The picture's data set.
        notes: Takes what a reader of the record should know.

    Returns:
        uint8, shape ``(H, W)``.

    Raises:
        ValueError: The values are of a colour space that is neither.
    """
    depth = int(header.BitsStored)
    if photometric == "PALETTE COLOR":
        values = apply_color_lut(values, header)[..., :3]
        depth = 8 if values.max() < 1 << 8 else 16  # 8-bit entries may be kept in 16
    elif photometric.startswith("YBR"):
        notes.append("luma of YBR taken")
        luma = _to_8_bits(values[..., 0], depth)
        if "PARTIAL" not in photometric:
            return luma
        black, white = _STUDIO_RANGE
        greys = np.rint((np.arange(256) - black) * (255 / (white - black)))
        return np.clip(greys, 0, 255).astype(np.uint8)[luma]
    elif photometric != "RGB":
        raise ValueError(f"a colour picture cannot be {photometric}")
    rgb = _to_8_bits(values, depth)
    notes.append(colour_note(rgb))
    return grey_from_rgb(rgb)


def _to_8_bits(values: np.ndarray, depth: int) -> np.ndarray:
    if depth == 8:
        return np.ascontiguousarray(values, dtype=np.uint8)
    return np.rint(values * (255 / ((1 << depth) - 1))).astype(np.uint8)


def show_grey(
    values: np.ndarray, header: Dataset, notes: list[str], window: str | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Turn a frame of stored values into 8-bit grey: LUTs, window, inversion, padding black.

    Args:
        values: Stored values, at most 16 bits, shape ``(H, W)``.
        header: The picture's data set.
        notes: Takes what a reader of the record should know.
        window: Name of the VOI LUT or window to use; see `data_prep.images.voi.grey_table`.

    Returns:
        uint8, shape ``(H, W)``; what was done, as columns of the decode table.
    """
    low, high = int(values.min()), int(values.max())
    stored = np.arange(low, high + 1)
    padding = _padding(stored, header)
    counter = _counter(values, low, high, padding)
    greys, known, more = grey_table(stored, counter, header, window)
    notes.extend(more)
    negative = header.PhotometricInterpretation == "MONOCHROME1"
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    if shape == "INVERSE" and not negative:
        notes.append("inverted by its presentation LUT")
    # Not twice: a DX picture that is MONOCHROME1 must also say INVERSE (PS3.3 C.8.11.3).
    known["inverted"] = negative or shape == "INVERSE"
    if known["inverted"]:
        greys = 255 - greys
    if padding.any():
        greys[padding] = 0
        notes.append("padding shown black")
    return _replace_by_grey(values, low, greys), known


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Which stored values stand for "outside the picture"; none if that would be all of them."""
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return np.zeros(stored.shape, dtype=bool)
    ends = [value, limit if isinstance(limit, int) else value]
    if header.get("PixelRepresentation"):  # often under an unsigned VR: 63536 for -2000
        ends = [end - (1 << 16) if end >= 1 << 15 else end for end in ends]
    padding = (stored >= min(ends)) & (stored <= max(ends))
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
