"""Random changes to a training picture and its boxes, repeatable from a seed.

The only module that imports albumentations, which takes 1.7 s: pixel reading must not import it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import, which else asks the network

import albumentations

from data_prep.errors import InputError
from data_prep.placement import MIN_VISIBLE

_Step = albumentations.BasicTransform | albumentations.BaseCompose

MIN_SIDE = 2.0
"""A box is dropped where a side becomes shorter than this, in px."""

_ROUNDING = 0.01  # px; albumentations works in float32 shares of the side
_LIMITS = {
    "rotate_degrees": 180.0, "scale": 0.9, "shift": 0.9, "brightness": 1.0, "contrast": 1.0,
    "blur": 50.0, "noise": 1.0, "horizontal_flip": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class Augmentation:
    """A chain of random changes; make it with `build_augmentation`, use it with `augment`.

    Attributes:
        chain: albumentations' own object; it is reseeded at each use, so share it between
            threads only with a lock.
    """

    chain: albumentations.Compose


def build_augmentation(
    *,
    rotate_degrees: float = 0,
    scale: float = 0,
    shift: float = 0,
    brightness: float = 0,
    contrast: float = 0,
    blur: float = 0,
    noise: float = 0,
    horizontal_flip: float = 0.0,
) -> Augmentation | None:
    """Choose the changes; each is drawn evenly from its range for every picture.

    Args:
        rotate_degrees: Turn by up to this many degrees either way.
        scale: Shrink or enlarge by up to this share: 0.1 is 0.9 to 1.1.
        shift: Move by up to this share of the side along x and y, each on its own.
        brightness: Lighten or darken by up to this share of the full range.
        contrast: Raise or lower contrast by up to this share.
        blur: Gaussian blur with a sigma of 0 to this many px, on half of the pictures.
        noise: Gaussian noise with a standard deviation of 0 to this share of the full range,
            on half of the pictures.
        horizontal_flip: Probability of a mirror image. Off unless asked for: a chest has its
            heart on the left.

    Returns:
        The chain, or None where every argument is 0.

    Raises:
        InputError: An argument is negative, not finite, or above its limit.

    Example:
        >>> build_augmentation() is None
        True
    """
    asked = {
        "rotate_degrees": rotate_degrees, "scale": scale, "shift": shift,
        "brightness": brightness, "contrast": contrast, "blur": blur, "noise": noise,
        "horizontal_flip": horizontal_flip,
    }  # fmt: skip
    for name, value in asked.items():
        if not 0 <= value <= _LIMITS[name]:
            raise InputError(f"augmentation: {name}={value}; choose 0 to {_LIMITS[name]:g}")
    steps = [*_geometry(rotate_degrees, scale, shift, horizontal_flip),
             *_greys(brightness, contrast, blur, noise)]  # fmt: skip
    if not steps:
        return None
    boxes = albumentations.BboxParams(
        format="pascal_voc",
        label_fields=["rows"],
        min_visibility=MIN_VISIBLE,
        min_width=MIN_SIDE - _ROUNDING,
        min_height=MIN_SIDE - _ROUNDING,
        clip=True,
    )
    return Augmentation(albumentations.Compose(steps, bbox_params=boxes, seed=0))


def _geometry(
    rotate_degrees: float, scale: float, shift: float, horizontal_flip: float
) -> list[_Step]:
    steps: list[_Step] = []
    if horizontal_flip:
        steps.append(albumentations.HorizontalFlip(p=horizontal_flip))
    if rotate_degrees or scale or shift:
        steps.append(
            albumentations.Affine(
                rotate=(-rotate_degrees, rotate_degrees),
                scale=(1 - scale, 1 + scale),
                keep_ratio=True,  # else x and y are drawn apart, and hearts change shape
                translate_percent=(-shift, shift),
                # A lesion fills the ellipse in its box better than its corners.
                rotate_method="ellipse",
                fill=0,
                p=1.0,
            )
        )
    return steps


def _greys(brightness: float, contrast: float, blur: float, noise: float) -> list[_Step]:
    steps: list[_Step] = []
    if brightness or contrast:
        steps.append(
            albumentations.RandomBrightnessContrast(
                brightness_limit=brightness, contrast_limit=contrast, p=1.0
            )
        )
    if blur:
        steps.append(albumentations.GaussianBlur(blur_limit=0, sigma_limit=(0, blur), p=0.5))
    if noise:
        steps.append(albumentations.GaussNoise(std_range=(0, noise), p=0.5))
    return steps


def augment(
    augmentation: Augmentation | None,
    pixels: np.ndarray,
    boxes: np.ndarray | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Apply the chain once; the same seed gives the same result, whatever was done before.

    Args:
        augmentation: What `build_augmentation` gave; None changes nothing.
        pixels: uint8, shape ``(H, W)``.
        boxes: ``xyxy``, px of `pixels`, shape ``(N, 4)``; None for none.
        seed: Any non-negative integer.

    Returns:
        Pixels, uint8, ``(H, W)``; boxes that are left, clipped to the picture, float32,
        ``(M, 4)``; their rows in `boxes`, int64, ``(M,)``, ascending. A box is dropped where
        under 30 % of its area or under 2 px of a side are left.

    Raises:
        ValueError: The boxes do not have shape ``(N, 4)``.

    Example:
        >>> flip = build_augmentation(horizontal_flip=1.0)
        >>> pixels, boxes = np.zeros((8, 10), np.uint8), np.array([[0.0, 1.0, 4.0, 5.0]])
        >>> augment(flip, pixels, boxes, seed=1)[1].tolist()
        [[6.0, 1.0, 10.0, 5.0]]
    """
    given = np.zeros((0, 4)) if boxes is None else np.asarray(boxes, dtype=np.float64)
    if given.size == 0:
        given = given.reshape(0, 4)
    if given.ndim != 2 or given.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), got {given.shape}")
    rows = np.arange(len(given))
    if augmentation is None:
        return pixels, given.astype(np.float32), rows
    augmentation.chain.set_random_seed(int(seed) % (1 << 32))
    changed = augmentation.chain(image=pixels, bboxes=given, rows=rows)
    kept = np.asarray(changed["rows"], dtype=np.int64)
    moved = np.asarray(changed["bboxes"], dtype=np.float32).reshape(-1, 4)
    height, width = pixels.shape
    moved = np.clip(moved, 0, np.array([width, height, width, height], dtype=np.float32))
    return np.ascontiguousarray(changed["image"]), moved, kept
