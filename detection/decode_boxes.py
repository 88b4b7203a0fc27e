"""A detector's raw output into boxes, by numpy: what torchvision's RetinaNet does with tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.contracts.boxes import Boxes, suppress

# The stored boxes of DESIGN.md section 3; every later sweep starts from them.
MIN_SCORE, NMS_IOU, MAX_PER_FINDING = 0.001, 0.6, 100
CANDIDATES_PER_LEVEL = 1000  # for each finding
_LARGEST_GROWTH = math.log(1000 / 16)  # torchvision's limit of exp() of a width or height


def decode_boxes(
    logits: np.ndarray,
    offsets: np.ndarray,
    anchors: np.ndarray,
    level_sizes: Sequence[int],
    size: int,
) -> list[Boxes | None]:
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

    Returns:
        Per image its boxes by falling score, float32, store px, within the image, labels 1 to K;
        `None` where the network's output for it has a NaN or an infinity.

    Source:
        torchvision's ``RetinaNet.postprocess_detections``, to which the tests compare it.

    Example:
        >>> anchors = np.array([[0, 0, 8, 8], [8, 8, 16, 16]], np.float32)
        >>> logits = np.array([[[2.0], [-20.0]]], np.float32)
        >>> (boxes,) = decode_boxes(logits, np.zeros((1, 2, 4), np.float32), anchors, [2], 16)
        >>> boxes.corners.tolist(), boxes.labels.tolist(), boxes.scores.round(3).tolist()
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
) -> Boxes | None:
    if not (np.isfinite(logits).all() and np.isfinite(offsets).all()):
        return None
    n_findings = logits.shape[1]
    places, scores = _candidates(logits, level_sizes)
    rows, labels = np.divmod(places, n_findings)
    corners = np.clip(_decode(offsets[rows], anchors[rows]), 0, np.float32(size))
    boxes = Boxes(corners, scores, labels + 1)
    boxes = boxes[suppress(boxes, NMS_IOU, MAX_PER_FINDING)]
    return boxes[np.argsort(-boxes.scores, kind="stable")]


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
