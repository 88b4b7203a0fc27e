"""Views of a square image for test-time augmentation: mirrored, or at another scale."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError

_GRID_PX = 32  # the side of a view is a multiple of it, as networks with five halvings need
_MIN_SCALE = 0.5
_MAX_SCALE = 2.0


@dataclass(frozen=True)
class View:
    """A changed copy of a square image of side S, for test-time augmentation.

    The image is scaled to a whole number of px, mirrored if `flip` is True, and put into the middle
    of the smallest black square whose side is a multiple of 32 px. The whole image is therefore
    visible. A model whose anchors are in px sees lesions at another size.

    Attributes:
        flip: True if the image is mirrored left to right.
        scale: Factor by which the side of the image is scaled, such as 0.8; `content_size` rounds
            the scaled side to whole px.

    Example:
        >>> view = View(scale=0.8)
        >>> view.content_size(256), view.canvas_size(256)
        (205, 224)
        >>> view.boxes_to_image(np.array([[9.0, 9.0, 214.0, 214.0]]), 256).tolist()
        [[0.0, 0.0, 256.0, 256.0]]
    """

    flip: bool = False
    scale: float = 1.0

    @property
    def name(self) -> str:
        """Name of the view as users write it: ``flip``, ``scale0.8``; ``plain`` for no change."""
        if self.flip:
            return "flip"
        return "plain" if self.scale == 1.0 else f"scale{self.scale:g}"

    def content_size(self, size: int) -> int:
        """Return the side of the scaled image without its black border, px."""
        return round(size * self.scale)

    def canvas_size(self, size: int) -> int:
        """Return the side of the square that contains the scaled image, px."""
        if self.scale == 1.0:
            return size
        return -(-self.content_size(size) // _GRID_PX) * _GRID_PX

    def offset(self, size: int) -> int:
        """Return the number of black columns left of the scaled image, as of rows above it."""
        return (self.canvas_size(size) - self.content_size(size)) // 2

    def boxes_to_image(self, boxes: np.ndarray, size: int) -> np.ndarray:
        """Convert boxes from px of the view to px of the unscaled image, and clip them to it.

        Boxes are xyxy, shape ``(N, 4)``, and become float64; `size` is the side of the unscaled
        image, px.
        """
        scale = size / self.content_size(size)
        moved = (np.asarray(boxes, np.float64) - self.offset(size)) * scale
        if self.flip:
            x1, y1, x2, y2 = moved.T
            moved = np.stack([size - x2, y1, size - x1, y2], axis=1)
        return np.clip(moved, 0.0, float(size))


def parse_views(text: str) -> tuple[View, ...]:
    """Read the option ``--tta``, such as ``flip,scale0.8``, as views, the unchanged image first.

    An unknown name, a scale out of range and a repeated view are refused.

    Example:
        >>> [view.name for view in parse_views("flip, scale1.2")]
        ['plain', 'flip', 'scale1.2']
    """
    views = [View()]
    for name in (part.strip() for part in text.split(",")):
        number = re.fullmatch(r"scale(\d+(?:\.\d+)?)", name)
        if name != "flip" and number is None:
            raise InputError(f"--tta {text}: '{name}' is not a view; use flip, scale0.8, scale1.2")
        view = View(flip=True) if number is None else View(scale=float(number[1]))
        if not _MIN_SCALE <= view.scale <= _MAX_SCALE:
            raise InputError(
                f"--tta {text}: '{name}' is out of range; choose {_MIN_SCALE} to {_MAX_SCALE}"
            )
        if view in views:
            raise InputError(f"--tta {text}: '{name}' is there already; leave it out")
        views.append(view)
    return tuple(views)
