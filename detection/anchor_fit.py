"""Anchors fitted to the training boxes: the sizes and ratios whose anchors overlap them best."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from data_prep.contracts.errors import InputError
from detection.anchors import (
    DEFAULT_RATIOS,
    FINEST_STRIDE,
    LEVELS,
    default_anchor_sizes,
    octave_sizes,
)

MATCH_IOU = 0.5
MOST_BOXES = 10_000  # more only take longer
RATIOS = tuple(2.0 ** (step / 4) for step in range(-6, 7))  # 0.35 to 2.83; holds the default's
SMALLEST = FINEST_STRIDE // 2  # px
STEPS_AN_OCTAVE = 6


class Coverage(NamedTuple):
    """How well anchors lie on boxes.

    Attributes:
        mean_iou: Mean over the boxes of the best IoU with any anchor.
        recall: Share of the boxes with an anchor at IoU 0.5 or more.
    """

    mean_iou: float
    recall: float


class AnchorFit(NamedTuple):
    """Fitted anchors, for `detection.model.build_retinanet`, and what the fit gained.

    Attributes:
        sizes: Smallest size on each of the five levels, whole px of the store.
        ratios: Three, height over width, ascending.
        n_boxes: Boxes they were fitted to.
        before: Of the default anchors.
        after: Of these.
    """

    sizes: tuple[int, ...]
    ratios: tuple[float, ...]
    n_boxes: int
    before: Coverage
    after: Coverage

    def line(self) -> str:
        """One line that says what came out and what it gained."""
        ratios = ", ".join(f"{ratio:.2f}" for ratio in self.ratios)
        return (
            f"anchors: fitted to {self.n_boxes} boxes: {self.sizes[0]} to "
            f"{octave_sizes(self.sizes[-1])[-1]} px, ratios {ratios}; mean best IoU "
            f"{self.before.mean_iou:.3f} -> {self.after.mean_iou:.3f}, recall at IoU {MATCH_IOU} "
            f"{self.before.recall:.3f} -> {self.after.recall:.3f}"
        )


def fit_anchors(boxes: np.ndarray, image_size: int, *, seed: int = 0) -> AnchorFit:
    """Find the anchors that overlap the training boxes best.

    Keeps RetinaNet's structure (each level twice the one below, three sizes an octave, three
    ratios) and tries every smallest size with every three ratios. A box is judged by its best IoU
    with an anchor where anchors really lie, one stride apart, so small sizes are not preferred
    for shapes that no place of the pyramid can hold. The default anchors are among those tried,
    and none that reaches fewer boxes is taken: the fit is never worse than they are.

    Args:
        boxes: (N, 4) xyxy, store px.
        image_size: Side of the store's images, px.
        seed: Draws the boxes that count, where there are more than 10,000.

    Returns:
        The anchors with the highest mean best IoU of those whose recall is not below the
        default's; among equals the default, then the smaller.

    Raises:
        InputError: No boxes, or one that is not finite or not positive in size.

    Source:
        The objective follows Redmon and Farhadi 2017, YOLO9000, section 2 (dimension clusters).

    Example:
        >>> tall = np.array([[10.0, 10, 50, 90], [100, 40, 150, 140], [60, 60, 90, 120]])
        >>> fit = fit_anchors(tall, 256)
        >>> fit.ratios[-1] >= 2, fit.after.mean_iou > fit.before.mean_iou
        (True, True)
    """
    boxes = _checked(boxes)
    if len(boxes) > MOST_BOXES:
        drawn = np.random.default_rng(seed).choice(len(boxes), MOST_BOXES, replace=False)
        boxes = boxes[np.sort(drawn)]
    start = default_anchor_sizes(image_size)
    default = best_overlaps(boxes, image_size, start, DEFAULT_RATIOS)
    sizes, ratios, best = start, DEFAULT_RATIOS, default
    for finest in _finest_sizes(start[0]):
        levels = tuple(finest * 2**level for level in range(LEVELS))
        by_ratio = [best_overlaps(boxes, image_size, levels, [ratio]) for ratio in RATIOS]
        for chosen in combinations(range(len(RATIOS)), len(DEFAULT_RATIOS)):
            overlaps = np.maximum.reduce([by_ratio[i] for i in chosen])
            if overlaps.mean() > best.mean() and _recall(overlaps) >= _recall(default):
                sizes, ratios, best = levels, tuple(RATIOS[i] for i in chosen), overlaps
    return AnchorFit(sizes, ratios, len(boxes), _coverage(default), _coverage(best))


def best_overlaps(
    boxes: np.ndarray, image_size: int, sizes: Sequence[float], ratios: Sequence[float]
) -> np.ndarray:
    """Best IoU of each box with any anchor of the pyramid.

    An anchor of one shape overlaps a box more, the nearer their centres are along both axes: the
    best is at the nearest place, and no other place needs a look.

    Args:
        boxes: (N, 4) xyxy, store px.
        image_size: Side of the store's images, px.
        sizes: Smallest size on each level, px.
        ratios: Height over width.

    Returns:
        (N,), float64.

    Example:
        >>> box = np.array([[-16.0, -16.0, 16.0, 16.0]])  # the first anchor of P3 itself
        >>> best_overlaps(box, 512, (32, 64, 128, 256, 512), (0.5, 1.0, 2.0))
        array([1.])
    """
    side = boxes[:, 2:] - boxes[:, :2]  # (N, 2): width, height
    middle = (boxes[:, 2:] + boxes[:, :2]) / 2
    best = np.zeros(len(boxes))
    for level, smallest in enumerate(sizes):
        places = -(-image_size // (FINEST_STRIDE * 2**level))  # along a side
        stride = image_size // places
        nearest = np.clip(np.rint(middle / stride), 0, places - 1) * stride
        away = np.abs(middle - nearest)  # (N, 2)
        shapes = _shapes(octave_sizes(smallest), ratios)  # (S, 2)
        reach = (side[:, None] + shapes) / 2 - away[:, None]  # (N, S, 2)
        shared = np.minimum(reach, np.minimum(side[:, None], shapes)).clip(min=0).prod(axis=2)
        union = side.prod(axis=1)[:, None] + shapes.prod(axis=1) - shared
        best = np.maximum(best, (shared / union).max(axis=1))
    return best


def _shapes(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """Width and height of one level's anchors, (S, 2), rounded as `AnchorGenerator` does."""
    root = np.sqrt(np.asarray(ratios, np.float32))[:, None]
    scale = np.asarray(sizes, np.float32)[None]
    half = np.stack([(scale / root).ravel(), (scale * root).ravel()], axis=1) / 2
    return 2.0 * np.rint(half).astype(np.float64)


def _finest_sizes(default: int) -> list[int]:
    """Smallest sizes to try: a sixth of an octave apart, up to RetinaNet's own four strides.

    Without that end large sizes would win, as P3 has the most places; P6 and P7 would stand idle.
    """
    largest = max(default, 4 * FINEST_STRIDE)
    steps = int(STEPS_AN_OCTAVE * np.log2(largest / SMALLEST)) + 1
    tried = {round(SMALLEST * 2 ** (step / STEPS_AN_OCTAVE)) for step in range(steps)}
    return sorted(tried | {default})


def _coverage(overlaps: np.ndarray) -> Coverage:
    return Coverage(float(overlaps.mean()), _recall(overlaps))


def _recall(overlaps: np.ndarray) -> float:
    return float((overlaps >= MATCH_IOU).mean())


def _checked(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not len(boxes):
        raise InputError("anchors = fitted: the training images have no box; choose another split")
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise InputError(
            f"anchors = fitted: box {row} is {boxes[row].tolist()} px; boxes need x1 < x2 and "
            "y1 < y2"
        )
    return boxes
