"""Display of a decoded DICOM frame as 8-bit grey (PS3.3 C.11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from cxr_compare.data_prep.images.deep_pixels import (
    HIGH_PERCENTILE,
    LOW_PERCENTILE,
    DeepPixels,
)
from cxr_compare.data_prep.images.grey_conversion import colour_note, grey_from_rgb

_SIGN_BIT = 1 << 15  # sign bit of a 16-bit number
_CountPixels = Callable[[], np.ndarray]  # number of pixels of each stored value without padding


@dataclass(frozen=True)
class _LookupTable:
    """A table that maps values to other values."""

    first: int  # value that the first entry stands for
    entries: np.ndarray  # int64, shape ``(N,)``, each 0 to 65,535
    bits: int  # depth of the entries as the header states it, 1 to 16

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """Map values; those outside the table get its first or last entry."""
        index = np.clip(np.rint(values) - self.first_for(values), 0, self.entries.size - 1)
        return self.entries[index.astype(np.int64)]

    def first_for(self, values: np.ndarray) -> int:
        """Return the value of the first entry; it may be signed and stored under an unsigned VR."""
        signed = values.min(initial=0) < 0 and values.max(initial=0) < self.first
        return self.first - 2 * _SIGN_BIT if self.first >= _SIGN_BIT and signed else self.first


def _read_table(item: Dataset, header: Dataset) -> _LookupTable:
    """Read one item of a LUT sequence, PS3.3 C.11.1.1 and C.11.2.1.1.

    pydicom's own functions take depths of 8 and 16 bits only; 10 and 12 are common.
    """
    descriptor = item.get("LUTDescriptor")
    stored = item.get("LUTData")
    if descriptor is None or len(descriptor) != 3 or stored is None:
        raise ValueError("lookup table lacks its descriptor or its entries")
    count, first, bits = (int(v) for v in descriptor)
    count = (count & 0xFFFF) or 1 << 16
    if isinstance(stored, bytes):
        little = header.original_encoding[1] is not False
        wide = len(stored) >= 2 * count
        whole = stored[: len(stored) // 2 * 2] if wide else stored
        entries = np.frombuffer(whole, ("<u2" if little else ">u2") if wide else "u1")
    else:
        entries = np.atleast_1d(np.asarray(stored, dtype=np.int64)) & 0xFFFF
    if entries.size < count:
        raise ValueError(f"lookup table has {entries.size} entries, its descriptor says {count}")
    return _LookupTable(first, entries[:count].astype(np.int64), min(max(bits, 1), 16))


def _grey_table(
    stored: np.ndarray, count: _CountPixels, header: Dataset, notes: list[str], window: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Compute the displayed grey level of each stored value, before any inversion.

    Returns the grey levels, uint8, and columns of the decode table. The steps are those of
    `data_prep.images.dicom.read_dicom`.
    """
    values, modality = _modality(stored, header, notes)
    kind, index = _choose(header, window, notes)
    tables = None if kind == "window" else header.get("VOILUTSequence")
    shown: np.ndarray
    voi: dict[str, Any]
    if tables:
        table = _read_table(tables[index], header)
        shown = _fraction(table.look_up(values), table, "VOI", notes)
        voi = {"voi": "lut"}
    else:
        shown, voi = _window(values, count, header, index, notes) or _range(
            values, count, header, notes
        )
    shown = _presentation_lut(np.clip(shown, 0.0, 1.0), header, notes)
    return np.rint(shown * 255).astype(np.uint8), {"modality_transform": modality, **voi}


def _modality(stored: np.ndarray, header: Dataset, notes: list[str]) -> tuple[np.ndarray, str]:
    sequence = header.get("ModalityLUTSequence")
    if sequence:
        table = _read_table(sequence[0], header)
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


def _number(header: Dataset, keyword: str, index: int = 0) -> float | None:
    """Return one value of an element as a finite float; None if it is none."""
    try:
        value = header.get(keyword)
        if value is None or isinstance(value, str):
            return None
        one = float(value[index] if hasattr(value, "__getitem__") else value)
    except (TypeError, ValueError, IndexError):
        return None
    return one if np.isfinite(one) else None


def _choose(header: Dataset, window: str | None, notes: list[str]) -> tuple[str | None, int]:
    """Return the kind ("lut", "window") and index of the window of a name; (None, 0) if absent."""
    if window is None:
        return None, 0
    tables = [item.get("LUTExplanation") for item in header.get("VOILUTSequence") or ()]
    names = header.get("WindowCenterWidthExplanation") or ()
    windows = [names] if isinstance(names, str) else names
    for kind, explanations in (("lut", tables), ("window", windows)):
        for index, name in enumerate(explanations):
            if str(name or "").strip().upper() == window.strip().upper():
                return kind, index
    notes.append(f"no window is called {window}")
    return None, 0


