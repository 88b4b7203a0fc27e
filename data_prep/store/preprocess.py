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
from cxr_compare.data_prep.store.placement import Placement

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

    Args:
        pixels: Grey levels, uint8, shape ``(H, W)``.
        size: Side of the square, px.

    Returns:
        The square, uint8, shape ``(size, size)``, and the position of the image in it.

    Raises:
        ValueError: The pixels have another type or shape.

    Example:
        >>> square, placement = letterbox(np.full((2, 4), 9, np.uint8), 4)
        >>> square[:, 0].tolist(), placement.offset_y
        ([0, 9, 9, 0], 1.0)
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(f"pixels must be uint8 (H, W), got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape
    resized = _resize(pixels, size)
    new_height, new_width = resized.shape
    left = (size - new_width) // 2
    top = (size - new_height) // 2
    square = np.zeros((size, size), dtype=np.uint8)
    square[top : top + new_height, left : left + new_width] = resized
    placement = Placement(
        scale_x=new_width / width,
        scale_y=new_height / height,
        offset_x=float(left),
        offset_y=float(top),
    )
    return square, placement


def _resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bring the longer side to a size; the aspect ratio stays but for rounding to whole px."""
    height, width = pixels.shape
    scale = size / max(height, width)
    new_width = max(1, round(width * scale))
    new_height = max(1, round(height * scale))
    if (new_height, new_width) == (height, width):
        return pixels
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(pixels, (new_width, new_height), interpolation=method)


def _allowed_size(size: int) -> int:
    store_spec(size)  # refuses a size that no image may have
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
        >>> preprocess.spec
        'letterbox-256'
        >>> preprocess.normalise(np.array([0, 255], np.uint8)).tolist()
        [-2.0, 2.0]
    """

    size: Annotated[Whole, AfterValidator(_allowed_size)]
    mean: float
    std: Annotated[float, Field(gt=0)]

    @property
    def spec(self) -> str:
        """Name of the folder with a data set's images as squares of this side.

        It is ``letterbox-512`` for a side of 512 px.
        """
        return store_spec(self.size)

    def normalise(self, images: Pixels) -> Pixels:
        """Convert grey levels to the input of the model: ``(x / 255 - mean) / std``.

        Args:
            images: Grey levels from 0 to 255, an array or a tensor of any shape.

        Returns:
            Normalised values in floating point, of the same shape.
        """
        if isinstance(images, np.ndarray):
            if not np.issubdtype(images.dtype, np.floating):
                images = images.astype(np.float32)  # type: ignore[assignment]
        elif not images.dtype.is_floating_point:
            images = images.float()
        return (images - 255.0 * self.mean) / (255.0 * self.std)


def store_spec(size: int) -> str:
    """Return the name of the folder with a data set's resized square images of one side.

    Args:
        size: Side of the resized square images, px, 16 to 4,096.

    Raises:
        InputError: The side is outside the allowed range.

    Example:
        >>> store_spec(512)
        'letterbox-512'
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"image size {size} px; choose {MIN_SIZE} to {MAX_SIZE}")
    return f"letterbox-{size}"
