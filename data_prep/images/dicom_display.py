"""Display of a decoded DICOM frame as 8-bit grey (PS3.3 C.11).

Each step is taken once for each value that can occur, and not for each pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_windowing

from cxr_compare.data_prep.images.decoded_image import (
    by_rows,
    colour_note,
    grey_from_rgb,
    grey_of_equal_channels,
    grey_range,
)

_CountPixels = Callable[[], np.ndarray]  # number of pixels of each stored value without padding
_Shown = tuple[np.ndarray, dict[str, Any]]  # shares from black, 0, to white, 1; facts about them
_BLOCK = 1 << 20  # pixels that are counted at a time
_WINDOW_NAMES = {
    "LINEAR": "window",
    "LINEAR_EXACT": "window_linear_exact",
    "SIGMOID": "window_sigmoid",
}


def show_grey(
    frame: np.ndarray, header: Dataset, notes: list[str]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Convert a grey DICOM frame to 8 bits with its LUTs, window, inversion and black padding.

    Returns the grey levels, uint8 ``(H, W)``, and facts by column of a data set's decode table.
    """
    lowest = int(frame.min())
    stored = np.arange(lowest, int(frame.max()) + 1)
    padding = _padding(stored, header)

    @cache
    def count() -> np.ndarray:
        pieces = np.array_split(frame.ravel(), frame.size // _BLOCK + 1)
        counts = [np.bincount(p.astype(np.int64) - lowest, minlength=stored.size) for p in pieces]
        return np.where(padding, 0, sum(counts))

    values, modality = _modality(stored, header, notes)
    shares, facts = (
        _voi_lut(values, header, notes)
        or _window(values, count, header, notes)
        or _range(values, count, header, notes)
    )
    shares = _presentation_lut(np.clip(shares, 0.0, 1.0), header, notes)
    greys = np.rint(shares * 255).astype(np.uint8)
    inverted = _is_negative(header, notes)
    if inverted:
        greys = 255 - greys
    if padding.any():
        greys[padding] = 0
        notes.append("padding shown black")
    facts |= {"modality_transform": modality, "inverted": inverted}
    if frame.dtype == np.uint8 and np.array_equal(greys, stored):
        return frame, facts
    return by_rows(lambda row: greys[row.astype(np.int64) - lowest], frame), facts


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Flag the stored values that mean "outside the image"; none if that would be all of them."""
    value = header.get("PixelPaddingValue")
    limit = header.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return np.zeros(stored.shape, dtype=bool)
    ends = [value, limit if isinstance(limit, int) else value]
    if header.PixelRepresentation:  # often under an unsigned VR: 63536 for -2000
        ends = [end - (1 << 16) if end >= 1 << 15 else end for end in ends]
    padding = (stored >= min(ends)) & (stored <= max(ends))
    return padding & ~padding.all()


def _is_negative(header: Dataset, notes: list[str]) -> bool:
    negative = header.PhotometricInterpretation == "MONOCHROME1"
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    if shape == "INVERSE" and not negative:
        notes.append("inverted by its presentation LUT")
    # Not twice: a DX image that is MONOCHROME1 must also say INVERSE (PS3.3 C.8.11.3).
    return negative or shape == "INVERSE"


def _modality(stored: np.ndarray, header: Dataset, notes: list[str]) -> tuple[np.ndarray, str]:
    if header.get("ModalityLUTSequence"):
        return _look_up(header.ModalityLUTSequence[0], stored, header).astype(np.float64), "lut"
    slope = _number(header, "RescaleSlope")
    intercept = _number(header, "RescaleIntercept") or 0.0
    if slope == 0:
        notes.append("RescaleSlope 0 ignored")
    slope = slope or 1.0
    kind = "none" if (slope, intercept) == (1.0, 0.0) else "rescale"
    return stored * slope + intercept, kind


def _number(header: Dataset, keyword: str) -> float | None:
    """Return the first value of an element as a finite float; None if it is none."""
    try:
        value = header.get(keyword)
        if value is None or isinstance(value, str):
            return None
        number = float(value[0] if hasattr(value, "__getitem__") else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _entries(item: Dataset, header: Dataset) -> np.ndarray:
    """Return the entries of a lookup table, int64 ``(N,)`` (PS3.3 C.11.1.1.1).

    pydicom's own functions take some depths only, no table of one byte an entry and no signed value
    under an unsigned VR, and they stretch what goes into a presentation LUT.
    """
    if "LUTDescriptor" not in item or "LUTData" not in item:
        raise ValueError("lookup table lacks its descriptor or its entries")
    count = (int(item.LUTDescriptor[0]) & 0xFFFF) or 1 << 16
    entries = item.LUTData
    if isinstance(entries, bytes):
        order = ">" if header.original_encoding[1] is False else "<"
        is_wide = len(entries) >= 2 * count
        whole_words = entries[: len(entries) // 2 * 2] if is_wide else entries
        entries = np.frombuffer(whole_words, f"{order}u2" if is_wide else "u1")
    entries = np.atleast_1d(np.asarray(entries, np.int64)) & 0xFFFF
    if entries.size < count:
        raise ValueError(f"lookup table has {entries.size} entries, its descriptor says {count}")
    return entries[:count]


def _look_up(item: Dataset, values: np.ndarray, header: Dataset) -> np.ndarray:
    """Map values by a lookup table; those beyond its ends get its first or last entry."""
    entries = _entries(item, header)
    first = int(item.LUTDescriptor[1])
    if first >= 1 << 15 and values.min() < 0 and values.max() < first:
        first -= 1 << 16
    index = np.clip(np.rint(values) - first, 0, entries.size - 1)
    return entries[index.astype(np.int64)]


def _shares(
    item: Dataset, values: np.ndarray, header: Dataset, name: str, notes: list[str]
) -> np.ndarray:
    """Map values by a lookup table to shares of the largest entry that its bits can hold."""
    needed = max(int(_entries(item, header).max()).bit_length(), 1)
    bits = int(item.LUTDescriptor[2])
    if needed != bits:
        # Writers that declare 16 bits for a 12-bit table would give a nearly black image.
        notes.append(f"{name} LUT says {bits} bits but uses {needed}")
    return _look_up(item, values, header) / ((1 << needed) - 1)


def _voi_lut(values: np.ndarray, header: Dataset, notes: list[str]) -> _Shown | None:
    if not header.get("VOILUTSequence"):
        return None
    shares = _shares(header.VOILUTSequence[0], values, header, "VOI", notes)
    return shares, {"voi": "lut"}


def _window(
    values: np.ndarray, count: _CountPixels, header: Dataset, notes: list[str]
) -> _Shown | None:
    """Apply the first window; None if the header has none of use."""
    center = _number(header, "WindowCenter")
    width = _number(header, "WindowWidth")
    if center is None or width is None:
        return None
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _WINDOW_NAMES:
        notes.append("unknown VOI LUT function, LINEAR used")
        function = "LINEAR"
    if width <= 0 or (function == "LINEAR" and width < 1):
        notes.append(f"window width {width:g} ignored")
        return None
    one_bit = Dataset()  # so that pydicom returns shares from 0 to 1
    one_bit.PhotometricInterpretation = "MONOCHROME2"
    one_bit.BitsStored = 1
    one_bit.PixelRepresentation = 0
    one_bit.WindowCenter = center
    one_bit.WindowWidth = width
    one_bit.VOILUTFunction = function
    with np.errstate(over="ignore"):  # far from a sigmoid's centre
        shares = apply_windowing(values, one_bit)
    present = np.rint(np.clip(shares, 0, 1) * 255)[count() > 0]
    if present.size > 1 and np.ptp(present) == 0:
        notes.append(f"window {center:g}/{width:g} shows nothing of this image and was ignored")
        return None
    return shares, {"voi": _WINDOW_NAMES[function]}


def _range(values: np.ndarray, count: _CountPixels, header: Dataset, notes: list[str]) -> _Shown:
    """Take all that 8 bits can hold, or of deeper values the range of nearly all pixels."""
    bits = int(header.BitsStored)
    if bits <= 8:
        facts = {"voi": "full_range"}
        least = -(1 << (bits - 1)) if header.PixelRepresentation else 0
        possible, _ = _modality(np.arange(least, least + (1 << bits)), header, [])
        black = float(possible.min())
        white = float(possible.max())
    else:
        facts = {"voi": "percentiles"}
        order = np.argsort(values, kind="stable")
        black, white = grey_range(values[order], count()[order])
    if white > black:
        return (values - black) / (white - black), facts
    notes.append("all pixels have one value")
    return np.zeros(values.shape), facts


def _presentation_lut(shares: np.ndarray, header: Dataset, notes: list[str]) -> np.ndarray:
    """Apply the presentation LUT (PS3.3 C.11.6) to the whole range of the VOI step."""
    if not header.get("PresentationLUTSequence"):
        return shares
    item = header.PresentationLUTSequence[0]
    notes.append("presentation LUT applied")
    positions = shares * (_entries(item, header).size - 1) + int(item.LUTDescriptor[1])
    return _shares(item, positions, header, "presentation", notes)


def show_colour(
    values: np.ndarray, photometric: str, header: Dataset, notes: list[str]
) -> np.ndarray:
    """Convert a colour frame to 8-bit grey, uint8 ``(H, W)``.

    The decoded values are ``(H, W, 3)`` for ``RGB``, or ``(H, W)`` for ``PALETTE COLOR``; another
    photometric interpretation is a `ValueError`. Notes on the conversion are appended to `notes`.
    """
    depth = int(header.BitsStored)
    if photometric == "PALETTE COLOR":
        values = apply_color_lut(values, header)[..., :3]
        depth = 8 if values.max() < 1 << 8 else 16  # 8-bit entries may be kept in 16
    elif photometric != "RGB":
        raise ValueError(f"a colour image cannot be {photometric}")
    if depth != 8:
        values = np.rint(values * (255 / ((1 << depth) - 1)))
    rgb = np.ascontiguousarray(values, dtype=np.uint8)
    grey = grey_of_equal_channels(rgb)
    notes.append(colour_note(is_grey=grey is not None))
    return grey_from_rgb(rgb) if grey is None else grey
