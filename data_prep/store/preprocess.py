"""Preprocessing of images for a model: letterboxing to a square, and normalisation.

No other module resizes or normalises images.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import cv2
import numpy as np
from pydantic import AfterValidator, Field

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import Record, Whole
from cxr_compare.data_prep.store.placement import Placement, scaled_sides

Pixels = TypeVar("Pixels", bound=Any)

MIN_VISIBLE = 0.3
"""Share of a box's area that must stay inside the image after augmentation; else it is dropped."""
MIN_SIDE = 2.0
"""Side that a box must have after augmentation, px; a box with a shorter one is dropped."""
MIN_SIZE = 16
"""Smallest side of the square that images may be brought to, px."""
MAX_SIZE = 4096
"""Largest side of the square that images may be brought to, px."""


def letterbox(pixels: np.ndarray, size: int) -> tuple[np.ndarray, Placement]:
    """Scale an image into the middle of a black square, without changing its aspect ratio.

    The image is uint8 ``(H, W)``, else a `ValueError`. Returned are the square, uint8 ``(size,
    size)``, and the position of the image in it.

    Example:
        >>> square, placement = letterbox(np.full((2, 4), 9, np.uint8), 4)
        >>> square[:, 0].tolist(), placement.offset_y
        ([0, 9, 9, 0], 1.0)
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(f"pixels must be uint8 (H, W), got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape
    resized = _resize(pixels, scaled_sides(width, height, size))
    placement = Placement.in_square(width, height, size)
    left = int(placement.offset_x)
    top = int(placement.offset_y)
    new_height, new_width = resized.shape
    square = np.zeros((size, size), dtype=np.uint8)
    square[top : top + new_height, left : left + new_width] = resized
    return square, placement


def _resize(pixels: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Scale an image to a width and height; an image that has them stays as it is."""
    height, width = pixels.shape
    if sides == (width, height):
        return pixels
    method = cv2.INTER_AREA if max(sides) < max(width, height) else cv2.INTER_LINEAR
    return cv2.resize(pixels, sides, interpolation=method)


def _allowed_size(size: int) -> int:
    require_size(size)
    return size


class Preprocess(Record, kind="preprocess"):
    """Side and normalisation of the square image that a model takes as input.

    The file ``preprocess.json`` of a trained model stores them.

    Attributes:
        size: Side of the square input, px, 16 to 4,096.
        mean: Mean that is subtracted from the pixels, which are scaled to 0 to 1.
        std: Standard deviation by which the pixels are then divided, on the same scale, above 0.

    Example:
        >>> preprocess = Preprocess(size=256, mean=0.5, std=0.25)
        >>> preprocess.normalise(np.array([0, 255], np.uint8)).tolist()
        [-2.0, 2.0]
    """

    size: Annotated[Whole, AfterValidator(_allowed_size)]
    mean: float
    std: Annotated[float, Field(gt=0)]

    def normalise(self, images: Pixels) -> Pixels:
        """Convert grey levels from 0 to 255 to the input of the model: ``(x / 255 - mean) / std``.

        The images are an array or a tensor of any shape; the values become floating point.
        """
        if isinstance(images, np.ndarray):
            if not np.issubdtype(images.dtype, np.floating):
                images = images.astype(np.float32)  # type: ignore[assignment]
        elif not images.dtype.is_floating_point:
            images = images.float()
        return (images - 255.0 * self.mean) / (255.0 * self.std)


def require_size(size: int) -> None:
    """Refuse a side of a square image that is not 16 to 4,096 px."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"image size {size} px; choose {MIN_SIZE} to {MAX_SIZE}")
