"""From stored values to display greys: modality LUT, VOI LUT or window, range (PS3.3 C.11).

All steps act on one value at a time, so they are worked out once per stored value (at most
65,536 of them) and not once per pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

LOW_PERCENTILE, HIGH_PERCENTILE = 0.1, 99.9
"""Percentiles of the pixels that become black and white where a deep picture has no window."""


def grey_table(
    stored: np.ndarray, count: Callable[[], np.ndarray], header: Dataset
) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Work out the display grey of each stored value, before any inversion.

    Order of PS3.3 C.11: modality LUT or rescale; then the first VOI LUT, else the first window,
    else a range: all values that the bit depth can hold up to 8 bits, so that such a picture
    stays as it is, and above that the 0.1 to 99.9 percentiles of the pixels.

    Args:
        stored: Every stored value of interest, ascending, int64, shape ``(K,)``.
        count: Gives the number of pixels (padding left out) per stored value, shape ``(K,)``;
            called only where the pixels matter, because counting takes time.
        header: The picture's data set.

    Returns:
        Greys, uint8, shape ``(K,)``; columns for the decode record; notes.
    """
    notes: list[str] = []
    values, modality = _modality(stored, header, notes)
    shown, voi = _voi_lut(values, header, notes)
    if shown is None:
        shown, voi = _window(values, count, header, notes)
    if shown is None:
        shown, voi = _range(values, count, header, notes)
    greys = np.rint(np.clip(shown, 0.0, 1.0) * 255).astype(np.uint8)
    return greys, {"modality_transform": modality, **voi}, notes


def _modality(stored: np.ndarray, header: Dataset, notes: list[str]) -> tuple[np.ndarray, str]:
    sequence = header.get("ModalityLUTSequence")
    if sequence:
        values, _ = _look_up(stored, sequence[0], header)
        return values.astype(np.float64), "lut"
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    if slope == 0:
        notes.append("RescaleSlope 0 ignored")
        slope = None
    slope, intercept = (1.0 if slope is None else slope), intercept or 0.0
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(np.float64), "none"
    return stored * slope + intercept, "rescale"


def _number(header: Dataset, keyword: str) -> float | None:
    """First value of an element as a finite float, or None."""
    value = header.get(keyword)
    if value is None or isinstance(value, str):
        return None
    try:
        first = float(value[0] if hasattr(value, "__getitem__") else value)
    except (TypeError, ValueError, IndexError):
        return None
    return first if np.isfinite(first) else None


def _look_up(values: np.ndarray, item: Dataset, header: Dataset) -> tuple[np.ndarray, int]:
    """Apply one LUT item; returns the looked-up values and the bits that they span.

    pydicom's own function takes LUT depths of 8 and 16 bits only; 10 and 12 are common.
    """
    count, first, bits = (int(v) for v in item.LUTDescriptor)
    count = count or 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        little = header.original_encoding[1] is not False
        wide = len(data) >= 2 * count
        table = np.frombuffer(data, ("<u2" if little else ">u2") if wide else "u1")
    else:
        table = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    table = table[:count]
    if table.size < count:
        raise ValueError(f"lookup table has {table.size} entries, its descriptor says {count}")
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, count - 1)
    return table[index].astype(np.int64), min(max(bits, 1), 16)


def _voi_lut(
    values: np.ndarray, header: Dataset, notes: list[str]
) -> tuple[np.ndarray | None, dict[str, Any]]:
    sequence = header.get("VOILUTSequence")
    if not sequence:
        return None, {}
    looked_up, bits = _look_up(values, sequence[0], header)
    needed = max(int(looked_up.max()).bit_length(), 1)
    if needed < bits and np.ptp(values) > 0:
        # Writers that declare 16 bits for a 12-bit table would give a nearly black picture.
        notes.append(f"VOI LUT says {bits} bits but uses {needed}")
        bits = needed
    return looked_up / ((1 << bits) - 1), {"voi": "lut"}


def _window(
    values: np.ndarray, count: Callable[[], np.ndarray], header: Dataset, notes: list[str]
) -> tuple[np.ndarray | None, dict[str, Any]]:
    center, width = _number(header, "WindowCenter"), _number(header, "WindowWidth")
    if center is None or width is None:
        return None, {}
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in WINDOW_FUNCTIONS:
        notes.append("unknown VOI LUT function, LINEAR used")
        function = "LINEAR"
    if width <= 0 or (function == "LINEAR" and width < 1):
        notes.append(f"window width {width:g} ignored")
        return None, {}
    shown = WINDOW_FUNCTIONS[function](values, center, width)
    present = np.rint(np.clip(shown, 0, 1) * 255)[count() > 0]
    if present.size > 1 and np.ptp(present) == 0:
        notes.append(f"window {center:g}/{width:g} shows nothing of this picture and was ignored")
        return None, {}
    name = {"LINEAR": "window", "LINEAR_EXACT": "window_linear_exact", "SIGMOID": "window_sigmoid"}
    return shown, {"voi": name[function], "window_center": center, "window_width": width}


def linear_window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """LINEAR window, PS3.3 C.11.2.1.2.1.

    Args:
        values: Modality values, shape ``(K,)``.
        center: Window center.
        width: Window width, at least 1.

    Returns:
        0 (black) to 1 (white), shape ``(K,)``.

    Example:
        >>> linear_window(np.array([0.0, 127.5, 255.0]), center=128, width=256).tolist()
        [0.0, 0.5, 1.0]
    """
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def linear_exact_window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """LINEAR_EXACT window, PS3.3 C.11.2.1.3.2; arguments as `linear_window`, width above 0."""
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def sigmoid_window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """SIGMOID window, PS3.3 C.11.2.1.3.1; arguments as `linear_window`, width above 0."""
    exponent = np.clip(-4.0 * (values - center) / width, -700.0, 700.0)
    return 1.0 / (1.0 + np.exp(exponent))


WINDOW_FUNCTIONS = {
    "LINEAR": linear_window,
    "LINEAR_EXACT": linear_exact_window,
    "SIGMOID": sigmoid_window,
}


def _range(
    values: np.ndarray, count: Callable[[], np.ndarray], header: Dataset, notes: list[str]
) -> tuple[np.ndarray, dict[str, Any]]:
    bits = int(header.BitsStored)
    if bits <= 8:
        least = -(1 << (bits - 1)) if header.get("PixelRepresentation", 0) else 0
        possible, _ = _modality(np.arange(least, least + (1 << bits)), header, [])
        low, high = float(possible.min()), float(possible.max())
        voi = "full_range"
    else:
        low, high = _percentiles(values, count())
        voi = "percentiles"
    if high <= low:
        notes.append("all pixels have one value")
        return np.zeros(values.shape), {"voi": voi}
    return (values - low) / (high - low), {"voi": voi}


def _percentiles(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    order = np.argsort(values, kind="stable")
    values, cumulative = values[order], np.cumsum(counts[order])
    total = int(cumulative[-1])
    low, high = (
        float(values[np.searchsorted(cumulative, max(total * share / 100, 1))])
        for share in (LOW_PERCENTILE, HIGH_PERCENTILE)
    )
    if high > low:
        return low, high
    present = values[counts[order] > 0]
    return float(present[0]), float(present[-1])
