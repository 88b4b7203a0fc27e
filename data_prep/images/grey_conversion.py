"""Conversion of colour images to grey."""

from __future__ import annotations

import numpy as np
from PIL import Image

GREY_AS_COLOUR = "grey stored as colour"
"""Note about an image whose three channels are equal."""


def grey_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """Convert a colour image, uint8 ``(H, W, 3)``, to grey (luma of ITU-R BT.601), as Pillow does.

    Example:
        >>> grey_from_rgb(np.array([[[10, 10, 10], [255, 0, 0]]], np.uint8)).tolist()
        [[10, 76]]
    """
    return np.array(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))


def colour_note(rgb: np.ndarray) -> str:
    """Return a phrase that says whether an image with three channels ``(H, W, C)`` has any colour.

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
