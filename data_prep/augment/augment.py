"""Random changes to a training image and its boxes, repeatable from a seed.

The only module that imports albumentations, which takes 1.7 s: pixel reading must not import it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import, which else asks the network

import albumentations
import numpy as np

from data_prep.augment.mosaic import DroppedBoxes
from data_prep.store.preprocess import MIN_SIDE, MIN_VISIBLE

_Step = albumentations.BasicTransform | albumentations.BaseCompose

_ROUNDING = 0.01  # px; albumentations works in float32 shares of the side
_HOLE_GREY = 114  # what a model that normalises as for ImageNet sees as 0
_HOLE_SEED = 0x9E3779B9  # so that holes do not follow the draws of the other changes


@dataclass(frozen=True)
class Augmentation:
    """A chain of random changes; made by `build_augmentation`."""

    # albumentations' own objects, which are reseeded at each use: threads share them with a lock
    chain: albumentations.Compose
    tolerant: albumentations.Compose  # keeps boxes however small: it tells why one was dropped
    holes: albumentations.Compose | None = None  # cuts holes into what the chain gave

    def apply(
        self, pixels: np.ndarray, boxes: np.ndarray | None, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Apply the chain once; the same seed gives the same result, whatever was done before.

        Args:
            pixels: uint8, shape ``(H, W)``.
            boxes: ``xyxy``, px of `pixels`, shape ``(N, 4)``; None for none.
            seed: Any non-negative integer.

        Returns:
            Pixels, uint8, ``(H, W)``; boxes that are left, clipped to the image, float32,
            ``(M, 4)``; their rows in `boxes`, int64, ``(M,)``, ascending. A box is dropped where
            under 30 % of its area are left or not covered, or under 2 px of a side; `why_dropped`
            counts.
        """
        corners = np.zeros((0, 4)) if boxes is None else np.asarray(boxes, dtype=np.float64)
        if corners.size == 0:
            corners = corners.reshape(0, 4)
        if corners.ndim != 2 or corners.shape[1] != 4:
            raise ValueError(f"boxes must have shape (N, 4), got {corners.shape}")
        pixels, moved, kept = _run(self.chain, pixels, corners, seed)
        if self.holes is not None:
            pixels, visible = _cut_holes(self.holes, pixels, moved, seed)
            moved, kept = moved[visible], kept[visible]
        return np.ascontiguousarray(pixels), moved, kept

    def why_dropped(
        self, pixels: np.ndarray, boxes: np.ndarray, kept: np.ndarray, seed: int
    ) -> DroppedBoxes:
        """Count why boxes did not come back from `apply`; costs nothing where all did."""
        if len(kept) == len(boxes):
            return DroppedBoxes(len(boxes))
        # The chain again, from the same seed, with one rule after the other left out.
        corners = np.asarray(boxes, dtype=np.float64)
        uncovered = len(_run(self.chain, pixels, corners, seed)[2])
        inside = len(_run(self.tolerant, pixels, corners, seed)[2])
        n = len(corners)
        return DroppedBoxes(n, n - inside, inside - uncovered, uncovered - len(kept))


def build_augmentation(
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
) -> Augmentation | None:
    """Choose the changes; each is drawn evenly from its range for every image.

    `configs.settings` says how far each may go.

    Args:
        rotate_degrees: Turn by up to this many degrees either way.
        scale: Shrink or enlarge by up to this share: 0.1 is 0.9 to 1.1.
        shift: Move by up to this share of the side along x and y, each on its own.
        brightness: Lighten or darken by up to this share of the full range.
        contrast: Raise or lower contrast by up to this share.
        gamma: Raise grey levels to a power of up to this share more or less: 0.5 is 1/1.5 to 1.5.
        blur: Gaussian blur with a sigma of 0 to this many px, on half of the images.
        noise: Gaussian noise with a standard deviation of 0 to this share of the full range,
            on half of the images.
        cutout: Cover one or two rectangles with sides of up to this share of the image's with
            grey, on half of the images.
        horizontal_flip: Probability of a mirror image. Off unless asked for: a chest has its
            heart on the left.
        stretch: Draw `scale` for width and height apart. For images that
            someone squeezed into squares: how wide they were differs from hospital to hospital,
            and with it between ill and healthy.

    Returns:
        The chain, or None where every argument is 0.
    """
    geometry = rotate_degrees, scale, shift, horizontal_flip
    greyness = brightness, contrast, gamma, blur, noise
    if not any((*geometry, *greyness, cutout)):
        return None

    def chain(min_side: float) -> albumentations.Compose:
        moves, greys = _geometry(*geometry, stretch), _greys(*greyness)
        # albumentations warns of boxes that no step moves; last, so that no draw changes.
        steps = [*moves, *greys] if moves else [*greys, albumentations.NoOp(p=1.0)]
        boxes = albumentations.BboxParams(
            format="pascal_voc",
            label_fields=["rows"],
            min_visibility=MIN_VISIBLE,
            min_width=min_side,
            min_height=min_side,
            clip=True,
        )
        return albumentations.Compose(steps, bbox_params=boxes, seed=0)

    return Augmentation(chain(MIN_SIDE - _ROUNDING), chain(0.0), _holes(cutout))


