"""A detector's raw output into boxes, and boxes into tables, without torch: for every back end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import Boxes, box_iou
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.store.predictions import Part, image_status
from cxr_compare.data_prep.store.preprocess import Placement

# The stored boxes of DESIGN.md section 3; every later sweep starts from them.
MIN_SCORE, NMS_IOU, MAX_PER_FINDING = 0.001, 0.6, 100
CANDIDATES_PER_LEVEL = 1000  # for each finding
_LEAST = np.float32(MIN_SCORE)
_LEAST_LOGIT = np.float32(math.log(MIN_SCORE / (1 - MIN_SCORE)) - 1e-3)  # and a margin
_BLOCK = 64  # boxes at a time: few of them are kept, and most are needed by none
LARGEST_GROWTH = math.log(1000 / 16)  # torchvision's limit of exp() of a width or height


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
    """
    n_findings = logits.shape[2]
    decoded: list[Boxes | None] = []
    for image_logits, image_offsets in zip(logits, offsets, strict=True):
        if not (np.isfinite(image_logits).all() and np.isfinite(image_offsets).all()):
            decoded.append(None)
            continue
        places, scores = _candidates(image_logits, level_sizes)
        rows, labels = np.divmod(places, n_findings)
        corners = np.clip(_decode(image_offsets[rows], anchors[rows]), 0, np.float32(size))
        boxes = Boxes(corners, scores, labels + 1)
        decoded.append(best_boxes(boxes[_suppress(boxes, NMS_IOU, MAX_PER_FINDING)]))
    return decoded


def best_boxes(boxes: Boxes) -> Boxes:
    """At most 100 boxes of each finding with a score of at least 0.001, by falling score."""
    ordered = boxes[np.argsort(-boxes.scores, kind="stable")]
    shown = ordered.scores >= MIN_SCORE
    for label in np.unique(ordered.labels):
        shown[np.flatnonzero(ordered.labels == label)[MAX_PER_FINDING:]] = False
    return ordered[shown]


def _suppress(boxes: Boxes, iou_threshold: float, most: int | None = None) -> np.ndarray:
    """Rows that greedy non-maximum suppression keeps, by label and falling score.

    A box is kept unless a kept one of its label and of higher score (of equal scores the earlier
    row) overlaps it by more than the threshold. Compared in double precision, as torchvision does.
    """
    order = np.lexsort((-boxes.scores, boxes.labels))
    labels = boxes.labels[order]
    starts = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    kept = [
        rows[_kept(boxes.corners[rows], np.float64(iou_threshold), most)]
        for rows in np.split(order, starts)
    ]
    return np.concatenate(kept)


def _kept(corners: np.ndarray, iou_threshold: np.float64, most: int | None) -> np.ndarray:
    """Block by block: what a box of an earlier block overlaps falls at once, the rest in turn."""
    kept = np.zeros(0, np.intp)
    for start in range(0, len(corners), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(corners)))
        if len(kept):
            taken = box_iou(corners[kept][:, None], corners[rows]) > iou_threshold
            rows = rows[~taken.any(axis=0)]
        near = box_iou(corners[rows][:, None], corners[rows]) > iou_threshold
        alive = np.ones(len(rows), bool)
        for row in range(len(rows)):
            if alive[row]:
                alive[row + 1 :] &= ~near[row, row + 1 :]
        kept = np.concatenate([kept, rows[alive]])
        if most is not None and len(kept) >= most:
            break
    return kept[:most]


def _candidates(logits: np.ndarray, level_sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Places in the flat ``(A * K)`` and scores of the candidates of all levels."""
    n_findings = logits.shape[1]
    most = CANDIDATES_PER_LEVEL * n_findings
    chosen = []
    for start, stop in pairwise(np.cumsum([0, *level_sizes])):
        values = logits[start:stop].ravel()
        # Few of many anchors: the sigmoid, which is slow, is taken of those alone.
        near = np.flatnonzero(values > _LEAST_LOGIT)
        scores = 1 / (1 + np.exp(-values[near]))
        near, scores = near[scores >= _LEAST], scores[scores >= _LEAST]
        best = np.argsort(-scores, kind="stable")[:most]
        chosen.append((start * n_findings + near[best], scores[best]))
    places, found = zip(*chosen, strict=True)
    return np.concatenate(places), np.concatenate(found)


def _decode(offsets: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Boxes from anchors, float32 ``(N, 4)`` xyxy."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + np.float32(0.5) * sides + offsets[:, :2] * sides
    grown = np.exp(np.minimum(offsets[:, 2:], np.float32(LARGEST_GROWTH))) * sides
    half = np.float32(0.5) * grown
    return np.concatenate([centres - half, centres + half], axis=1)


def boxes_frames(
    image_ids: Sequence[str],
    detected: Sequence[Boxes | None],
    findings: Sequence[str],
    placement: Callable[[str], Placement],
    sizes: pd.DataFrame,
) -> Part:
    """The table ``boxes`` of a batch, in original pixels.

    Args:
        image_ids: B images.
        detected: The boxes of each in store px, labels from 1; `None` where the network's output
            is not finite, and the image ``failed``.
        findings: Names in label order.
        placement: How each image lies in the store, by image id.
        sizes: ``width, height`` of the originals, px, by image id; boxes are clipped to them, and
            dropped where no area is left.

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
    names = [image_id for image_id, _ in finite]
    parts = [
        Boxes(placement(name).to_original(boxes.corners, *size), boxes.scores, boxes.labels)
        for (name, boxes), size in zip(finite, _sizes_of(sizes, names), strict=True)
    ]
    owners = pd.array(names, dtype=TEXT).repeat([len(boxes) for boxes in parts])
    original = Boxes.joined(parts)
    table = original.to_table(
        owners, pd.array(list(findings), dtype=TEXT).take(original.labels - 1)
    )
    has_area = (table["x2"] > table["x1"]) & (table["y2"] > table["y1"])
    status = image_status(image_ids, [boxes is not None for boxes in detected])
    return Part(status, {"boxes": table[has_area].reset_index(drop=True)})


def _sizes_of(sizes: pd.DataFrame, image_ids: Sequence[str]) -> np.ndarray:
    """Width and height of each image, float64 (B, 2)."""
    wanted = sizes[["width", "height"]].reindex(list(image_ids)).astype(np.float64).to_numpy()
    if not np.isfinite(wanted).all():
        image_id = image_ids[int(np.flatnonzero(~np.isfinite(wanted).all(axis=1))[0])]
        raise InputError(f"images: no width and height for image {image_id!r}; prepare it again")
    return wanted
