"""Conversion of colour images to grey."""

from __future__ import annotations

import cv2
import numpy as np

GREY_AS_COLOUR = "grey stored as colour"
"""Note about an image whose three channels are equal."""
_BLOCK_PIXELS = 1 << 15  # a block of pixels stays in the processor's cache
# Weights of red, green and blue in units of 1 / 65,536, and half a unit to round.
_LUMA = np.array([[19595, 38470, 7471, 32768]], np.float32)


def grey_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """Convert a colour image to grey (luma), as Pillow does. Equal channels keep their values.

    Args:
        rgb: Red, green and blue, uint8, shape ``(H, W, 3)``.

    Returns:
        Grey levels, uint8, shape ``(H, W)``.

    Source:
        ITU-R BT.601.

    Example:
        >>> grey_from_rgb(np.array([[[10, 10, 10], [255, 0, 0]]], np.uint8)).tolist()
        [[10, 76]]
    """
    grey = np.empty(rgb.shape[:2], np.uint8)
    rows = max(1, _BLOCK_PIXELS // rgb.shape[1])
    for start in range(0, len(rgb), rows):
        # Whole numbers below 2^24, which float32 holds exactly; the cast cuts the fraction off.
        sums = cv2.transform(rgb[start : start + rows].astype(np.float32), _LUMA)
        grey[start : start + rows] = sums * np.float32(1 / 65536)
    return grey


def colour_note(rgb: np.ndarray) -> str:
    """Return a phrase that says whether an image with three channels has any colour.

    Args:
        rgb: Red, green and blue, uint8, shape ``(H, W, 3)``.

    Returns:
        "grey stored as colour" if the three channels are equal, else a phrase on the colour.

    Example:
        >>> colour_note(np.zeros((2, 2, 3), np.uint8))
        'grey stored as colour'
    """
    red = rgb[..., 0]
    green = rgb[..., 1]
    blue = rgb[..., 2]
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return GREY_AS_COLOUR
    return "colour turned to grey"
