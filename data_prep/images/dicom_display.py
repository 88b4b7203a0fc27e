"""Display of a decoded DICOM frame as 8-bit grey (PS3.3 C.11).

Each step is taken once for each value that can occur, and not for each pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_windowing

from cxr_compare.data_prep.images.decoded_image import colour_note, grey_from_rgb
from cxr_compare.data_prep.images.deep_pixels import (
    DeepPixels,
    grey_range,
    in_blocks,
)

_CountPixels = Callable[[], np.ndarray]  # number of pixels of each stored value without padding
_WINDOW_NAMES = {
    "LINEAR": "window",
    "LINEAR_EXACT": "window_linear_exact",
    "SIGMOID": "window_sigmoid",
}


@dataclass(frozen=True)
class ShownFrame:
    """A grey frame as a viewer displays it.

    Attributes:
        pixels: Grey levels, uint8 (H, W).
        facts: How it was converted, by column of a data set's decode table.
        deep: The frame at full depth, before any window; None if it was not requested.
    """

    pixels: np.ndarray
    facts: dict[str, Any]
    deep: DeepPixels | None


def show_grey(
    frame: np.ndarray, header: Dataset, notes: list[str], *, deep: bool = False
) -> ShownFrame:
    """Convert a grey DICOM frame to 8 bits with its LUTs, window, inversion and black padding.

    The frame has the values as stored in the file, ``(H, W)``. Notes on the conversion are appended
    to `notes`. With `deep`, the frame after the modality LUT, before any window, is returned, too.
    """
    lowest = int(frame.min())
    stored = np.arange(lowest, int(frame.max()) + 1)
    padding = _padding(stored, header)

    @cache
    def count() -> np.ndarray:
        pieces = np.array_split(frame.ravel(), frame.size // (1 << 20) + 1)
        counts = [np.bincount(p.astype(np.int64) - lowest, minlength=stored.size) for p in pieces]
        return np.where(padding, 0, sum(counts))

    values, modality = _modality(stored, header, notes)
    voi = _voi_lut(values, header, notes) or _window(values, count, header, notes)
    voi = voi or _range(values, count, header, notes)
    shares = _presentation_lut(np.clip(voi.shares, 0.0, 1.0), header, notes)
    greys = np.rint(shares * 255).astype(np.uint8)
    negative = _is_negative(header, notes)
    if negative:
        greys = 255 - greys
    if padding.any():
        greys[padding] = 0
        notes.append("padding shown black")
    pixels = frame
    if frame.dtype != np.uint8 or not np.array_equal(greys, stored):
        pixels = in_blocks(lambda block: greys[block.astype(np.int64) - lowest], frame, np.uint8)
    facts = {"modality_transform": modality, **voi.facts, "inverted": negative}
    deep_pixels = None
    if deep:
        levels = _deep_levels(values, count() > 0, voi, header)
        levels.values[padding] = 0
        table = levels.values
        shown = in_blocks(lambda block: table[block.astype(np.int64) - lowest], frame, table.dtype)
        deep_pixels = DeepPixels(shown, levels.black, levels.white)
    return ShownFrame(pixels, facts, deep_pixels)


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Flag the stored values that mean "outside the image"; none if that would be all of them."""
    value = header.get("PixelPaddingValue")
    limit = header.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return np.zeros(stored.shape, dtype=bool)
    ends = [value, limit if isinstance(limit, int) else value]
    if header.get("PixelRepresentation"):  # often under an unsigned VR: 63536 for -2000
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


def _deep_levels(values: np.ndarray, occurs: np.ndarray, voi: _Voi, header: Dataset) -> DeepPixels:
    """Return the level of each stored value before the window, inverted if the image is."""
    are_bytes = np.array_equal(values, np.clip(np.rint(values), 0, 255))
    if np.ptp(values[occurs]) <= 255 and int(header.BitsStored) <= 8 and are_bytes:
        table = values.astype(np.uint8)
    else:
        table = np.where(occurs, values, values[occurs].min())  # padding has no say in the shift
    negative = _is_negative(header, [])
    return DeepPixels.from_values(table, voi.black, voi.white, negative=negative)


def _modality(stored: np.ndarray, header: Dataset, notes: list[str]) -> tuple[np.ndarray, str]:
    sequence = header.get("ModalityLUTSequence")
    if sequence:
        table = _Table.from_item(sequence[0], header)
        return table.look_up(stored).astype(np.float64), "lut"
    slope = _number(header, "RescaleSlope")
    intercept = _number(header, "RescaleIntercept") or 0.0
    if slope == 0:
        notes.append("RescaleSlope 0 ignored")
        slope = None
    if slope is None:
        slope = 1.0
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(np.float64), "none"
    return stored * slope + intercept, "rescale"


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


