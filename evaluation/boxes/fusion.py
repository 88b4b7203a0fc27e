"""Fusion of the boxes of several models, image by image and finding by finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from data_prep.contracts.boxes import Boxes, box_iou
from evaluation.statistics.ranking import Floats, Integers

_ROWS_AT_ONCE = 512  # such tables stay in the processor's cache


def _box_tables(boxes: Boxes) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of the boxes of each label, most confident first, -1 beyond: shape ``(R, K)``."""
    labels = boxes.labels
    order = np.lexsort((-boxes.scores, labels))
    if not len(order):
        return
    edge = np.flatnonzero(np.diff(labels[order], prepend=labels[order[0]] - 1))
    counts = np.diff(np.append(edge, len(order)))
    by_size = np.argsort(counts, kind="stable")  # labels of like size share a table
    for start in range(0, len(by_size), _ROWS_AT_ONCE):
        rows = by_size[start : start + _ROWS_AT_ONCE]
        slot = np.arange(counts[rows].max())
        there = slot < counts[rows, None]
        yield np.where(there, order[np.where(there, edge[rows, None] + slot, 0)], -1)


def _box_sides(corners: Floats, table: Integers) -> Floats:
    """Corners as ``(4, R, K)``."""
    return np.ascontiguousarray(np.moveaxis(corners[table], -1, 0))


def _overlaps(one: Floats, others: Floats) -> Floats:
    """IoU of one box a row with the others of the row; sides first."""
    return box_iou(np.moveaxis(one, 0, -1), np.moveaxis(others, 0, -1))


def _by_label(parts: Sequence[Boxes], like: Boxes) -> Boxes:
    """All parts together, by label and falling score; without any, none."""
    parts = [like[:0], *parts]
    names = ("corners", "scores", "labels")
    fused = Boxes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    return fused[np.lexsort((-fused.scores, fused.labels))]


NAME = "fusion of best boxes"
OVERLAP = 0.5
"""IoU from which boxes are of one lesion: as non-maximum suppression and AP50 have it."""


def best_box_fusion(
    boxes: Boxes, *, models: Integers, weights: Sequence[float], iou_threshold: float = OVERLAP
) -> Boxes:
    """Let the most confident box gather each model's best box that overlaps it; drop the others.

    It is non-maximum suppression across models, whose winner is not kept as it is but becomes the
    mean of its own and each other model's best box there, weighted by score and model. Its score
    is the mean over all models, those without a box there counting 0.

    Weighted box fusion takes the mean over every box of a cluster, so a model's faint duplicates
    (stored boxes are suppressed at IoU 0.6 only) pull the score down: docs/results.md, section 1.

    Only boxes of one label are fused; `models` has the model of each box as an index from 0. By
    label and falling score.

    Example:
        >>> corners = np.array([[0.0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 4, 3.5]])
        >>> boxes = Boxes(corners, np.array([0.9, 0.3, 0.2]), np.zeros(3, int))
        >>> fused = best_box_fusion(boxes, models=np.array([0, 1, 1]), weights=[1, 1])
        >>> fused.corners.round(3).tolist(), fused.scores.round(3).tolist()
        ([[0.0, 0.0, 4.0, 3.75]], [0.6])
    """
    weight = np.asarray(weights, dtype=np.float64)
    weighed = replace(boxes, scores=boxes.scores * weight[models])
    fused = []
    for table in _box_tables(weighed):
        for rows, sides, total in _gather(weighed, models, table, len(weight), iou_threshold):
            labels = boxes.labels[table[rows, 0]]
            fused.append(Boxes(sides.T, total / weight.sum(), labels))
    return _by_label(fused, boxes)


def _gather(
    boxes: Boxes, models: Integers, table: Integers, n_models: int, iou_threshold: float
) -> list[tuple[npt.NDArray[np.int64], Floats, Floats]]:
    """For each slot: the rows whose box there leads, fused sides ``(4, R)``, summed scores."""
    alive = table >= 0
    sides = _box_sides(boxes.corners, table)
    score = np.where(alive, np.maximum(boxes.scores[table], np.finfo(float).tiny), 0.0)
    model = np.where(alive, models[table], -1)
    fused = []
    for slot in range(table.shape[1]):
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
        fused.append((rows, summed / total, total))
        alive[rows, slot:] &= ~near
    return fused


LEAST_SCORE = 0.001
"""Boxes below it are not kept, as in every predictions folder."""
