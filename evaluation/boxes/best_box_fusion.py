"""Join the boxes of several models: each adds one box to what they find together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evaluation.boxes.box_tables import box_sides, box_tables, overlaps
from evaluation.boxes.fusion import model_weights
from evaluation.statistics.ranking import Floats, Integers

NAME = "fusion of best boxes"
OVERLAP = 0.5
"""IoU from which boxes are of one lesion: as non-maximum suppression and AP50 have it."""


def best_box_fusion(
    corners: Floats,
    scores: Floats,
    groups: Integers,
    *,
    models: Integers,
    weights: Sequence[float],
    iou_threshold: float = OVERLAP,
) -> tuple[Floats, Floats, Integers]:
    """Let the most confident box gather each model's best box that overlaps it; drop the others.

    It is non-maximum suppression across models, whose winner is not kept as it is but becomes the
    mean of its own and each other model's best box there, weighted by score and model. Its score
    is the mean over all models, those without a box there counting 0.

    Weighted box fusion takes the mean over every box of a cluster. Where a model has several boxes
    of one lesion, as stored predictions do (they are suppressed at IoU 0.6 only), the faint ones
    pull the score down, and what does not join remains beside it as a false alarm.

    Args:
        corners: Shape ``(N, 4)`` xyxy, original px.
        scores: Shape ``(N,)``, at least 0.
        groups: The group of each box, an image and a finding, shape ``(N,)``.
        models: The model of each box as an index from 0, shape ``(N,)``.
        weights: A weight above 0 per model.
        iou_threshold: Boxes whose IoU with the most confident one is above it are of one lesion.

    Returns:
        Corners ``(M, 4)``, scores ``(M,)`` and groups ``(M,)`` of the fused boxes, by group and
        falling score.

    Raises:
        InputError: A model has no weight, or a weight is not above 0.

    Example:
        >>> boxes = np.array([[0.0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 4, 3.5]])
        >>> fused = best_box_fusion(
        ...     boxes, np.array([0.9, 0.3, 0.2]), np.zeros(3, int), models=np.array([0, 1, 1]),
        ...     weights=[1, 1],
        ... )
        >>> [part.round(3).tolist() for part in fused]
        [[[0.0, 0.0, 4.0, 3.75]], [0.6], [0]]
    """
    weight, models = model_weights(models, weights, len(scores))
    weighed = scores * weight[models]
    fused: list[tuple[Floats, Floats, Integers]] = [
        (np.empty((0, 4)), np.empty(0), np.empty(0, dtype=groups.dtype))
    ]
    for place in box_tables(groups, weighed):
        for rows, sides, total in _gather(
            corners, weighed, models, place, len(weight), iou_threshold
        ):
            fused.append((sides.T, total / weight.sum(), groups[place[rows, 0]]))
    box, score, group = (np.concatenate(part) for part in zip(*fused, strict=True))
    order = np.lexsort((-score, group))
    return box[order], score[order], group[order]


def _gather(
    corners: Floats,
    weighed: Floats,
    models: Integers,
    place: Integers,
    n_models: int,
    iou_threshold: float,
) -> list[tuple[npt.NDArray[np.int64], Floats, Floats]]:
    """For each slot: the rows whose box there leads, fused sides ``(4, R)``, summed scores."""
    alive = place >= 0
    sides = box_sides(corners, place)
    score = np.where(alive, np.maximum(weighed[place], np.finfo(float).tiny), 0.0)
    model = np.where(alive, models[place], -1)
    found = []
    for slot in range(place.shape[1]):
        rows = np.flatnonzero(alive[:, slot])
        if not len(rows):
            continue
        rest = sides[:, rows, slot:]
        near = alive[rows, slot:] & (overlaps(rest[..., :1], rest) > iou_threshold)
        near[:, 0] = True  # itself, though it may be without an area
        total, summed = np.zeros(len(rows)), np.zeros((4, len(rows)))
        for number in range(n_models):
            own = near & (model[rows, slot:] == number)
            first = own.argmax(axis=1)  # the most confident, if there is one
            value = np.where(own.any(axis=1), score[rows, slot + first], 0.0)
            total += value
            summed += value * rest[:, np.arange(len(rows)), first]
        found.append((rows, summed / total, total))
        alive[rows, slot:] &= ~near
    return found
