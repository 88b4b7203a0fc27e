"""Fuse overlapping boxes: NMS, soft-NMS, weighted box fusion, and scaling, in numpy.

Boxes of one group (an image and a finding) only ever meet each other, see
`evaluation.boxes.fusion`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_prep.contracts.errors import InputError
from evaluation.statistics.ranking import Floats, Integers

_ROWS_AT_ONCE = 512  # such tables stay in the processor's cache


def _box_tables(groups: Integers, scores: Floats) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of the boxes of each group, most confident first, -1 beyond: shape ``(R, K)``."""
    order = np.lexsort((-scores, groups))
    if not len(order):
        return
    edge = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    counts = np.diff(np.append(edge, len(order)))
    by_size = np.argsort(counts, kind="stable")  # groups of like size share a table
    for start in range(0, len(by_size), _ROWS_AT_ONCE):
        rows = by_size[start : start + _ROWS_AT_ONCE]
        slot = np.arange(counts[rows].max())
        there = slot < counts[rows, None]
        yield np.where(there, order[np.where(there, edge[rows, None] + slot, 0)], -1)


def _box_sides(corners: Floats, place: Integers) -> Floats:
    """Corners as ``(4, R, K)``."""
    return np.ascontiguousarray(np.moveaxis(corners[place], -1, 0))


def _overlaps(one: Floats, others: Floats) -> Floats:
    """IoU of one box a row with the others of the row; sides first."""
    across = np.minimum(one[2], others[2]) - np.maximum(one[0], others[0])
    down = np.minimum(one[3], others[3]) - np.maximum(one[1], others[1])
    shared = np.maximum(across, 0) * np.maximum(down, 0)
    area = (one[2] - one[0]) * (one[3] - one[1])
    areas = (others[2] - others[0]) * (others[3] - others[1])
    whole = area + areas - shared
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(whole), where=whole > 0))


Confidence = Literal["avg", "max"]
_LEAST = 1e-12  # a box of score 0 still has a place


def nms(
    corners: Floats, scores: Floats, groups: Integers, *, iou_threshold: float
) -> npt.NDArray[np.bool_]:
    """Keep a box unless a more confident kept one of its group overlaps it more than allowed.

    Source:
        Greedy non-maximum suppression, as in torchvision and ensemble-boxes.

    Example:
        >>> boxes = np.array([[0.0, 0, 4, 4], [0, 0, 4, 3], [9, 9, 10, 10]])
        >>> nms(boxes, np.array([0.5, 0.9, 0.1]), np.zeros(3, int), iou_threshold=0.5).tolist()
        [False, True, True]
    """
    kept = np.zeros(len(scores), dtype=bool)
    for place in _box_tables(groups, scores):
        alive = place >= 0
        sides = _box_sides(corners, place)
        for slot in range(place.shape[1] - 1):
            rows = np.flatnonzero(alive[:, slot])
            if not len(rows):
                continue
            rest = sides[:, rows, slot + 1 :]
            overlap = _overlaps(sides[:, rows, slot, None], rest)
            alive[rows, slot + 1 :] &= overlap <= iou_threshold
        kept[place[alive]] = True
    return kept


def soft_nms(
    corners: Floats,
    scores: Floats,
    groups: Integers,
    *,
    method: Literal["linear", "gaussian"] = "gaussian",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 0.001,
) -> Floats:
    """Lower the score of a box for each more confident one that it overlaps.

    ``linear`` multiplies by ``1 - IoU`` where the IoU is above the threshold, ``gaussian`` by
    ``exp(-IoU^2 / sigma)`` always.

    Source:
        Bodla et al. 2017, Soft-NMS.

    Example:
        >>> boxes = np.array([[0.0, 0, 4, 4], [0, 0, 4, 3]])
        >>> soft_nms(boxes, np.array([0.8, 0.4]), np.zeros(2, int), method="linear").tolist()
        [0.8, 0.1]
    """
    lowered = np.zeros(len(scores))
    for place in _box_tables(groups, scores):
        every = np.arange(len(place))
        left = np.where(place >= 0, scores[place], -1.0)  # -1: chosen already, or not there
        sides = _box_sides(corners, place)
        for _ in range(place.shape[1]):
            best = left.argmax(axis=1)
            value = left[every, best]
            going = value >= min_score
            if not going.any():
                break
            lowered[place[every, best][going]] = value[going]
            left[every, best] = -1.0
            overlap = _overlaps(sides[:, every, best, None], sides)
            if method == "linear":
                factor = np.where(overlap > iou_threshold, 1 - overlap, 1.0)
            else:
                factor = np.exp(-(overlap * overlap) / sigma)
            np.multiply(left, factor, out=left, where=left > 0)
    return lowered