@dataclass(frozen=True)
class _Table:
    """A lookup table of a header.

    pydicom's own functions take some depths only, wrap values above 65,535, and stretch what goes
    into a presentation LUT.
    """

    first: int  # value that the first entry stands for
    entries: np.ndarray  # int64, shape ``(N,)``, each 0 to 65,535
    bits: int  # depth of the entries as the header states it

    @classmethod
    def from_item(cls, item: Dataset, header: Dataset) -> _Table:
        """Read one item of a LUT sequence, PS3.3 C.11.1.1 and C.11.2.1.1."""
        descriptor = item.get("LUTDescriptor")
        stored = item.get("LUTData")
        if descriptor is None or len(descriptor) != 3 or stored is None:
            raise ValueError("lookup table lacks its descriptor or its entries")
        count, first, bits = (int(v) for v in descriptor)
        count = (count & 0xFFFF) or 1 << 16
        if isinstance(stored, bytes):
            order = ">" if header.original_encoding[1] is False else "<"
            is_wide = len(stored) >= 2 * count
            whole = stored[: len(stored) // 2 * 2] if is_wide else stored
            entries = np.frombuffer(whole, f"{order}u2" if is_wide else "u1")
        else:
            entries = np.atleast_1d(np.asarray(stored, dtype=np.int64)) & 0xFFFF
        if entries.size < count:
            raise ValueError(
                f"lookup table has {entries.size} entries, its descriptor says {count}"
            )
        return cls(first, entries[:count].astype(np.int64), min(max(bits, 1), 16))

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """Map values; those outside the table get its first or last entry."""
        index = np.clip(np.rint(values) - self.first_for(values), 0, self.entries.size - 1)
        return self.entries[index.astype(np.int64)]

    def first_for(self, values: np.ndarray) -> int:
        """Return the value of the first entry; it may be signed and stored under an unsigned VR."""
        signed = values.min(initial=0) < 0 and values.max(initial=0) < self.first
        return self.first - (1 << 16) if self.first >= 1 << 15 and signed else self.first

    def shares(self, entries: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
        """Return entries as shares of the largest that their bits can hold."""
        needed = max(int(self.entries.max()).bit_length(), 1)
        if needed != self.bits:
            # Writers that declare 16 bits for a 12-bit table would give a nearly black image.
            notes.append(f"{name} LUT says {self.bits} bits but uses {needed}")
        return entries / ((1 << needed) - 1)


@dataclass(frozen=True)
class _Voi:
    """Result of a VOI LUT, a window or a range on the values.

    `shares` says where each value lies between black, 0, and white, 1; `black` and `white` are the
    values that are displayed so.
    """

    shares: np.ndarray
    black: float
    white: float
    facts: dict[str, Any]


def _voi_lut(values: np.ndarray, header: Dataset, notes: list[str]) -> _Voi | None:
    sequence = header.get("VOILUTSequence")
    if not sequence:
        return None
    table = _Table.from_item(sequence[0], header)
    first = table.first_for(values)
    shares = table.shares(table.look_up(values), "VOI", notes)
    return _Voi(shares, float(first), float(first + table.entries.size - 1), {"voi": "lut"})


def _window(
    values: np.ndarray, count: _CountPixels, header: Dataset, notes: list[str]
) -> _Voi | None:
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
    facts = {"voi": _WINDOW_NAMES[function], "window_center": center, "window_width": width}
    if function == "LINEAR":  # PS3.3 C.11.2.1.2.1
        center -= 0.5
        width -= 1
    return _Voi(shares, center - width / 2, center + width / 2, facts)


def _range(values: np.ndarray, count: _CountPixels, header: Dataset, notes: list[str]) -> _Voi:
    """Take all that 8 bits can hold, or of deeper values the range of nearly all pixels."""
    bits = int(header.BitsStored)
    if bits <= 8:
        facts = {"voi": "full_range"}
        least = -(1 << (bits - 1)) if header.get("PixelRepresentation", 0) else 0
        possible, _ = _modality(np.arange(least, least + (1 << bits)), header, [])
        black = float(possible.min())
        white = float(possible.max())
    else:
        facts = {"voi": "percentiles"}
        order = np.argsort(values, kind="stable")
        black, white = grey_range(values[order], count()[order])
    if white > black:
        return _Voi((values - black) / (white - black), black, white, facts)
    notes.append("all pixels have one value")
    return _Voi(np.zeros(values.shape), black, white, facts)


def _presentation_lut(shares: np.ndarray, header: Dataset, notes: list[str]) -> np.ndarray:
    """Apply the presentation LUT (PS3.3 C.11.6) to the whole range of the VOI step."""
    sequence = header.get("PresentationLUTSequence")
    if not sequence:
        return shares
    table = _Table.from_item(sequence[0], header)
    notes.append("presentation LUT applied")
    looked_up = table.look_up(table.first + shares * (table.entries.size - 1))
    return table.shares(looked_up, "presentation", notes)


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
    notes.append(colour_note(rgb))
    return grey_from_rgb(rgb)
