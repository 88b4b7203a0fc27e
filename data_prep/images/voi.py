"""From stored values to display greys: modality LUT, VOI LUT or window, presentation LUT.

The order is that of PS3.3 C.11. All steps act on one value at a time, so they are worked out once
per stored value (at most 65,536 of them) and not once per pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from data_prep.images.lookup import LookupTable, read_table

LOW_PERCENTILE, HIGH_PERCENTILE = 0.1, 99.9
"""Percentiles of the pixels that become black and white where a deep picture has no window."""


def grey_table(
    stored: np.ndarray,
    count: Callable[[], np.ndarray],
    header: Dataset,
    window: str | None = None,
) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Work out the display grey of each stored value, before any inversion.

    Modality LUT or rescale; then the first VOI LUT, else the first window, else a range: all
    values that the bit depth can hold up to 8 bits, so that such a picture stays as it is, and
    above that the 0.1 to 99.9 percentiles of the pixels; then the presentation LUT, if any.

    Args:
        stored: Every stored value of interest, ascending, int64, shape ``(K,)``.
        count: Gives the number of pixels (padding left out) per stored value, shape ``(K,)``;
            called only where the pixels matter, because counting takes time.
        header: The picture's data set.
        window: Explanation of the VOI LUT or window to use, such as ``"LUNG"``, in any case of
            letters; where the file has none of that name, the choice is as without.

    Returns:
        Greys, uint8, shape ``(K,)``; columns for the decode record; notes.
    """
    notes: list[str] = []
    values, modality = _modality(stored, header, notes)
    kind, index = _choose(header, window, notes)
    found = None if kind == "window" else _voi_lut(values, header, index, notes)
    found = found or _window(values, count, header, index, notes)
    shown, voi = found or _range(values, count, header, notes)
    shown = _presentation_lut(np.clip(shown, 0.0, 1.0), header, notes)
    return np.rint(shown * 255).astype(np.uint8), {"modality_transform": modality, **voi}, notes


def _modality(stored: np.ndarray, header: Dataset, notes: list[str]) -> tuple[np.ndarray, str]:
    sequence = header.get("ModalityLUTSequence")
    if sequence:
        table = read_table(sequence[0], header)
        return table.look_up(stored).astype(np.float64), "lut"
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    if slope == 0:
        notes.append("RescaleSlope 0 ignored")
        slope = None
    slope, intercept = (1.0 if slope is None else slope), intercept or 0.0
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(np.float64), "none"
    return stored * slope + intercept, "rescale"


def _number(header: Dataset, keyword: str, index: int = 0) -> float | None:
    """One value of an element as a finite float, or None."""
    try:
        value = header.get(keyword)
        if value is None or isinstance(value, str):
            return None
        one = float(value[index] if hasattr(value, "__getitem__") else value)
    except (TypeError, ValueError, IndexError):
        return None
    return one if np.isfinite(one) else None


def _choose(header: Dataset, window: str | None, notes: list[str]) -> tuple[str | None, int]:
    """Find the VOI LUT or window of a name; the first, of whatever kind, where there is none."""
    if window is None:
        return None, 0
    tables = [item.get("LUTExplanation") for item in header.get("VOILUTSequence") or ()]
    names = header.get("WindowCenterWidthExplanation") or ()
    for kind, known in (("lut", tables), ("window", [names] if isinstance(names, str) else names)):
        for index, name in enumerate(known):
            if str(name or "").strip().upper() == window.strip().upper():
                return kind, index
    notes.append(f"no window is called {window}")
    return None, 0


def _voi_lut(
    values: np.ndarray, header: Dataset, index: int, notes: list[str]
) -> tuple[np.ndarray, dict[str, Any]] | None:
    sequence = header.get("VOILUTSequence")
    if not sequence:
        return None
    table = read_table(sequence[index], header)
    return _fraction(table.look_up(values), table, "VOI", notes), {"voi": "lut"}


def _fraction(looked_up: np.ndarray, table: LookupTable, name: str, notes: list[str]) -> np.ndarray:
    """Entries of a table as a share of the most that it can hold."""
    bits, needed = table.bits, max(int(table.entries.max()).bit_length(), 1)
    if needed != bits:
        # Writers that declare 16 bits for a 12-bit table would give a nearly black picture.
        notes.append(f"{name} LUT says {bits} bits but uses {needed}")
    return looked_up / ((1 << needed) - 1)


def _presentation_lut(shown: np.ndarray, header: Dataset, notes: list[str]) -> np.ndarray:
    """P-values of PS3.3 C.11.6: its input is the whole range that comes out of the VOI step."""
    sequence = header.get("PresentationLUTSequence")
    if not sequence:
        return shown
    table = read_table(sequence[0], header)
    notes.append("presentation LUT applied")
    looked_up = table.look_up(table.first + shown * (table.entries.size - 1))
    return _fraction(looked_up, table, "presentation", notes)


def _window(
    values: np.ndarray, count: Callable[[], np.ndarray], header: Dataset, index: int,
    notes: list[str],
) -> tuple[np.ndarray, dict[str, Any]] | None:  # fmt: skip
    center = _number(header, "WindowCenter", index)
    width = _number(header, "WindowWidth", index)
    if center is None or width is None:
        return None
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in WINDOW_FUNCTIONS:
        notes.append("unknown VOI LUT function, LINEAR used")
        function = "LINEAR"
    if width <= 0 or (function == "LINEAR" and width < 1):
        notes.append(f"window width {width:g} ignored")
        return None
    shown = WINDOW_FUNCTIONS[function](values, center, width)
    present = np.rint(np.clip(shown, 0, 1) * 255)[count() > 0]
    if present.size > 1 and np.ptp(present) == 0:
        notes.append(f"window {center:g}/{width:g} shows nothing of this picture and was ignored")
        return None
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
