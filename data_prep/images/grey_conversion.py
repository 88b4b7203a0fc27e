"""Conversion of colour images to grey."""

from __future__ import annotations

import numpy as np
from PIL import Image

GREY_AS_COLOUR = "grey stored as colour"
"""Note about an image whose three channels are equal."""


def grey_from_rgb(rgb: np.ndarray) -> np.ndarray:
    """Convert a colour image to grey (luma of ITU-R BT.601), as Pillow does.

    Args:
        rgb: Red, green and blue, uint8, shape ``(H, W, 3)``.

    Returns:
        Grey levels, uint8, shape ``(H, W)``.

    Example:
        >>> grey_from_rgb(np.array([[[10, 10, 10], [255, 0, 0]]], np.uint8)).tolist()
        [[10, 76]]
    """
    return np.array(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))


def colour_note(rgb: np.ndarray) -> str:
    """Return a phrase that says whether an image with three channels has any colour.

    Args:
        rgb: Red, green and blue, shape ``(H, W, C)`` with C of at least 3.

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
