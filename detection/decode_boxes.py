"""A detector's raw output into boxes, by numpy: what torchvision's RetinaNet does with tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# The stored boxes of DESIGN.md section 3; every later sweep starts from them.
MIN_SCORE, NMS_IOU, MAX_PER_FINDING = 0.001, 0.6, 100
CANDIDATES_PER_LEVEL = 1000  # for each finding
_LARGEST_GROWTH = math.log(1000 / 16)  # torchvision's limit of exp() of a width or height


class Found(NamedTuple):
    """The boxes of one image, by falling score.

    Attributes:
        boxes: float32 ``(N, 4)`` xyxy, store px, within the image.
        scores: float32 ``(N,)``.
        labels: ``(N,)``, 1 to K.
        finite: Whether the network's output for this image is finite; else the boxes mean nothing.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    finite: bool


def decode_boxes(
    logits: np.ndarray,
    offsets: np.ndarray,
    anchors: np.ndarray,
    level_sizes: Sequence[int],
    size: int,
) -> list[Found]:
    """Decode, suppress and sort the boxes of each image.

    The best 1,000 candidates for each finding and level with a score of at least 0.001 are
    decoded; non-maximum suppression at IoU 0.6 runs within each finding; the best 100 boxes for
    each finding are kept.

    Args:
        logits: float32 ``(B, A, K)``, findings only.
        offsets: float32 ``(B, A, 4)``, of the anchors' centres and sides.
        anchors: float32 ``(A, 4)`` xyxy, store px.
        level_sizes: Anchors on each level; they add up to A.
        size: Side of the square image, px, to which boxes are clipped.

    Source:
        torchvision's ``RetinaNet.postprocess_detections``, to which the tests compare it.

    Example:
        >>> anchors = np.array([[0, 0, 8, 8], [8, 8, 16, 16]], np.float32)
        >>> logits = np.array([[[2.0], [-20.0]]], np.float32)
        >>> (found,) = decode_boxes(logits, np.zeros((1, 2, 4), np.float32), anchors, [2], 16)
        >>> found.boxes.tolist(), found.labels.tolist(), found.scores.round(3).tolist()
        ([[0.0, 0.0, 8.0, 8.0]], [1], [0.8809999823570251])
    """
    return [
        _decode_one(image_logits, image_offsets, anchors, level_sizes, size)
        for image_logits, image_offsets in zip(logits, offsets, strict=True)
    ]


def _decode_one(
    logits: np.ndarray,
    offsets: np.ndarray,
    anchors: np.ndarray,
    level_sizes: Sequence[int],
    size: int,
) -> Found:
    if not (np.isfinite(logits).all() and np.isfinite(offsets).all()):
        none = np.zeros(0, np.float32)
        return Found(np.zeros((0, 4), np.float32), none, np.zeros(0, np.int64), finite=False)
    n_findings = logits.shape[1]
    places, scores = _candidates(logits, level_sizes)
    rows, labels = np.divmod(places, n_findings)
    boxes = np.clip(_decode(offsets[rows], anchors[rows]), 0, np.float32(size))
    kept = [
        of_label[_suppress(boxes[of_label], scores[of_label])]
        for of_label in (np.flatnonzero(labels == label) for label in range(n_findings))
    ]
    order = np.concatenate(kept)
    order = order[np.argsort(-scores[order], kind="stable")]
    return Found(boxes[order], scores[order], labels[order] + 1, finite=True)


def _candidates(logits: np.ndarray, level_sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Places in the flat ``(A * K)`` and scores of the candidates of all levels."""
    n_findings = logits.shape[1]
    most = CANDIDATES_PER_LEVEL * n_findings
    chosen = []
    for start, values in _by_level(logits, level_sizes):
        # Few of many anchors: the sigmoid, which is slow, is taken of those alone.
        near = np.flatnonzero(values > _LEAST_LOGIT)
        scores = _sigmoid(values[near])
        near, scores = near[scores >= _LEAST], scores[scores >= _LEAST]
        best = np.argsort(-scores, kind="stable")[:most]
        chosen.append((start * n_findings + near[best], scores[best]))
    places, found = zip(*chosen, strict=True)
    return np.concatenate(places), np.concatenate(found)


_LEAST = np.float32(MIN_SCORE)
_LARGEST_IOU = np.float64(NMS_IOU)  # torchvision compares in double precision
_LEAST_LOGIT = np.float32(math.log(MIN_SCORE / (1 - MIN_SCORE)) - 1e-3)  # and a margin


def _by_level(logits: np.ndarray, level_sizes: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    start = 0
    for count in level_sizes:
        yield start, logits[start : start + count].ravel()
        start += count


def _sigmoid(values: np.ndarray) -> np.ndarray:
    shares: np.ndarray = 1 / (1 + np.exp(-values))
    return shares


def _decode(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Boxes from anchors, float32 ``(N, 4)`` xyxy."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + np.float32(0.5) * sides + offsets[:, :2] * sides
    grown = np.exp(np.minimum(offsets[:, 2:], np.float32(_LARGEST_GROWTH))) * sides
    half = np.float32(0.5) * grown
    return np.concatenate([centres - half, centres + half], axis=1)


_BLOCK = 64  # boxes at a time: few of them are kept, and most are needed by none


def _suppress(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Indices kept by greedy suppression, by falling score; it ends when enough are kept.

    Block by block: what overlaps a box of an earlier block falls at once, the rest in its order.
    """
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = boxes[order].T
    edges = np.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)])
    kept = np.zeros(0, np.intp)
    for start in range(0, len(order), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(order)))
        rows = rows[~_overlap(edges[:, kept], edges[:, rows]).any(axis=0)]
        near = _overlap(edges[:, rows], edges[:, rows])
        alive = np.ones(len(rows), bool)
        for place in range(len(rows)):
            if alive[place]:
                alive[place + 1 :] &= ~near[place, place + 1 :]
        kept = np.concatenate([kept, rows[alive]])
        if len(kept) >= MAX_PER_FINDING:
            break
    return order[kept[:MAX_PER_FINDING]]


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which pairs suppress each other, bool ``(N, M)``; rows are edges x1, y1, x2, y2 and area."""
    sides = np.minimum(boxes[2:4, :, None], others[2:4, None])
    sides -= np.maximum(boxes[:2, :, None], others[:2, None])
    width, height = np.maximum(sides, 0, out=sides)
    shared = width * height
    # Divided as torchvision does; of two boxes without area it is NaN, which suppresses none.
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs: np.ndarray = shared / (boxes[4, :, None] + others[4] - shared) > _LARGEST_IOU
    return pairs
