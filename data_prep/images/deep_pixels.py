"""Pixels of more than 8 bits: the range that is shown, and an image before any window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

_SHOWN_PERCENTILES = (0.1, 99.9)  # become black and white in a deep image without a window
_MAX_LEVEL = (1 << 16) - 1
_BLOCK_PIXELS = 1 << 15  # converted at a time


def grey_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return the values that become black and white in a deep image without a window.

    `values` are those that can occur, in ascending order, `counts` the pixels of each, ``(N,)``.

    Example:
        >>> grey_range(np.array([0, 5, 9]), np.array([1, 9999, 1]))
        (0.0, 9.0)
    """
    up_to = np.cumsum(counts)
    ranks = [max(int(up_to[-1]) * share / 100, 1) for share in _SHOWN_PERCENTILES]
    low, high = (float(values[np.searchsorted(up_to, rank)]) for rank in ranks)
    if high > low:
        return low, high
    present = values[counts > 0]
    return float(present[0]), float(present[-1])


def in_blocks(
    convert: Callable[[np.ndarray], np.ndarray], values: np.ndarray, dtype: npt.DTypeLike
) -> np.ndarray:
    """Convert an image by blocks of rows, because index arrays and float64 take 8 bytes a pixel."""
    converted = np.empty(values.shape, dtype)
    rows = max(1, _BLOCK_PIXELS // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        converted[start : start + rows] = convert(values[start : start + rows])
    return converted


@dataclass(frozen=True)
class DeepPixels:
    """An image at the bit depth of its file, before a window maps its values to 8 bits.

    Attributes:
        values: Grey values, uint16 (H, W); larger is brighter. Values of up to 8 bits stay as they
            are; of deeper ones the lowest is 0.
        black: Value that the window of the file, or else its range, displays as black. It may lie
            outside `values`.
        white: Value that the window of the file, or else its range, displays as white.

    Example:
        >>> deep = DeepPixels.from_values(np.array([[100, 300]], np.int16), 100, 200)
        >>> deep.values.tolist(), deep.black, deep.white
        ([[0, 200]], 0.0, 100.0)
    """

    values: np.ndarray = field(repr=False)
    black: float
    white: float

    @classmethod
    def from_values(
        cls, values: np.ndarray, black: float, white: float, *, negative: bool = False
    ) -> Self:
        """Make an image of 16 bits from decoded values: shift them so that the lowest becomes 0.

        Values ``(H, W)`` of any numeric type that do not fit into 16 bits are scaled; unsigned ones
        of up to 8 bits stay as they are. `black` and `white` are the values displayed so. With
        `negative`, larger values are displayed darker: all are inverted.
        """
        scale = _Scale.from_values(values)

        def convert(block: np.ndarray) -> np.ndarray:
            levels = scale.levels(block)
            return scale.highest - levels if negative else levels

        levels = in_blocks(convert, values, np.uint16)
        black_level = (black - scale.lowest_value) / scale.step
        white_level = (white - scale.lowest_value) / scale.step
        if negative:
            return cls(levels, scale.highest - white_level, scale.highest - black_level)
        return cls(levels, black_level, white_level)


@dataclass(frozen=True)
class _Scale:
    """Conversion of values to levels: level = (value - lowest value) / step."""

    lowest_value: float
    step: float
    highest: float  # level

    @classmethod
    def from_values(cls, values: np.ndarray) -> _Scale:
        if values.dtype == np.uint8:
            return cls(lowest_value=0.0, step=1.0, highest=255.0)
        is_float = values.dtype.kind == "f"
        finite = values[np.isfinite(values)] if is_float else values
        if not finite.size:
            return cls(lowest_value=0.0, step=1.0, highest=0.0)
        lowest = float(finite.min())
        span = float(finite.max()) - lowest
        are_whole = not is_float or np.array_equal(finite, np.rint(finite))
        fits = are_whole and span <= _MAX_LEVEL
        step = 1.0 if fits or span == 0 else span / _MAX_LEVEL
        return cls(lowest_value=lowest, step=step, highest=span / step)

    def levels(self, values: np.ndarray) -> np.ndarray:
        levels = (values.astype(np.float64) - self.lowest_value) / self.step
        return np.rint(np.nan_to_num(levels, nan=0.0, posinf=self.highest, neginf=0.0))
