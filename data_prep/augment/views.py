"""Views of a square image for test-time augmentation: mirrored, smaller or larger; and back."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from data_prep.contracts.errors import InputError

_GRID = 32
"""A view's side is a multiple of this, px: what networks of five halvings want."""
_SCALES = (0.5, 2.0)


@dataclass(frozen=True)
class View:
    """One way to look at a square image of side S.

    The image is scaled to a whole number of px, mirrored if asked, and laid into the middle of
    the smallest black square whose side is a multiple of 32 px, so nothing of it is lost. A model
    whose anchors are px sees lesions at another size.

    Example:
        >>> view = View(scale=0.8)
        >>> view.content(256), view.canvas(256)
        (205, 224)
        >>> view.boxes_back(np.array([[9.0, 9.0, 214.0, 214.0]]), 256).tolist()
        [[0.0, 0.0, 256.0, 256.0]]
    """

    flip: bool = False  # mirrored left to right
    scale: float = 1.0  # asked for; `content` says what whole pixels make of it

    @property
    def name(self) -> str:
        """As a user writes it; ``plain`` for the image as it is."""
        return "flip" if self.flip else "plain" if self.scale == 1.0 else f"scale{self.scale:g}"

    def content(self, size: int) -> int:
        """Side of the scaled image, px."""
        return round(size * self.scale)

    def canvas(self, size: int) -> int:
        """Side of the square that it is laid into, px."""
        return size if self.scale == 1.0 else -(-self.content(size) // _GRID) * _GRID

    def offset(self, size: int) -> int:
        """Black columns to the left, and rows above, px."""
        return (self.canvas(size) - self.content(size)) // 2

    def boxes_back(self, boxes: np.ndarray, size: int) -> np.ndarray:
        """Move boxes from the view to the image, and clip them to it."""
        moved = (np.asarray(boxes, np.float64) - self.offset(size)) * (size / self.content(size))
        if self.flip:
            moved = np.stack([size - moved[:, 2], moved[:, 1], size - moved[:, 0], moved[:, 3]], 1)
        return np.clip(moved, 0.0, float(size))


def parse_views(text: str) -> tuple[View, ...]:
    """Read what a user asks for; the plain view always comes first."""
    views = [View()]
    for word in (part.strip() for part in text.split(",")):
        number = re.fullmatch(r"scale(\d+(?:\.\d+)?)", word)
        if word != "flip" and number is None:
            raise InputError(f"--tta {text}: '{word}' is not a view; use flip, scale0.8, scale1.2")
        view = View(flip=True) if number is None else View(scale=float(number[1]))
        if not _SCALES[0] <= view.scale <= _SCALES[1]:
            low, high = _SCALES
            raise InputError(f"--tta {text}: '{word}' is out of range; choose {low} to {high}")
        if view in views:
            raise InputError(f"--tta {text}: '{word}' is there already; leave it out")
        views.append(view)
    return tuple(views)
