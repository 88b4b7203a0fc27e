"""Four training images in one square: lesions at half their size, in places of all kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.store.preprocess import MIN_SIDE, MIN_VISIBLE

N_TILES = 4
_NEAREST_EDGE = 0.3  # of the side: the parts meet at least so far from each edge


class DroppedBoxes(NamedTuple):
    """Boxes that were given to an augmentation, and those of them that did not come back."""

    given: int = 0  # boxes that went in
    outside: int = 0  # too little of them was left in the image, or in their part of a mosaic
    small: int = 0  # a side became shorter than 2 px
    covered: int = 0  # a cutout hid most of them

    def plus(self, other: DroppedBoxes) -> DroppedBoxes:
        """Both together."""
        return DroppedBoxes(*(own + its for own, its in zip(self, other, strict=True)))

    @property
    def total(self) -> int:
        """Boxes that were dropped, for whatever reason."""
        return sum(self[1:])

    def sentence(self) -> str:
        """The counts in words."""
        if not self.total:
            return f"dropped none of {counted(self.given, 'box')}"
        reasons = zip(("out of the image", "under 2 px", "covered"), self[1:], strict=True)
        named = ", ".join(f"{reason} {count:,}" for reason, count in reasons if count)
        return f"dropped {self.total:,} of {counted(self.given, 'box')}: {named}"


NONE_DROPPED = DroppedBoxes()
"""Where there was nothing to drop."""


class _Mosaic(NamedTuple):
    """A joined image."""

    pixels: np.ndarray  # uint8 `(S, S)`
    boxes: np.ndarray  # `xyxy`, px of `pixels`, float32, `(M, 4)`
    # per part, the rows of its boxes that are left, int64, ascending; `boxes` holds them part by
    # part
    kept: list[np.ndarray]
    dropped: DroppedBoxes


def join_mosaic(
    images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], seed: int | Sequence[int]
) -> _Mosaic:
    """Join four images at a random point; each is shrunk until it fills its part.

    The images, uint8 ``(S, S)`` of one size, go to the upper left, upper right, lower left and
    lower right; their boxes are ``xyxy``, px, ``(N, 4)``. The seed decides the point alone, which
    lies 30 to 70 % along each side. A part that is not square shows the half of its image that lies
    there, and boxes are cut to what it shows. A box is dropped where under 30 % of its area or
    under 2 px of a side are left.

    Source:
        Bochkovskiy, Wang and Liao 2020, YOLOv4.
    """
    shapes = {image.shape for image in images}
    size = images[0].shape[0] if images else 0
    if len(images) != N_TILES or shapes != {(size, size)}:
        raise InputError(f"mosaic: needs {N_TILES} squares of one size, got shapes {shapes}")
    near = round(_NEAREST_EDGE * size)
    x, y = (int(at) for at in np.random.default_rng(seed).integers(near, size - near + 1, size=2))
    pixels = np.zeros((size, size), np.uint8)
    moved = []
    kept = []
    dropped = DroppedBoxes()
    for place, (image, own) in enumerate(zip(images, boxes, strict=True)):
        left = place % 2 == 0
        top = place < 2
        tile = (0 if left else x, 0 if top else y, x if left else size, y if top else size)
        side = max(tile[2] - tile[0], tile[3] - tile[1])
        x0 = x - side if left else x
        y0 = y - side if top else y
        shrunk = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        pixels[tile[1] : tile[3], tile[0] : tile[2]] = shrunk[
            tile[1] - y0 : tile[3] - y0, tile[0] - x0 : tile[2] - x0
        ]
        shown, rows, missing = cut_boxes(own * (side / size) + [x0, y0, x0, y0], tile)
        moved.append(shown)
        kept.append(rows)
        dropped = dropped.plus(missing)
    return _Mosaic(pixels, np.concatenate(moved).astype(np.float32), kept, dropped)


def cut_boxes(
    boxes: np.ndarray, tile: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray, DroppedBoxes]:
    """Boxes cut to a part of the square, their rows, and what was dropped."""
    cut = np.minimum(np.maximum(boxes, [*tile[:2]] * 2), [*tile[2:]] * 2)
    sides = cut[:, 2:] - cut[:, :2]
    whole = boxes[:, 2:] - boxes[:, :2]
    visible = sides[:, 0] * sides[:, 1] >= MIN_VISIBLE * whole[:, 0] * whole[:, 1]
    rows = np.flatnonzero(visible & (sides.min(axis=1) >= MIN_SIDE))
    inside = int(np.count_nonzero(visible))
    return cut[rows], rows, DroppedBoxes(len(boxes), len(boxes) - inside, inside - len(rows))
