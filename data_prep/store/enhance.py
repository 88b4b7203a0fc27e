"""Contrast enhancement of a picture at a model's size: fixed rules, no reference pictures."""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal

import cv2
import numpy as np

Enhancement = Literal["none", "clahe", "histogram"]

CLAHE_CLIP, CLAHE_TILES = 2.0, (8, 8)
"""Contrast limit (times the mean of a tile's histogram) and tiles across and down."""
REFERENCE_MEAN, REFERENCE_SPREAD = 127.5, 51.0
"""Of the normal distribution of grey levels that `match_reference` brings pictures to."""

_BLACK, _WHITE = 8, 247  # levels beyond: padding, air and lead letters, which say nothing of tissue
_LEAST_RANGE = 16  # levels: a picture with fewer is blank, and matching would show its noise
_LEAST_SHARE = 0.01  # of the pixels that must be tissue
_REFERENCE = np.array([NormalDist(REFERENCE_MEAN, REFERENCE_SPREAD).cdf(x) for x in range(256)])


def enhance(pixels: np.ndarray, how: Enhancement) -> np.ndarray:
    """Enhance a picture.

    Args:
        pixels: uint8, shape ``(H, W)``, without the black border of its square: a border would
            count in every histogram.
        how: ``none``, ``clahe`` (`equalise_locally`) or ``histogram`` (`match_reference`).

    Returns:
        uint8, shape ``(H, W)``.
    """
    if how == "clahe":
        return equalise_locally(pixels)
    return match_reference(pixels) if how == "histogram" else pixels


def equalise_locally(pixels: np.ndarray) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (CLAHE), clip 2.0, 8 x 8 tiles.

    Args:
        pixels: uint8, shape ``(H, W)``.

    Returns:
        uint8, shape ``(H, W)``.

    Source:
        Zuiderveld 1994, Contrast limited adaptive histogram equalization, Graphics Gems IV.

    Example:
        >>> ramp = np.tile(np.arange(100, 132, dtype=np.uint8), (32, 1))
        >>> bool(np.ptp(equalise_locally(ramp)) > np.ptp(ramp))
        True
    """
    if min(pixels.shape) < CLAHE_TILES[0]:  # no tile would have a pixel
        return pixels
    return cv2.createCLAHE(CLAHE_CLIP, CLAHE_TILES).apply(pixels)


def match_reference(pixels: np.ndarray) -> np.ndarray:
    """Bring the grey levels of a picture to one distribution: normal, mean 127.5, spread 51.

    Two sites that map the same exposure to greys by different curves give the same picture.
    A stretch between percentiles undoes another window but not another curve: over six public
    sets it takes the spread of the sets' mean greys from 9 levels to 7, this takes it to 3. A flat
    distribution (plain equalisation) does as much, but pulls apart the commonest greys, which
    are soft tissue and its noise. What every matching loses is how white a chest is as a whole.

    Args:
        pixels: uint8, shape ``(H, W)``. Levels near black and white do not count.

    Returns:
        uint8, shape ``(H, W)``; darker stays darker. A blank picture comes back as it is.

    Example:
        >>> grey = np.random.default_rng(0).gamma(2.0, 20.0, (64, 64)).clip(0, 255)
        >>> grey = grey.astype(np.uint8)
        >>> round(grey.mean()), round(match_reference(grey).mean())
        (40, 120)
    """
    counts = np.bincount(pixels.ravel(), minlength=256).astype(np.float64)
    counts[:_BLACK], counts[_WHITE + 1 :] = 0, 0
    total, seen = counts.sum(), np.flatnonzero(counts)
    if total < _LEAST_SHARE * pixels.size or seen[-1] - seen[0] < _LEAST_RANGE:
        return pixels
    rank = (counts.cumsum() - counts / 2) / total  # of the middle of each level
    table = np.interp(rank, _REFERENCE, np.arange(256.0))
    table[:_BLACK], table[_WHITE + 1 :] = 0, 255
    return np.round(table).astype(np.uint8)[pixels]
