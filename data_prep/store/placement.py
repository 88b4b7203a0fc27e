"""The position of an image in the square image of a pixel store.

Pixel-store coordinates are px of the square image. Edges are continuous in both coordinate systems.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Frame = tuple[float, float, float, float]
"""Outer frame of a grid of cells: ``x1, y1, x2, y2``."""


def scaled_sides(width: int, height: int, size: int) -> tuple[int, int]:
    """Return width and height that an image has in its square, px.

    The longer side fills the square. The aspect ratio stays but for rounding to whole px.
    """
    scale = size / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass(frozen=True)
class Placement:
    """Position of an original image in its resized square, for the conversion of boxes.

    The image is scaled and put into a black square. A position in the square is the original
    position times the scale plus the offset, for x and y each.

    Attributes:
        scale_x: Pixels of the square for each pixel of the original, along x.
        scale_y: Pixels of the square for each pixel of the original, along y. It differs from
            `scale_x` only because sides are rounded to whole px.
        offset_x: Number of black columns to the left of the image, px of the square.
        offset_y: Number of black rows above the image, px of the square.

    Example:
        >>> placement = Placement(scale_x=0.5, scale_y=0.5, offset_x=0.0, offset_y=64.0)
        >>> placement.to_store(np.array([[100.0, 100.0, 300.0, 200.0]])).tolist()
        [[50.0, 114.0, 150.0, 164.0]]
    """

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    @classmethod
    def in_square(cls, width: int, height: int, size: int) -> Placement:
        """Return the position of an image in the middle of a square; all sides are in px.

        Example:
            >>> Placement.in_square(width=1024, height=512, size=256)
            Placement(scale_x=0.25, scale_y=0.25, offset_x=0.0, offset_y=64.0)
        """
        new_width, new_height = scaled_sides(width, height, size)
        return cls(
            scale_x=new_width / width,
            scale_y=new_height / height,
            offset_x=float((size - new_width) // 2),
            offset_y=float((size - new_height) // 2),
        )

    def to_store(self, boxes: np.ndarray) -> np.ndarray:
        """Convert boxes xyxy ``(N, 4)`` from px of the original to px of its square, float64."""
        return _as_boxes(boxes) * self._scales() + self._offsets()

    def to_original(self, boxes: np.ndarray, width: float, height: float) -> np.ndarray:
        """Convert boxes xyxy ``(N, 4)`` from px of the square to px of the original, and clip them.

        `width` and `height` are those of the original, px; the boxes become float64. A box in the
        black border gets a width or height of 0, and the caller must drop it.
        """
        limits = np.array([width, height, width, height], dtype=np.float64)
        return np.clip(self._to_original_unclipped(boxes), 0.0, limits)

    def frame_to_original(self, frame: Frame) -> Frame:
        """Convert the outer edges of an activation map from px of the square to px of the original.

        The edges x1, y1, x2, y2 are not clipped, because cells at the border may lie outside the
        image.

        Example:
            >>> Placement(0.5, 0.5, 0.0, 64.0).frame_to_original((0.0, 64.0, 128.0, 192.0))
            (0.0, 0.0, 256.0, 256.0)
        """
        x1, y1, x2, y2 = self._to_original_unclipped(np.array([frame]))[0].tolist()
        return x1, y1, x2, y2

    def _to_original_unclipped(self, boxes: np.ndarray) -> np.ndarray:
        return (_as_boxes(boxes) - self._offsets()) / self._scales()

    def _scales(self) -> np.ndarray:
        return np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])

    def _offsets(self) -> np.ndarray:
        return np.array([self.offset_x, self.offset_y, self.offset_x, self.offset_y])


def _as_boxes(boxes: np.ndarray) -> np.ndarray:
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), got {array.shape}")
    return array