def _geometry(
    rotate_degrees: float, scale: float, shift: float, horizontal_flip: float, stretch: bool
) -> list[_Step]:
    steps: list[_Step] = []
    if horizontal_flip:
        steps.append(albumentations.HorizontalFlip(p=horizontal_flip))
    if rotate_degrees or scale or shift:
        steps.append(
            albumentations.Affine(
                rotate=(-rotate_degrees, rotate_degrees),
                scale=(1 - scale, 1 + scale),
                keep_ratio=not stretch,  # else x and y are drawn apart, and hearts change shape
                translate_percent=(-shift, shift),
                # A lesion fills the ellipse in its box better than its corners.
                rotate_method="ellipse",
                fill=0,
                p=1.0,
            )
        )
    return steps


def _greys(
    brightness: float, contrast: float, gamma: float, blur: float, noise: float
) -> list[_Step]:
    steps: list[_Step] = []
    if brightness or contrast:
        steps.append(
            albumentations.RandomBrightnessContrast(
                brightness_limit=brightness, contrast_limit=contrast, p=1.0
            )
        )
    if gamma:
        limits = (100 / (1 + gamma), 100 * (1 + gamma))  # albumentations counts in percent
        steps.append(albumentations.RandomGamma(gamma_limit=limits, p=1.0))
    if blur:
        steps.append(albumentations.GaussianBlur(blur_limit=0, sigma_limit=(0, blur), p=0.5))
    if noise:
        steps.append(albumentations.GaussNoise(std_range=(0, noise), p=0.5))
    return steps


def _holes(cutout: float) -> albumentations.Compose | None:
    if not cutout:
        return None
    sides = (min(0.05, cutout), cutout)
    # Apart from the boxes: albumentations would round each of them to whole pixels. The mask says
    # where the holes are.
    step = albumentations.CoarseDropout(
        num_holes_range=(1, 2),
        hole_height_range=sides,
        hole_width_range=sides,
        fill=_HOLE_GREY,
        fill_mask=1,
        p=0.5,
    )
    return albumentations.Compose([step], seed=0)


def _run(
    chain: albumentations.Compose, pixels: np.ndarray, boxes: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chain.set_random_seed(int(seed) % (1 << 32))
    changed = chain(image=pixels, bboxes=boxes, rows=np.arange(len(boxes)))
    kept = np.asarray(changed["rows"], dtype=np.int64)
    moved = np.asarray(changed["bboxes"], dtype=np.float32).reshape(-1, 4)
    height, width = pixels.shape
    moved = np.clip(moved, 0, np.array([width, height, width, height], dtype=np.float32))
    return changed["image"], moved, kept


def _cut_holes(
    holes: albumentations.Compose, pixels: np.ndarray, boxes: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The image with holes, and which boxes are not covered by them."""
    holes.set_random_seed((int(seed) ^ _HOLE_SEED) % (1 << 32))
    changed = holes(image=pixels, mask=np.zeros_like(pixels))
    covered = [
        changed["mask"][int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))].mean()
        for x1, y1, x2, y2 in boxes
    ]
    return changed["image"], 1 - np.array(covered) >= MIN_VISIBLE
