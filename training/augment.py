"""Random changes of a training image and its boxes. The same seed gives the same result.

This is the only module that imports albumentations. The import takes 1.7 s, so modules that read
pixels must not import this one.
"""

from __future__ import annotations

import copy
import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

os.environ["NO_ALBUMENTATIONS_UPDATE"] = (
    "1"  # set before the import, which otherwise uses the network
)

import albumentations
import cv2
import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.own_parts import own_function, part_name, problem_of
from cxr_compare.data_prep.store.preprocess import MIN_VISIBLE
from cxr_compare.training.mosaic import DroppedBoxes, cut_boxes

_HOLE_GREY = 114  # a model with the normalisation of ImageNet sees this as 0
_CONTRAST = albumentations.RandomBrightnessContrast(p=1.0)


class AugmentedImage(NamedTuple):
    """An image after random changes for training, with its boxes.

    `boxes` are those that remain, float32 (M, 4) xyxy in px, clipped to the image, and `kept` are
    their rows in the input, int64 (M,), ascending. `pixels` are uint8 (H, W).
    """

    pixels: np.ndarray
    boxes: np.ndarray
    kept: np.ndarray
    dropped: DroppedBoxes


class Move(NamedTuple):
    """A random movement of an image: it is mirrored, then scaled, turned and shifted.

    The centre of the image is the fixed point of mirroring, scaling and turning. Degrees are
    counter-clockwise; shifts are in px to the right and downwards.
    """

    mirrored: bool
    scale_x: float
    scale_y: float
    degrees: float
    shift_x: int
    shift_y: int

    def matrix(self, x: float, y: float) -> np.ndarray:
        """Return the matrix, float64 `(2, 3)`, from old to new px, for the centre of an image."""
        cos = math.cos(math.radians(self.degrees))
        sin = math.sin(math.radians(self.degrees))
        scale_x = -self.scale_x if self.mirrored else self.scale_x
        scale_y = self.scale_y
        xx = cos * scale_x
        xy = sin * scale_y
        yx = -sin * scale_x
        yy = cos * scale_y
        to_x = x + self.shift_x
        to_y = y + self.shift_y
        return np.array([[xx, xy, to_x - xx * x - xy * y], [yx, yy, to_y - yx * x - yy * y]])

    def pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Apply this movement to an image, uint8 (H, W). Areas from outside it become black."""
        height, width = pixels.shape
        matrix = self.matrix((width - 1) / 2, (height - 1) / 2)  # centres of pixels
        # A warp reads across rows, which is slow unless they are in a cache: copy them first.
        return cv2.warpAffine(pixels.copy(), matrix, (width, height), flags=cv2.INTER_LINEAR)

    def boxes(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Apply this movement to boxes (N, 4) xyxy, px, of an image of some width and height, px.

        A lesion fills an ellipse rather than the corners of its box. The new box therefore encloses
        the moved ellipse, not the moved corners. It may reach outside the image.
        """
        matrix = self.matrix(width / 2, height / 2)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        radii = (boxes[:, 2:] - boxes[:, :2]) / 2
        centres = centres @ matrix[:, :2].T + matrix[:, 2]
        radii = np.sqrt(radii**2 @ matrix[:, :2].T ** 2)
        return np.hstack([centres - radii, centres + radii])


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images and their boxes; `build_augmentation` makes it.

    Several threads may use one object.

    Attributes:
        rotate_degrees: Largest rotation to either side, in degrees.
        scale: Largest relative change of size, such as 0.25 for factors from 0.75 to 1.25.
        shift: Largest shift to each side, as a share of the image's side.
        horizontal_flip: Probability that an image is mirrored left to right, in [0, 1].
        stretch: True if the factors of width and height are drawn independently.
        brightness: Largest change of brightness to either side, as a share of the grey range.
        contrast: Largest relative change of contrast to either side.
        others: Further changes of the grey values, such as blur and noise, applied in this order.
        holes: Cutout: a change that covers parts of the image with grey rectangles.
        function: Function of the user's own, from grey values, uint8 (H, W), and a random generator
            of NumPy to new grey values.

    Example:
        >>> augmentation = build_augmentation(horizontal_flip=1.0)
        >>> pixels = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
        >>> augmentation.apply(pixels, np.array([[0.0, 0.0, 16.0, 16.0]]), seed=0).boxes.tolist()
        [[48.0, 0.0, 64.0, 16.0]]
    """

    rotate_degrees: float
    scale: float
    shift: float
    horizontal_flip: float
    stretch: bool
    brightness: float
    contrast: float
    others: tuple[albumentations.BasicTransform, ...]
    holes: albumentations.CoarseDropout | None
    function: Callable[[np.ndarray, np.random.Generator], Any] | None = None

    def apply(self, pixels: np.ndarray, boxes: np.ndarray | None, seed: int) -> AugmentedImage:
        """Change an image, uint8 (H, W), and its boxes (N, 4) xyxy, px, at random by a seed.

        A box is removed if less than 30 % of its area stays in the image and uncovered, or if less
        than 2 px of a side stay.
        """
        height, width = pixels.shape
        corners = np.zeros((0, 4)) if boxes is None else np.asarray(boxes, dtype=np.float64)
        if corners.size == 0:
            corners = corners.reshape(0, 4)
        if corners.ndim != 2 or corners.shape[1] != 4:
            raise ValueError(f"boxes must have shape (N, 4), got {corners.shape}")
        rng = random.Random(seed)  # noqa: S311  no secret; seeded faster than numpy's
        move = self.draw_move(rng, width, height)
        kept = np.arange(len(corners))
        dropped = DroppedBoxes(len(corners))
        if len(corners):
            corners = np.clip(corners, 0, [width, height, width, height])
            corners = move.boxes(corners, width, height) if move else corners
            corners, kept, dropped = cut_boxes(corners, (0, 0, width, height))
        if move:
            pixels = move.pixels(pixels)
        if self.brightness or self.contrast:
            pixels = _CONTRAST.apply(pixels, *self.draw_greys(rng))
        for step in self.others:
            pixels = _apply(step, rng, image=pixels)["image"]
        if self.function is not None:
            pixels = _own_change(self.function, pixels, rng)
        if self.holes is not None:
            pixels, visible = _cut_holes(self.holes, rng, pixels, corners)
            corners = corners[visible]
            kept = kept[visible]
            dropped = dropped._replace(covered=int((~visible).sum()))
        return AugmentedImage(
            np.ascontiguousarray(pixels), corners.astype(np.float32), kept, dropped
        )

    def draw_move(self, rng: random.Random, width: int, height: int) -> Move | None:
        """Draw the movement of an image of some width and height, px; None if it is not moved."""
        mirrored = rng.random() < self.horizontal_flip
        if not (mirrored or self.rotate_degrees or self.scale or self.shift):
            return None
        scale_x, scale_y = (rng.uniform(1 - self.scale, 1 + self.scale) for _ in "xy")
        return Move(
            mirrored,
            scale_x,
            scale_y if self.stretch else scale_x,
            rng.uniform(-self.rotate_degrees, self.rotate_degrees),
            round(width * rng.uniform(-self.shift, self.shift)),
            round(height * rng.uniform(-self.shift, self.shift)),
        )

    def draw_greys(self, rng: random.Random) -> tuple[float, float]:
        """Draw the change of brightness and contrast of an image.

        The result is a factor of the grey values (0 to 255), and the number of grey levels that is
        then added to them.
        """
        contrast = 1 + rng.uniform(-self.contrast, self.contrast)
        return contrast, 255 * rng.uniform(-self.brightness, self.brightness)


def build_augmentation(  # noqa: PLR0913 - the keys of [augmentation]
    *,
    rotate_degrees: float = 0,
    scale: float = 0,
    shift: float = 0,
    brightness: float = 0,
    contrast: float = 0,
    gamma: float = 0,
    blur: float = 0,
    noise: float = 0,
    cutout: float = 0,
    horizontal_flip: float = 0.0,
    stretch: bool = False,
    function: str | None = None,
) -> Augmentation | None:
    """Build an augmentation from its settings.

    Each change is drawn uniformly from its range, independently for every image. Blur, noise and
    cutout (one or two grey rectangles) change half of the images. `configs.settings` states the
    limits. Mirror images are off by default, because the heart is on the left.

    The settings are those of `configs.settings.AugmentationSettings`. `stretch` suits images that
    were squeezed into squares, whose original shape differs between hospitals and so between ill
    and healthy patients. `function` is ``MODULE:NAME`` and comes after the other changes of grey
    values, before cutout. The result is None if the settings change nothing. Raises InputError if
    the function cannot be imported.
    """
    others = _others(gamma, blur, noise)
    moves = rotate_degrees, scale, shift, horizontal_flip, stretch
    own = None if function is None else own_function(function, "augmentation.function")
    if not any((*moves, brightness, contrast, *others, cutout, own)):
        return None
    return Augmentation(*moves, brightness, contrast, others, _holes(cutout), own)


def _others(gamma: float, blur: float, noise: float) -> tuple[albumentations.BasicTransform, ...]:
    steps: list[albumentations.BasicTransform] = []
    if gamma:
        limits = (100 / (1 + gamma), 100 * (1 + gamma))  # albumentations counts in percent
        steps.append(albumentations.RandomGamma(gamma_limit=limits, p=1.0))
    if blur:
        steps.append(albumentations.GaussianBlur(blur_limit=0, sigma_limit=(0, blur), p=0.5))
    if noise:
        steps.append(albumentations.GaussNoise(std_range=(0, noise), p=0.5))
    return tuple(steps)


def _holes(cutout: float) -> albumentations.CoarseDropout | None:
    if not cutout:
        return None
    sides = (min(0.05, cutout), cutout)
    # The mask marks the holes, since albumentations would round boxes to whole pixels.
    return albumentations.CoarseDropout(
        num_holes_range=(1, 2),
        hole_height_range=sides,
        hole_width_range=sides,
        fill=_HOLE_GREY,
        fill_mask=1,
        p=0.5,
    )


def _apply(
    step: albumentations.BasicTransform, rng: random.Random, **targets: Any
) -> dict[str, Any]:
    """Apply a copy of a transform, since albumentations stores random generators in it."""
    step = copy.copy(step)
    step.set_random_state(np.random.default_rng(rng.getrandbits(64)), rng)
    return step(**targets)


def _own_change(
    function: Callable[[np.ndarray, np.random.Generator], Any],
    pixels: np.ndarray,
    rng: random.Random,
) -> np.ndarray:
    """Return what the user's own function makes of an image, if it is one of the same shape."""
    where = f"augmentation.function: {part_name(function)}"
    draw = np.random.default_rng(rng.getrandbits(64))
    try:
        changed = np.asarray(function(pixels.copy(), draw))
    except Exception as error:
        raise InputError(f"{where}: {problem_of(error)}") from error
    if changed.dtype != np.uint8 or changed.shape != pixels.shape:
        raise InputError(
            f"{where}: gave {changed.dtype} {changed.shape} for uint8 {pixels.shape}; it may not "
            "change type and shape"
        )
    return changed


def _cut_holes(
    holes: albumentations.CoarseDropout, rng: random.Random, pixels: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cut holes into an image; return it, and True for each box that is still visible."""
    changed = _apply(holes, rng, image=pixels, mask=np.zeros_like(pixels))
    covered = [
        changed["mask"][int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))].mean()
        for x1, y1, x2, y2 in boxes
    ]
    return changed["image"], 1 - np.array(covered) >= MIN_VISIBLE
