"""Fusion of the boxes of several models: the mean of each model's best box of a lesion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import Boxes, box_iou
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_ROWS_AT_ONCE = 512  # a table with this number of rows stays in the processor's cache


NAME = "fusion of best boxes"


OVERLAP = 0.5
"""IoU from which two boxes count as one lesion, as in AP50."""


class BoxGroups(NamedTuple):
    """Groups of predicted boxes with the same image and finding (disease sign).

    Several detectors predict boxes of the same lesions. Their boxes are fused (replaced by means)
    within a group only.

    Attributes:
        labels: Index of the group of each box, from 0, shape ``(N,)``.
        images: Distinct image ids, sorted; the image of group ``g`` is ``images[g //
            len(findings)]``.
        findings: Distinct names of findings, such as ``mass``, sorted; the finding of group ``g``
            is ``findings[g % len(findings)]``.

    Example:
        >>> table = pd.DataFrame({"image_id": ["b", "a", "b"], "finding": ["mass"] * 3})
        >>> BoxGroups.from_table(table).labels.tolist()
        [1, 0, 1]
    """

    labels: Integers
    images: pd.Index
    findings: pd.Index

    @classmethod
    def from_table(cls, boxes: pd.DataFrame) -> BoxGroups:
        """Find the groups in a table of boxes, by its columns ``image_id`` and ``finding``."""
        image, images = pd.factorize(boxes["image_id"], sort=True)
        finding, findings = pd.factorize(boxes["finding"], sort=True)
        labels = image * max(len(findings), 1) + finding
        return cls(labels, pd.Index(images), pd.Index(findings))

    def to_table(self, boxes: Boxes, sizes: pd.DataFrame) -> pd.DataFrame:
        """Return boxes as a table with the names of image and finding, clipped to their images.

        The label of each box is the index of its group. `sizes` has ``image_id, width, height`` in
        px; boxes of an image without a size are not clipped at its right and lower edge. The
        columns are ``image_id``, ``finding``, ``x1``, ``y1``, ``x2``, ``y2`` in px of the original
        image, and ``score``.
        """
        image, finding = np.divmod(boxes.labels, max(len(self.findings), 1))
        table = sizes.set_index("image_id")[["width", "height"]].reindex(self.images)
        limits = table.astype("Float64").to_numpy(dtype=np.float64, na_value=np.inf)[image]
        corners = np.clip(boxes.corners, 0.0, np.hstack([limits, limits]))
        clipped = replace(boxes, corners=corners)
        return clipped.to_table(self.images[image], self.findings[finding])


def _box_tables(boxes: Boxes) -> Iterator[npt.NDArray[np.int64]]:
    """Yield tables ``(R, K)``: a row has the boxes of a label by falling score, filled with -1."""
    labels = boxes.labels
    order = np.lexsort((-boxes.scores, labels))
    if not len(order):
        return
    group_starts = np.flatnonzero(np.diff(labels[order], prepend=labels[order[0]] - 1))
    counts = np.diff(np.append(group_starts, len(order)))
    by_size = np.argsort(counts, kind="stable")  # labels of similar size share a table
    for start in range(0, len(by_size), _ROWS_AT_ONCE):
        rows = by_size[start : start + _ROWS_AT_ONCE]
        slot = np.arange(counts[rows].max())
        is_filled = slot < counts[rows, None]  # (R, K)
        positions = np.where(is_filled, group_starts[rows, None] + slot, 0)
        yield np.where(is_filled, order[positions], -1)


def best_box_fusion(boxes: Boxes, *, models: Integers, n_models: int) -> Boxes:
    """Fuse the boxes of several detectors: average the best overlapping box of each detector.

    This is non-maximum suppression across detectors. Within each label (number of the group of
    image and finding, see `BoxGroups`), the most confident box is replaced by the mean of the best
    box of each detector that overlaps it (IoU above 0.5), weighted by score; all other overlapping
    boxes are removed; then the most confident of the remaining boxes is taken, and so on. The score
    of a fused box is the mean over all detectors; a detector without an overlapping box counts as
    0.

    Weighted box fusion, in contrast, takes the mean over every overlapping box. The low-scoring
    duplicates of one detector, which remain because stored boxes are only suppressed at IoU 0.6,
    then lower the score: on RSNA, AP50 was 0.371 instead of 0.425.

    `models` has the index of the detector of each box, from 0, shape ``(N,)``. The fused boxes are
    ordered by label and then by falling score.

    Example:
        >>> corners = np.array([[0.0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 4, 3.5]])
        >>> boxes = Boxes(corners, np.array([0.9, 0.3, 0.2]), np.zeros(3, int))
        >>> fused = best_box_fusion(boxes, models=np.array([0, 1, 1]), n_models=2)
        >>> fused.corners.round(3).tolist(), fused.scores.round(3).tolist()
        ([[0.0, 0.0, 4.0, 3.75]], [0.6])
    """
    parts = []
    for table in _box_tables(boxes):
        for fused in _fuse_table(boxes, models, table, n_models):
            labels = boxes.labels[table[fused.rows, 0]]
            parts.append(Boxes(fused.edges.T, fused.scores / n_models, labels))
    joined = Boxes.joined(parts)
    return joined[np.lexsort((-joined.scores, joined.labels))]


class _FusedSlot(NamedTuple):
    """Fused boxes that the boxes in one slot (column) of a table lead."""

    rows: npt.NDArray[np.int64]  # rows of the table, (R,)
    edges: Floats  # x1, y1, x2, y2 of each box, (4, R)
    scores: Floats  # sum of the scores, (R,)


def _fuse_table(boxes: Boxes, models: Integers, table: Integers, n_models: int) -> list[_FusedSlot]:
    """Fuse the boxes of a table, slot by slot; a box leads if no earlier box has used it."""
    is_unused = table >= 0  # (R, K)
    edges = np.ascontiguousarray(np.moveaxis(boxes.corners[table], -1, 0))  # (4, R, K)
    scores = np.where(is_unused, np.maximum(boxes.scores[table], np.finfo(float).tiny), 0.0)
    box_models = np.where(is_unused, models[table], -1)
    fused = []
    for slot in range(table.shape[1]):
        rows = np.flatnonzero(is_unused[:, slot])
        if not len(rows):
            continue
        candidates = edges[:, rows, slot:]  # (4, R', K')
        leaders = candidates[..., :1]
        overlap = box_iou(np.moveaxis(leaders, 0, -1), np.moveaxis(candidates, 0, -1))
        is_near = is_unused[rows, slot:] & (overlap > OVERLAP)
        is_near[:, 0] = True  # the leader itself, which may have no area
        total = np.zeros(len(rows))
        weighted_edges = np.zeros((4, len(rows)))
        for number in range(n_models):
            is_of_model = is_near & (box_models[rows, slot:] == number)
            best = is_of_model.argmax(axis=1)  # the model's best box, if there is one
            value = np.where(is_of_model.any(axis=1), scores[rows, slot + best], 0.0)
            total += value
            weighted_edges += value * candidates[:, np.arange(len(rows)), best]
        fused.append(_FusedSlot(rows, weighted_edges / total, total))
        is_unused[rows, slot:] &= ~is_near
    return fused
