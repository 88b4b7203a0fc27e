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

    Attributes:
        pixels: Grey values, uint8 (H, W).
        boxes: Remaining boxes, float32 (M, 4) xyxy in px of `pixels`, clipped to the image.
        kept: Row in the input of each remaining box, int64 (M,), ascending.
        dropped: Numbers of boxes that were removed, by reason.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    kept: np.ndarray
    dropped: DroppedBoxes


class Move(NamedTuple):
    """A random movement of an image: it is mirrored, then scaled, turned and shifted.

    The centre of the image is the fixed point of mirroring, scaling and turning.

    Attributes:
        mirrored: True if the image is mirrored left to right.
        scale_x: Factor of the width, such as 1.1.
        scale_y: Factor of the height, such as 1.1.
        degrees: Rotation in degrees, counter-clockwise.
        shift_x: Shift to the right, px; negative to the left.
        shift_y: Shift downwards, px; negative upwards.
    """

    mirrored: bool
    scale_x: float
    scale_y: float
    degrees: float
    shift_x: int
    shift_y: int

    def matrix(self, x: float, y: float) -> np.ndarray:
        """Return the affine matrix, float64 `(2, 3)`, from old to new positions in px.

        Args:
            x: Position of the image centre along x, px.
            y: Position of the image centre along y, px.
        """
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
        """Apply this movement to an image. Areas from outside the image become black.

        Args:
            pixels: Grey values, uint8 (H, W).

        Returns:
            The moved image, of the same shape.
        """
        height, width = pixels.shape
        matrix = self.matrix((width - 1) / 2, (height - 1) / 2)  # centres of pixels
        # A warp reads across rows, which is slow unless they are in a cache: copy them first.
        return cv2.warpAffine(pixels.copy(), matrix, (width, height), flags=cv2.INTER_LINEAR)

    def boxes(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Apply this movement to boxes.

        A lesion fills an ellipse rather than the corners of its box. The new box therefore encloses
        the moved ellipse, not the moved corners.

        Args:
            boxes: Boxes ``xyxy``, px, shape ``(N, 4)``.
            width: Width of the image, px.
            height: Height of the image, px.

        Returns:
            Moved boxes ``xyxy`` in px, shape ``(N, 4)``, which may reach outside the image.
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
        holes: Cutout: a change that covers parts of the image with grey rectangles; None without
            cutout.
        function: Function of the user's own, from grey values, uint8 (H, W), and a random generator
            of NumPy to new grey values; None without one.

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
        """Change an image and its boxes at random.

        A box is removed if less than 30 % of its area stays in the image and uncovered, or if less
        than 2 px of a side stay.

        Args:
            pixels: Image, uint8 ``(H, W)``.
            boxes: Boxes ``xyxy``, px, ``(N, 4)``; None for no boxes.
            seed: Random seed; the same seed gives the same result.

        Returns:
            The changed image with its remaining boxes.

        Raises:
            ValueError: The boxes have another shape.
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
        """Draw the movement of an image at random.

        Args:
            rng: Random generator, from which the numbers are drawn.
            width: Width of the image, px.
            height: Height of the image, px.

        Returns:
            The movement; None if the image is not moved.
        """
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
        """Draw the random change of brightness and contrast of an image.

        Args:
            rng: Random generator.

        Returns:
            Factor by which grey values (0 to 255) are multiplied, and number of grey levels that is
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

    Args:
        rotate_degrees: Largest rotation to either side, degrees.
        scale: Largest relative change of size; 0.1 scales by 0.9 to 1.1.
        shift: Largest shift, as a share of the side of the image.
        brightness: Largest change of all grey values, as a share of the grey range.
        contrast: Largest relative change of contrast; 0.1 multiplies it by 0.9 to 1.1.
        gamma: Range of the exponent of the grey values; 0.5 draws it between 1/1.5 and 1.5.
        blur: Largest sigma of a Gaussian blur, px.
        noise: Largest standard deviation of noise, as a share of the grey range.
        cutout: Largest side of a grey rectangle, as a share of the side of the image.
        horizontal_flip: Probability that an image is mirrored left to right, in [0, 1].
        stretch: True draws `scale` separately for width and height. This suits images that were
            squeezed into squares, whose original shape differs between hospitals and so between ill
            and healthy patients.
        function: ``MODULE:NAME`` of a function of the user's own that changes grey values after the
            others, before cutout (docs/own-parts.md).

    Returns:
        The augmentation, or None if the settings change nothing.

    Raises:
        InputError: The module of the function cannot be imported or has no such function.

    Example:
        >>> build_augmentation() is None, build_augmentation(rotate_degrees=5) is None
        (True, False)
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