def weighted_box_fusion(
    corners: Floats,
    scores: Floats,
    groups: Integers,
    *,
    models: Integers | None = None,
    weights: Sequence[float] | None = None,
    iou_threshold: float = 0.55,
    min_score: float = 0.0,
    confidence: Confidence = "avg",
) -> tuple[Floats, Floats, Integers]:
    """Replace each cluster of overlapping boxes by their mean, weighted by score.

    Boxes come in falling ``score x weight``; each joins the fused box that it overlaps most, if
    by more than the threshold, else begins a cluster. With ``avg`` the score is the mean times
    ``min(models, boxes) / sum(weights)``, so that a box which few models saw counts less; with
    ``max`` it is the highest.

    Args:
        corners: Shape ``(N, 4)`` xyxy, original px.
        scores: Shape ``(N,)``.
        groups: The group of each box, shape ``(N,)``.
        models: The model of each box as an index from 0, shape ``(N,)``; one model by default.
        weights: A weight above 0 per model; 1 by default.
        iou_threshold: A box joins a cluster when its IoU with it is above this.
        min_score: Boxes below it do not take part.
        confidence: How scores combine.

    Returns:
        Corners ``(M, 4)``, scores ``(M,)`` in [0, 1] and groups ``(M,)`` of the fused boxes, by
        group and falling score.

    Raises:
        InputError: A model has no weight, or a weight is not above 0.

    Source:
        Solovyev, Wang and Gabruseva 2021, as in ensemble-boxes.

    Example:
        >>> boxes = np.array([[0.0, 0, 4, 4], [0, 0, 4, 3]])
        >>> fused = weighted_box_fusion(boxes, np.array([0.9, 0.3]), np.zeros(2, int))
        >>> [part.round(3).tolist() for part in fused]
        [[[0.0, 0.0, 4.0, 3.75]], [0.6], [0]]
    """
    weight, model = _model_weights(models, weights, len(scores))
    entering = np.flatnonzero(scores >= min_score)
    corners, groups = corners[entering], groups[entering]
    weighed = scores[entering] * weight[model[entering]]
    fused: list[tuple[Floats, Floats, Integers]] = [
        (np.empty((0, 4)), np.empty(0), np.empty(0, dtype=groups.dtype))
    ]
    for place in _box_tables(groups, weighed):
        sides, total, highest, count = _clusters(corners, weighed, place, iou_threshold)
        row, column = np.nonzero(count)
        boxes, sum_of, most = count[row, column], total[row, column], highest[row, column]
        if confidence == "max":
            score = most / weight.max()
        else:
            score = sum_of / boxes * np.minimum(len(weight), boxes) / weight.sum()
        fused.append((sides[:, row, column].T, np.minimum(score, 1.0), groups[place[row, 0]]))
    box, score, group = (np.concatenate(part) for part in zip(*fused, strict=True))
    order = np.lexsort((-score, group))
    return box[order], score[order], group[order]


