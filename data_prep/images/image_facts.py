"""What is measured on every decoded image, for the audit: columns of the decode table."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from data_prep.images.burned_in_text import TEXT_LINE_CHARACTERS, find_text_line
from data_prep.images.fingerprint import perceptual_hash

if TYPE_CHECKING:
    import pandas as pd


TEXT_PLACE = ("text_x1", "text_y1", "text_x2", "text_y2")
"""Columns of the decode table that say where a suspected line of text is, px of the original."""
SHARE = 0.1
_PIECES_A_SIDE = 4
N_PIECES = 4 * _PIECES_A_SIDE


def _border_greys(pixels: np.ndarray) -> str:
    """Mean greys around an image: what is seen of it where little lung lies.

    That much often tells a label is known of chest X-rays (Maguolo and Nanni, A critic evaluation
    of methods for COVID-19 automatic detection from X-ray images, 2021).

    Example:
        >>> image = np.zeros((20, 20), np.uint8)
        >>> image[:2, :5] = 255  # a mark in the corner
        >>> _border_greys(image)
        'ff000000000000000000000000000000'
    """
    rows, columns = (max(1, round(side * SHARE)) for side in pixels.shape)
    between = pixels[rows:-rows] if len(pixels) > 2 * rows else pixels
    across, along = _pieces(pixels.shape[1]), _pieces(len(between))
    greys = [_mean(row[:, a:b]) for row in (pixels[:rows], pixels[-rows:]) for a, b in across]
    sides = (between[:, :columns], between[:, -columns:])
    greys += [_mean(side[a:b]) for side in sides for a, b in along]
    return bytes(int(grey + 0.5) for grey in greys).hex()


def _mean(pixels: np.ndarray) -> float:
    """Mean grey; OpenCV sums bytes several times as fast as NumPy."""
    return float(cv2.sumElems(pixels)[0] / pixels.size)


def _pieces(length: int) -> list[tuple[int, int]]:
    """Four stretches of one length; of a strip shorter than four they overlap."""
    ends = np.linspace(0, length, _PIECES_A_SIDE + 1).astype(int).tolist()
    return [(start, max(end, start + 1)) for start, end in pairwise(ends)]


def read_border_greys(column: pd.Series) -> np.ndarray:
    """The greys of many images as numbers.

    Args:
        column: As from `_border_greys`; missing where an image was not measured.

    Returns:
        float32, shape ``(N, 16)``, 0 to 255; NaN where missing.

    Raises:
        ValueError: One is not 32 hexadecimal digits.

    Example:
        >>> import pandas as pd
        >>> read_border_greys(pd.Series(["ff" * 16, None]))[:, 0].tolist()
        [255.0, nan]
    """
    greys = np.full((len(column), N_PIECES), np.nan, np.float32)
    known = column.notna().to_numpy()
    texts = column[known]
    if (texts.str.len() != 2 * N_PIECES).any():
        raise ValueError(f"Expected {2 * N_PIECES} hexadecimal digits an image")
    greys[known] = np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, N_PIECES)
    return greys


def image_facts(pixels: np.ndarray) -> dict[str, Any]:
    """Measure an image once, where it is decoded.

    Args:
        pixels: uint8, shape ``(H, W)``.

    Returns:
        ``mean_grey``, 0 to 255; ``perceptual_hash``, by which the audit finds copies;
        ``text_score``, characters in the longest line of burned-in text, and where it is worth a
        look its place, ``text_x1, text_y1, text_x2, text_y2`` in px; ``border_greys``, mean greys
        of the outer tenth.

    Example:
        >>> image_facts(np.full((2, 2), 7, np.uint8))["mean_grey"]
        7.0
    """
    line = find_text_line(pixels)
    is_suspect = line.characters >= TEXT_LINE_CHARACTERS
    place = line.box if is_suspect and line.box is not None else (None,) * 4
    return {
        "mean_grey": _mean(pixels),
        "perceptual_hash": perceptual_hash(pixels),
        "text_score": line.characters,
        **dict(zip(TEXT_PLACE, place, strict=True)),
        "border_greys": _border_greys(pixels),
    }