def _fraction(
    looked_up: np.ndarray, table: _LookupTable, name: str, notes: list[str]
) -> np.ndarray:
    """Return entries of a table as a share of the largest possible entry."""
    needed = max(int(table.entries.max()).bit_length(), 1)
    if needed != table.bits:
        # Writers that declare 16 bits for a 12-bit table would give a nearly black image.
        notes.append(f"{name} LUT says {table.bits} bits but uses {needed}")
    return looked_up / ((1 << needed) - 1)


def _presentation_lut(shown: np.ndarray, header: Dataset, notes: list[str]) -> np.ndarray:
    """Apply the presentation LUT (PS3.3 C.11.6) to the whole range of the VOI step."""
    sequence = header.get("PresentationLUTSequence")
    if not sequence:
        return shown
    table = _read_table(sequence[0], header)
    notes.append("presentation LUT applied")
    looked_up = table.look_up(table.first + shown * (table.entries.size - 1))
    return _fraction(looked_up, table, "presentation", notes)


def _window(
    values: np.ndarray, count: _CountPixels, header: Dataset, index: int, notes: list[str]
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Apply a window; None if the header has none of use."""
    center = _number(header, "WindowCenter", index)
    width = _number(header, "WindowWidth", index)
    if center is None or width is None:
        return None
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _WINDOW_FUNCTIONS:
        notes.append("unknown VOI LUT function, LINEAR used")
        function = "LINEAR"
    if width <= 0 or (function == "LINEAR" and width < 1):
        notes.append(f"window width {width:g} ignored")
        return None
    shown = _WINDOW_FUNCTIONS[function](values, center, width)
    present = np.rint(np.clip(shown, 0, 1) * 255)[count() > 0]
    if present.size > 1 and np.ptp(present) == 0:
        notes.append(f"window {center:g}/{width:g} shows nothing of this image and was ignored")
        return None
    name = {"LINEAR": "window", "LINEAR_EXACT": "window_linear_exact", "SIGMOID": "window_sigmoid"}
    return shown, {"voi": name[function], "window_center": center, "window_width": width}


def _linear_window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Apply a LINEAR window (PS3.3 C.11.2.1.2.1)."""
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def _linear_exact_window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Apply a LINEAR_EXACT window (PS3.3 C.11.2.1.3.2); the width is above 0."""
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _sigmoid_window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Apply a SIGMOID window (PS3.3 C.11.2.1.3.1); the width is above 0."""
    exponent = np.clip(-4.0 * (values - center) / width, -700.0, 700.0)
    return 1.0 / (1.0 + np.exp(exponent))


_WINDOW_FUNCTIONS = {
    "LINEAR": _linear_window,
    "LINEAR_EXACT": _linear_exact_window,
    "SIGMOID": _sigmoid_window,
}


def _range(
    values: np.ndarray, count: _CountPixels, header: Dataset, notes: list[str]
) -> tuple[np.ndarray, dict[str, Any]]:
    low, high = _range_ends(values, count, header)
    facts = {"voi": "full_range" if int(header.BitsStored) <= 8 else "percentiles"}
    if high <= low:
        notes.append("all pixels have one value")
        return np.zeros(values.shape), facts
    return (values - low) / (high - low), facts


def _range_ends(values: np.ndarray, count: _CountPixels, header: Dataset) -> tuple[float, float]:
    """Return the values that are shown black and white without a window."""
    bits = int(header.BitsStored)
    if bits > 8:
        return _percentiles(values, count())
    least = -(1 << (bits - 1)) if header.get("PixelRepresentation", 0) else 0
    possible, _ = _modality(np.arange(least, least + (1 << bits)), header, [])
    return float(possible.min()), float(possible.max())


def _percentiles(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    order = np.argsort(values, kind="stable")
    values = values[order]
    cumulative = np.cumsum(counts[order])
    total = int(cumulative[-1])
    low, high = (
        float(values[np.searchsorted(cumulative, max(total * share / 100, 1))])
        for share in (LOW_PERCENTILE, HIGH_PERCENTILE)
    )
    if high > low:
        return low, high
    present = values[counts[order] > 0]
    return float(present[0]), float(present[-1])


_BLOCK_PIXELS = 1 << 20  # handled at a time where an index array is needed
_STUDIO_RANGE = (16, 235)  # black and white of the luma in YBR_PARTIAL


def show_colour(
    values: np.ndarray, photometric: str, header: Dataset, notes: list[str]
) -> np.ndarray:
    """Convert a colour frame to 8-bit grey.

    Args:
        values: Decoded values, shape ``(H, W, 3)``, or ``(H, W)`` for a palette image.
        photometric: Photometric interpretation of the values, such as ``RGB`` or ``YBR_FULL``.
        header: Header of the DICOM file.
        notes: List to which notes about the conversion are appended.

    Returns:
        Grey levels, uint8, shape ``(H, W)``.

    Raises:
        ValueError: The photometric interpretation is not that of a colour image.
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
        raise ValueError(f"a colour image cannot be {photometric}")
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
    """Convert a grey DICOM frame to 8 bits with its LUTs, window, inversion and black padding.

    Args:
        values: Values as stored in the file, shape ``(H, W)``.
        header: Header of the DICOM file.
        notes: List to which notes about the conversion are appended.
        window: Name of the window to show, such as "LUNG"; None takes the first.

    Returns:
        Grey levels, uint8, shape ``(H, W)``, and facts about the conversion by column of a data
        set's decode table.
    """
    stored = _StoredValues(values, header)
    greys, facts = _grey_table(stored.values, stored.count_pixels, header, notes, window)
    facts["inverted"] = _is_inverted(header, notes)
    if facts["inverted"]:
        greys = 255 - greys
    if stored.is_padding.any():
        greys[stored.is_padding] = 0
        notes.append("padding shown black")
    return _replace_by_grey(values, stored.lowest, greys), facts


def _is_inverted(header: Dataset, notes: list[str]) -> bool:
    negative = header.PhotometricInterpretation == "MONOCHROME1"
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    if shape == "INVERSE" and not negative:
        notes.append("inverted by its presentation LUT")
    # Not twice: a DX image that is MONOCHROME1 must also say INVERSE (PS3.3 C.8.11.3).
    return negative or shape == "INVERSE"


def deep_grey(values: np.ndarray, header: Dataset, window: str | None = None) -> DeepPixels:
    """Convert a grey DICOM frame at full bit depth, before any window.

    The modality LUT, the inversion and black padding are applied.

    Args:
        values: Values as stored in the file, shape ``(H, W)``.
        header: Header of the DICOM file.
        window: Name of the window whose ends are returned as the values of black and white; None
            takes the first.

    Returns:
        The image, with the values that the window displays as black and white.
    """
    stored = _StoredValues(values, header)
    table, _ = _modality(stored.values, header, [])
    black, white = _window_ends(table, stored.count_pixels, header, window)
    unused = stored.count_pixels() == 0
    are_bytes = np.array_equal(table, np.clip(np.rint(table), 0, 255))
    if np.ptp(table[~unused]) <= 255 and int(header.BitsStored) <= 8 and are_bytes:
        table = table.astype(np.uint8)
    else:
        table = np.where(unused, table[~unused].min(), table)  # padding has no say in the shift
    deep = DeepPixels.from_values(table, black, white, negative=_is_inverted(header, []))
    deep.values[stored.is_padding] = 0
    levels = _replace_by_grey(values, stored.lowest, deep.values)
    return DeepPixels(levels, deep.black, deep.white)


def _window_ends(
    values: np.ndarray, count: _CountPixels, header: Dataset, window: str | None
) -> tuple[float, float]:
    """Return the values after the modality LUT that are shown black and white."""
    kind, index = _choose(header, window, [])
    sequence = None if kind == "window" else header.get("VOILUTSequence")
    if sequence:
        table = _read_table(sequence[index], header)
        first = table.first_for(values)
        return float(first), float(first + table.entries.size - 1)
    windowed = _window(values, count, header, index, [])
    if windowed is None:
        return _range_ends(values, count, header)
    _, facts = windowed
    center = facts["window_center"]
    width = facts["window_width"]
    if facts["voi"] == "window":  # LINEAR: PS3.3 C.11.2.1.2.1
        center -= 0.5
        width -= 1
    return center - width / 2, center + width / 2


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


class _StoredValues:
    """All stored values of a frame from the lowest to the highest."""

    def __init__(self, frame: np.ndarray, header: Dataset) -> None:
        self._frame = frame
        self.lowest = int(frame.min())
        self.values = np.arange(self.lowest, int(frame.max()) + 1)
        self.is_padding = _padding(self.values, header)

    def count_pixels(self) -> np.ndarray:
        """Return the number of pixels of each value; 0 for padding."""
        counts = np.zeros(self.values.size, dtype=np.int64)
        flat = self._frame.reshape(-1)
        for start in range(0, flat.size, _BLOCK_PIXELS):
            block = flat[start : start + _BLOCK_PIXELS].astype(np.int64) - self.lowest
            counts += np.bincount(block, minlength=counts.size)
        return np.where(self.is_padding, 0, counts)


def _replace_by_grey(values: np.ndarray, low: int, greys: np.ndarray) -> np.ndarray:
    """Replace stored values by their greys, in blocks: an index array is 8 bytes a pixel."""
    same = np.array_equal(greys, np.arange(low, low + greys.size))
    if same and values.dtype == greys.dtype:
        return values
    shown = np.empty(values.shape, dtype=greys.dtype)
    flat = values.reshape(-1)
    out = shown.reshape(-1)
    for start in range(0, flat.size, _BLOCK_PIXELS):
        block = flat[start : start + _BLOCK_PIXELS].astype(np.int64) - low
        out[start : start + _BLOCK_PIXELS] = greys[block]
    return shown