def _clusters(
    corners: Floats, weighed: Floats, place: Integers, iou_threshold: float
) -> tuple[Floats, Floats, Floats, Integers]:
    """Cluster the boxes of each row: fused sides ``(4, R, K)``, sum, highest and count."""
    rows, slots = place.shape
    sides = _box_sides(corners, place)
    score = np.where(place >= 0, np.maximum(weighed[place], _LEAST), 0.0)
    fused, summed = np.zeros((4, rows, slots)), np.zeros((4, rows, slots))
    total, highest = np.zeros((rows, slots)), np.zeros((rows, slots))
    count = np.zeros((rows, slots), dtype=np.int64)
    used = np.zeros(rows, dtype=np.int64)  # clusters of a row so far
    for slot in range(slots):
        there = np.flatnonzero(place[:, slot] >= 0)
        box, open_to = sides[:, there, slot], int(used.max())
        target = used[there].copy()
        if open_to:
            overlap = _overlaps(box[..., None], fused[:, there, :open_to])
            overlap[np.arange(open_to) >= used[there, None]] = -1.0
            best = overlap.argmax(axis=1)
            joins = overlap[np.arange(len(there)), best] > iou_threshold
            target[joins] = best[joins]
        value = score[there, slot]
        total[there, target] += value
        highest[there, target] = np.maximum(highest[there, target], value)
        count[there, target] += 1
        summed[:, there, target] += value * box
        alone = count[there, target] == 1  # the box itself, to the last bit
        fused[:, there, target] = np.where(
            alone, box, summed[:, there, target] / total[there, target]
        )
        used[there] += target == used[there]
    return fused, total, highest, count


def _model_weights(
    models: Integers | None, weights: Sequence[float] | None, n_boxes: int
) -> tuple[Floats, Integers]:
    """The weight of each model and the model of each box, all 1 and all the first by default."""
    model = np.zeros(n_boxes, dtype=np.int64) if models is None else np.asarray(models)
    n_models = int(model.max(initial=0)) + 1
    weight = np.ones(n_models) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(weight) < n_models:
        raise InputError(f"box fusion: {n_models} models but {len(weight)} weights")
    if not (np.isfinite(weight) & (weight > 0)).all():
        raise InputError("box fusion: every weight must be a number above 0")
    return weight, model


def scale_boxes(corners: Floats, scale: float, limits: Floats | None = None) -> Floats:
    """Scale boxes about their centres and clip them to their images.

    Args:
        corners: Shape ``(N, 4)`` xyxy, original px.
        scale: Factor on width and height.
        limits: Width and height of each box's image, px, shape ``(N, 2)``; NaN is unknown.

    Returns:
        Shape ``(N, 4)``.

    Example:
        >>> scale_boxes(np.array([[0.0, 2, 4, 6]]), 0.5).tolist()
        [[1.0, 3.0, 3.0, 5.0]]
    """
    if scale != 1.0:
        centre = (corners[:, :2] + corners[:, 2:]) / 2
        half = (corners[:, 2:] - corners[:, :2]) * (scale / 2)
        corners = np.concatenate([centre - half, centre + half], axis=1)
    if limits is None:
        return corners if scale == 1.0 else np.maximum(corners, 0.0)
    upper = np.where(np.isnan(limits), np.inf, limits)
    return np.clip(corners, 0.0, np.concatenate([upper, upper], axis=1))


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
    weight, models = _model_weights(models, weights, len(scores))
    weighed = scores * weight[models]
    fused: list[tuple[Floats, Floats, Integers]] = [
        (np.empty((0, 4)), np.empty(0), np.empty(0, dtype=groups.dtype))
    ]
    for place in _box_tables(groups, weighed):
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
    sides = _box_sides(corners, place)
    score = np.where(alive, np.maximum(weighed[place], np.finfo(float).tiny), 0.0)
    model = np.where(alive, models[place], -1)
    found = []
    for slot in range(place.shape[1]):
        rows = np.flatnonzero(alive[:, slot])
        if not len(rows):
            continue
        rest = sides[:, rows, slot:]
        near = alive[rows, slot:] & (_overlaps(rest[..., :1], rest) > iou_threshold)
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
