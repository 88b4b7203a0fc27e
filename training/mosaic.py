"""Mosaics: four training images in one square, with smaller lesions at other positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.store.preprocess import MIN_SIDE, MIN_VISIBLE

N_TILES = 4
_NEAREST_EDGE = 0.3  # smallest distance from the edges to the point where parts meet, as a share


class DroppedBoxes(NamedTuple):
    """Number of lesion boxes before images were changed at random, and of the boxes removed since.

    Attributes:
        n_boxes: Boxes before the change.
        outside: Too little of them remained in the image, or in the part of a mosaic that shows it.
        small: A side became shorter than 2 px.
        covered: A grey rectangle (cutout) hid most of them.
    """

    n_boxes: int = 0
    outside: int = 0
    small: int = 0
    covered: int = 0

    def plus(self, other: DroppedBoxes) -> DroppedBoxes:
        """Return the sums of these counts and other counts."""
        return DroppedBoxes(*(first + second for first, second in zip(self, other, strict=True)))

    @property
    def total(self) -> int:
        """Number of boxes that were dropped for any reason."""
        return sum(self[1:])

    def to_dict(self) -> dict[str, int]:
        """Return the counts by name. The key ``given`` is the number of boxes before the change.

        Example:
            >>> DroppedBoxes(3, outside=1).to_dict()
            {'given': 3, 'outside': 1, 'small': 0, 'covered': 0}
        """
        counts = self._asdict()
        return {"given": counts.pop("n_boxes"), **counts}

    def sentence(self) -> str:
        """Return a clause that says how many boxes were removed and why, for a message.

        Example:
            >>> DroppedBoxes(10, 1, 2).sentence()
            'dropped 3 of 10 boxes: out of the image 1, under 2 px 2'
        """
        if not self.total:
            return f"dropped none of {counted(self.n_boxes, 'box')}"
        reasons = zip(("out of the image", "under 2 px", "covered"), self[1:], strict=True)
        named = ", ".join(f"{reason} {count:,}" for reason, count in reasons if count)
        return f"dropped {self.total:,} of {counted(self.n_boxes, 'box')}: {named}"


NONE_DROPPED = DroppedBoxes()
"""Counts of an image without boxes."""


class Mosaic(NamedTuple):
    """A square training image that joins parts of four images, with their boxes.

    `boxes` are those that remain of the four images, one image after the other, float32 (M, 4) xyxy
    in px of `pixels`, uint8 (S, S). `kept` has for each image their row numbers in the input,
    int64, ascending.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    kept: list[np.ndarray]
    dropped: DroppedBoxes


def join_mosaic(
    images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], seed: int | Sequence[int]
) -> Mosaic:
    """Join four images at a random point. Each image is shrunk until it fills its part.

    The point is at 30 to 70 % of each side. Each image is shrunk to a square as large as the longer
    side of its part. The area of that square next to the point is shown, and boxes are clipped to
    it. A box is dropped if less than 30 % of its area or less than 2 px of a side is left.

    The images are upper left, upper right, lower left and lower right, uint8 ``(S, S)`` of one
    size; others raise InputError. Boxes are ``xyxy`` in px, ``(N, 4)`` for each image.

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
    for position, (image, image_boxes) in enumerate(zip(images, boxes, strict=True)):
        left = position % 2 == 0
        top = position < 2
        tile = (0 if left else x, 0 if top else y, x if left else size, y if top else size)
        side = max(tile[2] - tile[0], tile[3] - tile[1])
        x0 = x - side if left else x
        y0 = y - side if top else y
        shrunk = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        pixels[tile[1] : tile[3], tile[0] : tile[2]] = shrunk[
            tile[1] - y0 : tile[3] - y0, tile[0] - x0 : tile[2] - x0
        ]
        shown, rows, missing = cut_boxes(image_boxes * (side / size) + [x0, y0, x0, y0], tile)
        moved.append(shown)
        kept.append(rows)
        dropped = dropped.plus(missing)
    return Mosaic(pixels, np.concatenate(moved).astype(np.float32), kept, dropped)


class CutBoxes(NamedTuple):
    """Boxes that were clipped to a part of an image, with the numbers of removed boxes.

    `boxes` are those that remain, (M, 4) xyxy in px of the image, and `rows` their row numbers in
    the input, int64 (M,).
    """

    boxes: np.ndarray
    rows: np.ndarray
    dropped: DroppedBoxes


def cut_boxes(boxes: np.ndarray, tile: tuple[int, int, int, int]) -> CutBoxes:
    """Clip boxes (N, 4) xyxy, px, to a part of an image with the edges x1, y1, x2, y2, px.

    A box is removed if less than 30 % of its area or less than 2 px of a side is left.
    """
    cut = np.minimum(np.maximum(boxes, [*tile[:2]] * 2), [*tile[2:]] * 2)
    sides = cut[:, 2:] - cut[:, :2]
    whole = boxes[:, 2:] - boxes[:, :2]
    visible = sides[:, 0] * sides[:, 1] >= MIN_VISIBLE * whole[:, 0] * whole[:, 1]
    rows = np.flatnonzero(visible & (sides.min(axis=1) >= MIN_SIDE))
    inside = int(np.count_nonzero(visible))
    return CutBoxes(
        cut[rows], rows, DroppedBoxes(len(boxes), len(boxes) - inside, inside - len(rows))
    )
