"""Where a picture lies in the square that a model reads, and how boxes move with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_VISIBLE = 0.3
"""A box is dropped where less than this share of its area stays inside the picture."""
MIN_SIDE = 2.0
"""A box is dropped where augmentation makes a side shorter than this, in px."""


@dataclass(frozen=True)
class Placement:
    """Where a picture lies in its square: store = original x scale + offset, edges continuous.

    Attributes:
        scale_x: Store pixels per original pixel along x.
        scale_y: The same along y; differs from `scale_x` by the rounding to whole pixels only.
        offset_x: Black columns to the left, in store pixels; below 0 where a crop begins
            right of the original's edge.
        offset_y: Black rows above, in store pixels; likewise.

    Example:
        >>> placement = Placement(scale_x=0.5, scale_y=0.5, offset_x=0.0, offset_y=64.0)
        >>> placement.to_store(np.array([[100.0, 100.0, 300.0, 200.0]])).tolist()
        [[50.0, 114.0, 150.0, 164.0]]
    """

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def to_store(self, boxes: np.ndarray) -> np.ndarray:
        """Move boxes from the original into the square.

        Args:
            boxes: ``xyxy``, original px, shape ``(N, 4)``.

        Returns:
            ``xyxy``, store px, float64, shape ``(N, 4)``; what a crop cuts off lies outside of
            the square, see `clip_to_square`.
        """
        return _as_boxes(boxes) * self._scales() + self._offsets()

    def to_original(self, boxes: np.ndarray, width: float, height: float) -> np.ndarray:
        """Move boxes from the square back into the original, and clip them to it.

        Args:
            boxes: ``xyxy``, store px, shape ``(N, 4)``.
            width: Width of the original, in px.
            height: Height of the original, in px.

        Returns:
            ``xyxy``, original px, float64, shape ``(N, 4)``, within the picture. A box that lay
            in the black border has no width or no height left; dropping it is the caller's.
        """
        moved = (_as_boxes(boxes) - self._offsets()) / self._scales()
        return np.clip(moved, 0.0, np.array([width, height, width, height], dtype=np.float64))

    def _scales(self) -> np.ndarray:
        return np.array([self.scale_x, self.scale_y] * 2)

    def _offsets(self) -> np.ndarray:
        return np.array([self.offset_x, self.offset_y] * 2)


def _as_boxes(boxes: np.ndarray) -> np.ndarray:
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), got {array.shape}")
    return array


def clip_to_square(boxes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes to the part that a square shows.

    Args:
        boxes: ``xyxy``, store px, shape ``(N, 4)``, with an area.
        size: Side of the square, px.

    Returns:
        The boxes within the square, float64, shape ``(N, 4)``, and the share of each one's area
        that is left, shape ``(N,)``: 1 for all of them unless the picture was cropped.

    Example:
        >>> clipped, share = clip_to_square(np.array([[-10.0, 0.0, 30.0, 8.0]]), 64)
        >>> clipped.tolist(), share.tolist()
        ([[0.0, 0.0, 30.0, 8.0]], [0.75])
    """
    given = _as_boxes(boxes)
    clipped = np.clip(given, 0.0, float(size))
    return clipped, np.prod(clipped[:, 2:] - clipped[:, :2], axis=1) / np.prod(
        given[:, 2:] - given[:, :2], axis=1
    )
