"""Random changes of a training image and its boxes. The same seed gives the same result."""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # the import would ask the network

import albumentations as A  # noqa: N812 - the name that its users know
import numpy as np

from cxr_compare.configs.settings import AugmentationSettings
from cxr_compare.data_prep.base.errors import InputError

_HOLE_GREY = 114
_LEAST_VISIBLE = 0.3  # share of the area of a box that must stay inside; else it is dropped
_LEAST_SIDE = 2.0  # px; a box with a shorter side is dropped
_ROUNDING = 0.01  # px: albumentations computes in shares of the side


class Augmented(NamedTuple):
    """An image, its boxes, and the number of each box among those that were given."""

    pixels: np.ndarray
    boxes: np.ndarray
    rows: np.ndarray


def build_augmentation(settings: AugmentationSettings) -> A.Compose | None:
    """Build the pipeline of a configuration; None without any change.

    A box follows the ellipse that it encloses.
    """
    steps: list[A.BasicTransform] = []
    if settings.horizontal_flip:
        steps.append(A.HorizontalFlip(p=settings.horizontal_flip))
    if settings.rotate_degrees or settings.scale or settings.shift:
        scale, shift = (1 - settings.scale, 1 + settings.scale), (-settings.shift, settings.shift)
        steps.append(
            A.Affine(
                scale={"x": scale, "y": scale},
                keep_ratio=not settings.stretch,
                rotate=(-settings.rotate_degrees, settings.rotate_degrees),
                translate_percent={"x": shift, "y": shift},
                rotate_method="ellipse",
                p=1.0,
            )
        )
    if settings.brightness or settings.contrast:
        limits = settings.brightness, settings.contrast
        steps.append(A.RandomBrightnessContrast(*limits, brightness_by_max=True, p=1.0))
    if settings.gamma:
        limits = (100 / (1 + settings.gamma), 100 * (1 + settings.gamma))
        steps.append(A.RandomGamma(gamma_limit=limits, p=1.0))
    if settings.blur:
        steps.append(A.GaussianBlur(blur_limit=0, sigma_limit=(0, settings.blur), p=0.5))
    if settings.noise:
        steps.append(A.GaussNoise(std_range=(0, settings.noise), p=0.5))
    if settings.cutout:
        sides = (min(0.05, settings.cutout), settings.cutout)
        steps.append(A.CoarseDropout((1, 2), sides, sides, fill=_HOLE_GREY, p=0.5))
    return _with_boxes(steps) if steps else None


def own_augmentation(augmentation: Any) -> A.Compose:
    """Build the pipeline of a transform, or a Compose, of the user's own."""
    if isinstance(augmentation, A.BaseCompose):
        return _with_boxes([A.Sequential(augmentation.transforms, p=augmentation.p)])
    if isinstance(augmentation, A.BasicTransform):
        return _with_boxes([augmentation])
    raise InputError(
        f"augmentation: takes a transform of albumentations, or a Compose of them, got a "
        f"{type(augmentation).__name__}"
    )


def _with_boxes(steps: list[Any]) -> A.Compose:
    # A box of which less than 30 % stays visible is dropped, also behind a hole.
    boxes = A.BboxParams(
        "pascal_voc",
        label_fields=["rows"],
        clip=True,
        min_visibility=_LEAST_VISIBLE,
        min_width=_LEAST_SIDE - _ROUNDING,
        min_height=_LEAST_SIDE - _ROUNDING,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Got processor for bboxes")  # changes of greys alone
        return A.Compose(steps, bbox_params=boxes)


def augment(pipeline: A.Compose, image_with_boxes: Augmented, seed: int) -> Augmented:
    """Change an image, uint8 ``(H, W)``, with its boxes ``(N, 4)`` xyxy in px."""
    pipeline.set_random_seed(seed % 2**32)
    pixels, boxes, rows = image_with_boxes
    augmented = pipeline(image=pixels, bboxes=boxes, rows=rows)
    image = augmented["image"]
    if image.shape != pixels.shape or image.dtype != pixels.dtype:
        raise InputError(
            f"augmentation: makes {image.dtype} {image.shape} of an image, {pixels.dtype} "
            f"{pixels.shape}; it must keep both"
        )
    corners = np.asarray(augmented["bboxes"], np.float32).reshape(-1, 4)
    rows = np.asarray(augmented["rows"], np.int64)
    return Augmented(np.ascontiguousarray(image), corners, rows)
