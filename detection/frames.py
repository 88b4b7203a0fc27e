"""Decoding of a detector's raw output into boxes, and tables of boxes.

No torch is needed, so all back ends use this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import Boxes, box_iou
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.prediction_writer import Part, image_status

# Lowest score of a box that is stored; later steps choose thresholds above it.
MIN_SCORE = 0.001
NMS_IOU = 0.6
MAX_PER_FINDING = 100
CANDIDATES_PER_LEVEL = 1000  # for each finding
_MIN_SCORE_32 = np.float32(MIN_SCORE)
_MIN_LOGIT = np.float32(math.log(MIN_SCORE / (1 - MIN_SCORE)) - 1e-3)  # with a margin below
_BLOCK = 64  # boxes compared at a time: few of them are kept, and most overlaps are never needed
LARGEST_GROWTH = math.log(1000 / 16)  # torchvision's limit of exp() of a width or height


def decode_boxes(
    logits: np.ndarray,
    offsets: np.ndarray,
    anchors: np.ndarray,
    level_sizes: Sequence[int],
    size: int,
) -> list[Boxes | None]:
    """Compute the boxes of each image from a detector's raw outputs.

    For each finding and pyramid level, the best 1,000 candidates with a score of at least 0.001 are
    decoded. Non-maximum suppression at IoU 0.6 then runs within each finding, and the best 100
    boxes of each finding are kept.

    Logits of the K findings without background are float32 ``(B, A, K)``; offsets are ``(B, A,
    4)``, as for `detection.dense.decode_anchors`. Anchors are float32 ``(A, 4)`` xyxy in px of the
    square images of side `size`, to which boxes are clipped; the sum of `level_sizes` is A. Boxes
    are in these px, by falling score, with labels 1 to K; None for an image whose output has a NaN
    or an infinity.

    Source:
        torchvision's ``RetinaNet.postprocess_detections``, to which the tests compare it.
    """
    n_findings = logits.shape[2]
    decoded: list[Boxes | None] = []
    for image_logits, image_offsets in zip(logits, offsets, strict=True):
        if not (np.isfinite(image_logits).all() and np.isfinite(image_offsets).all()):
            decoded.append(None)
            continue
        positions, scores = _candidates(image_logits, level_sizes)
        rows, labels = np.divmod(positions, n_findings)
        corners = np.clip(_decode(image_offsets[rows], anchors[rows]), 0, np.float32(size))
        boxes = Boxes(corners, scores, labels + 1)
        kept = suppress_boxes(boxes, NMS_IOU, MAX_PER_FINDING)
        decoded.append(best_boxes(boxes[kept]))
    return decoded


def best_boxes(boxes: Boxes) -> Boxes:
    """Keep at most 100 boxes of each finding with a score of at least 0.001, by falling score.

    Example:
        >>> corners = np.array([[0.0, 0, 8, 8], [4.0, 4, 12, 12]])
        >>> best_boxes(Boxes(corners, np.array([0.0005, 0.5]), np.array([1, 1]))).scores.tolist()
        [0.5]
    """
    ordered = boxes[np.argsort(-boxes.scores, kind="stable")]
    shown = ordered.scores >= MIN_SCORE
    for label in np.unique(ordered.labels):
        shown[np.flatnonzero(ordered.labels == label)[MAX_PER_FINDING:]] = False
    return ordered[shown]


def suppress_boxes(
    boxes: Boxes, iou_threshold: float, most_per_label: int | None = None
) -> np.ndarray:
    """Return the rows that greedy non-maximum suppression keeps.

    A box is kept unless it overlaps a kept box of the same label and a higher score by more than
    the threshold. Among boxes of equal score the earlier row comes first. Overlaps are compared in
    double precision, as in torchvision.

    The threshold is the largest IoU of two kept boxes of one label. Rows are ordered by label and
    falling score.

    Example:
        >>> corners = np.array([[0.0, 0, 8, 8], [0.0, 0, 8, 9], [20.0, 20, 28, 28]])
        >>> boxes = Boxes(corners, np.array([0.4, 0.9, 0.5]), np.array([1, 1, 1]))
        >>> suppress_boxes(boxes, 0.5).tolist()
        [1, 2]
    """
    order = np.lexsort((-boxes.scores, boxes.labels))
    labels = boxes.labels[order]
    label_starts = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    kept = [
        rows[_suppress_sorted(boxes.corners[rows], np.float64(iou_threshold), most_per_label)]
        for rows in np.split(order, label_starts)
    ]
    return np.concatenate(kept)


def _suppress_sorted(
    corners: np.ndarray, iou_threshold: np.float64, most: int | None
) -> np.ndarray:
    """Suppress block by block: boxes that overlap an earlier block at once, the others in turn."""
    kept = np.zeros(0, np.intp)
    for start in range(0, len(corners), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(corners)))
        if len(kept):
            overlaps_kept = box_iou(corners[kept][:, None], corners[rows]) > iou_threshold
            rows = rows[~overlaps_kept.any(axis=0)]
        overlaps = box_iou(corners[rows][:, None], corners[rows]) > iou_threshold
        remaining = np.ones(len(rows), bool)
        for row in range(len(rows)):
            if remaining[row]:
                remaining[row + 1 :] &= ~overlaps[row, row + 1 :]
        kept = np.concatenate([kept, rows[remaining]])
        if most is not None and len(kept) >= most:
            break
    return kept[:most]


def _candidates(logits: np.ndarray, level_sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return flat positions in ``(A * K)`` and scores of the candidates of all levels."""
    n_findings = logits.shape[1]
    most = CANDIDATES_PER_LEVEL * n_findings
    all_positions = []
    all_scores = []
    for start, stop in pairwise(np.cumsum([0, *level_sizes])):
        values = logits[start:stop].ravel()
        # Few of many anchors: the sigmoid, which is slow, is computed for those alone.
        positions = np.flatnonzero(values > _MIN_LOGIT)
        scores = 1 / (1 + np.exp(-values[positions]))
        is_candidate = scores >= _MIN_SCORE_32
        positions = positions[is_candidate]
        scores = scores[is_candidate]
        best = np.argsort(-scores, kind="stable")[:most]
        all_positions.append(start * n_findings + positions[best])
        all_scores.append(scores[best])
    return np.concatenate(all_positions), np.concatenate(all_scores)


