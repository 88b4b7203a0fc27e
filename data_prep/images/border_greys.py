"""Mean grey levels along the border of an image."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_BORDER_SHARE = 0.1  # width of the border as a share of the side
_PIECES_PER_SIDE = 4
N_PIECES = 4 * _PIECES_PER_SIDE
"""Pieces of the border."""


def border_greys(pixels: np.ndarray) -> str:
    """Return the mean grey levels of 16 pieces along the border of an image as a text.

    The text has two hexadecimal digits for each piece, in the order top, bottom, left, right. The
    border shows little of the lung. If its grey levels alone predict the label of chest X-rays, a
    model may use them as a shortcut.

    Source:
        Maguolo and Nanni, "A critic evaluation of methods for COVID-19 automatic detection from
        X-ray images", Information Fusion 76 (2021).

    Example:
        >>> border_greys(np.full((40, 40), 255, np.uint8)) == "ff" * 16
        True
    """
    border_rows, border_columns = (max(1, round(side * _BORDER_SHARE)) for side in pixels.shape)
    between = pixels[border_rows:-border_rows] if len(pixels) > 2 * border_rows else pixels
    greys = []
    for row in (pixels[:border_rows], pixels[-border_rows:]):
        greys += [mean_grey(row[:, start:end]) for start, end in _pieces(pixels.shape[1])]
    for side in (between[:, :border_columns], between[:, -border_columns:]):
        greys += [mean_grey(side[start:end]) for start, end in _pieces(len(between))]
    return bytes(int(grey + 0.5) for grey in greys).hex()


def mean_grey(pixels: np.ndarray) -> float:
    """Return the mean grey level of an image, which OpenCV computes faster than NumPy.

    Example:
        >>> mean_grey(np.array([[0, 10]], np.uint8))
        5.0
    """
    return float(cv2.sumElems(pixels)[0] / pixels.size)


def _pieces(length: int) -> list[tuple[int, int]]:
    """Return the ends of four pieces of equal length; those of a shorter strip overlap."""
    ends = np.linspace(0, length, _PIECES_PER_SIDE + 1).astype(int).tolist()
    return [(start, max(end, start + 1)) for start, end in pairwise(ends)]


def read_border_greys(column: pd.Series) -> np.ndarray:
    """Convert N texts from `border_greys` to grey levels, float32 ``(N, 16)``; NaN if unknown.

    A text of another length than 32 is a `ValueError`.

    Example:
        >>> import pandas as pd
        >>> read_border_greys(pd.Series(["00" * 8 + "ff" * 8, None]))[:, [0, 15]].tolist()
        [[0.0, 255.0], [nan, nan]]
    """
    # Imported here: processes that decode images start without pandas.
    from cxr_compare.data_prep.contracts.text import bytes_from_hex

    greys = np.full((len(column), N_PIECES), np.nan, np.float32)
    is_known = column.notna().to_numpy()
    texts = column[is_known]
    if (texts.str.len() != 2 * N_PIECES).any():
        raise ValueError(f"Expected {2 * N_PIECES} hexadecimal digits an image")
    greys[is_known] = bytes_from_hex(texts).reshape(-1, N_PIECES)
    return greys