def _decode(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Move and scale anchors by their offsets; boxes are float32 ``(N, 4)`` xyxy."""
    sides = anchors[:, 2:] - anchors[:, :2]  # (N, 2)
    centres = anchors[:, :2] + np.float32(0.5) * sides + offsets[:, :2] * sides
    box_sides = np.exp(np.minimum(offsets[:, 2:], np.float32(LARGEST_GROWTH))) * sides
    half = np.float32(0.5) * box_sides
    return np.concatenate([centres - half, centres + half], axis=1)


def boxes_frames(
    image_ids: Sequence[str],
    detected: Sequence[Boxes | None],
    findings: Sequence[str],
    placement: Callable[[str], Placement],
    sizes: pd.DataFrame,
) -> Part:
    """Return the predicted boxes of a batch as a table, in px of the original images.

    `detected` are in px of the resized squares, with labels from 1 in the order of `findings`; None
    makes an image ``failed``. `placement` gives the position of an original image in its square.
    Boxes are clipped to `sizes` (columns ``width, height`` in px, by image id), and dropped if no
    area is left. The table ``boxes`` has the columns ``image_id``, ``finding``, ``x1``, ``y1``,
    ``x2``, ``y2`` and ``score``. Raises InputError if the size of an image is unknown.

    Example:
        >>> one = Boxes(np.array([[8.0, 8.0, 24.0, 16.0]]), np.array([0.5]), np.array([1]))
        >>> sizes = pd.DataFrame({"width": 64, "height": 64}, index=["a"])
        >>> half = Placement(scale_x=0.5, scale_y=0.5, offset_x=0.0, offset_y=0.0)
        >>> part = boxes_frames(["a"], [one], ["opacity"], lambda _: half, sizes)
        >>> part.tables["boxes"].values.tolist()
        [['a', 'opacity', 16.0, 16.0, 48.0, 32.0, 0.5]]
    """
    pairs = zip(image_ids, detected, strict=True)
    finite = [(image_id, boxes) for image_id, boxes in pairs if boxes is not None]
    finite_ids = [image_id for image_id, _ in finite]
    parts = []
    for (image_id, boxes), size in zip(finite, _original_sizes(sizes, finite_ids), strict=True):
        corners = placement(image_id).to_original(boxes.corners, *size)
        parts.append(Boxes(corners, boxes.scores, boxes.labels))
    box_ids = pd.array(finite_ids, dtype=TEXT).repeat([len(boxes) for boxes in parts])
    all_boxes = Boxes.joined(parts)
    names = pd.array(list(findings), dtype=TEXT).take(all_boxes.labels - 1)
    table = all_boxes.to_table(box_ids, names)
    has_area = (table["x2"] > table["x1"]) & (table["y2"] > table["y1"])
    status = image_status(image_ids, [boxes is not None for boxes in detected])
    return Part(status, {"boxes": table[has_area].reset_index(drop=True)})


def _original_sizes(sizes: pd.DataFrame, image_ids: Sequence[str]) -> np.ndarray:
    """Return width and height of each image, float64 (B, 2)."""
    table = sizes[["width", "height"]].reindex(list(image_ids)).astype(np.float64).to_numpy()
    is_known = np.isfinite(table).all(axis=1)  # (B,)
    if not is_known.all():
        image_id = image_ids[int(np.flatnonzero(~is_known)[0])]
        raise InputError(f"images: no width and height for image {image_id!r}; prepare it again")
    return table
