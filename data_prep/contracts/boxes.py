"""Boxes as arrays, and their overlap.

Corners are ``xyxy`` (x1, y1, x2, y2) with continuous edges. In files and between steps, boxes are
rows of a table (`data_prep.contracts.schemas`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

EDGES = ["x1", "y1", "x2", "y2"]
"""Columns of a box: its edges, px of the original image."""
FIELD_WIDTH_MM = (250.0, 500.0)
"""Smallest and largest width of the field of a chest X-ray, mm; a chest fills 300 to 450 mm.

If the width is outside, the pixel spacing belongs to another file, and boxes have no size in mm.
"""


@dataclass(frozen=True, eq=False)
class Boxes:
    """N boxes on images, with a score and a whole-number label for each, as NumPy arrays.

    Attributes:
        corners: Edges ``x1, y1, x2, y2`` of the boxes, shape (N, 4), in px of the original image or
            of the image as resized to a square for a model. The caller knows which of these two it
            is.
        scores: Confidence of each box in [0, 1], (N,).
        labels: Whole number for each box, shape (N,): the number of its finding (disease), or a
            number for the pair of its image and its finding, so that boxes of several images can be
            handled at once.
    """

    corners: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Any) -> Boxes:
        return Boxes(self.corners[rows], self.scores[rows], self.labels[rows])

    @classmethod
    def joined(cls, parts: Sequence[Boxes]) -> Boxes:
        """Join several sets of boxes, with edges in the same pixels, into one, in their order.

        Coordinates and scores become float64. An empty sequence gives no boxes.
        """
        empty = cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
        with_empty = [empty, *parts]
        return cls(
            np.concatenate([part.corners for part in with_empty]),
            np.concatenate([part.scores for part in with_empty]),
            np.concatenate([part.labels for part in with_empty]),
        )

    @classmethod
    def from_table(cls, table: pd.DataFrame, labels: np.ndarray) -> Boxes:
        """Make N boxes from the rows of a table (``x1, y1, x2, y2`` in original px, ``score``)."""
        corners = table[EDGES].to_numpy(np.float64)
        return cls(corners, table["score"].to_numpy(np.float64), np.asarray(labels))

    def to_table(self, image_ids: Any, findings: Any) -> pd.DataFrame:
        """Return a table ``image_id, finding, x1, y1, x2, y2, score`` with one row for each box.

        `image_ids` and `findings` are one text for all boxes or have the shape ``(N,)``; the edges
        are in the pixels of `corners`.
        """
        table = pd.DataFrame({"image_id": image_ids, "finding": findings})
        return table.assign(**dict(zip(EDGES, self.corners.T, strict=True)), score=self.scores)


def turned_points(points: np.ndarray, degrees: float, pivot: np.ndarray) -> np.ndarray:
    """Turn points clockwise about a pivot, as y runs down; shapes ``(N, 2)`` and ``(2,)``."""
    cos = np.cos(np.deg2rad(degrees))
    sin = np.sin(np.deg2rad(degrees))
    turned: np.ndarray = (points - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot
    return turned


def turned_bounds(corners: np.ndarray, degrees: float) -> np.ndarray:
    """Return the upright box around a box that is turned about its middle, clipped at 0.

    Both boxes are ``x1, y1, x2, y2`` in px. The rotation is clockwise, as annotation tools state
    it; NaN gives NaN.

    Example:
        >>> turned_bounds(np.array([100.0, 100, 160, 130]), 90).round(6).tolist()
        [115.0, 85.0, 145.0, 145.0]
    """
    x1, y1, x2, y2 = corners
    points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    points = turned_points(points, degrees, (corners[:2] + corners[2:]) / 2)
    return np.maximum(np.concatenate([points.min(axis=0), points.max(axis=0)]), 0)


def upright_boxes(corners: np.ndarray, size: tuple[float, float], orientation: int) -> np.ndarray:
    """Turn boxes ``(N, 4)`` on the stored pixels of an image as its EXIF orientation turns it.

    `size` is the width and height of the stored pixels, and the orientation 1 to 8.

    Example:
        >>> upright_boxes(np.array([[0.0, 10, 30, 20]]), (100, 50), 6).tolist()
        [[30.0, 0.0, 40.0, 30.0]]
    """
    x1, y1, x2, y2 = corners.T
    width, height = size
    if orientation in (2, 3, 7, 8):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    edges = [y1, x1, y2, x2] if orientation in (5, 6, 7, 8) else [x1, y1, x2, y2]
    return np.column_stack(edges)


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of pairs of boxes ``(..., 4)``, broadcast as in NumPy.

    The boxes are ``x1, y1, x2, y2`` in the same pixels. Two boxes without area have IoU 0.

    Example:
        >>> boxes = np.array([[0.0, 0, 2, 2], [1, 0, 3, 2]])
        >>> box_iou(boxes[:, None], boxes).round(3).tolist()
        [[1.0, 0.333], [0.333, 1.0]]
    """
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    left, top, right, bottom = np.moveaxis(others, -1, 0)
    across = np.maximum(np.minimum(x2, right) - np.maximum(x1, left), 0)
    down = np.maximum(np.minimum(y2, bottom) - np.maximum(y1, top), 0)
    shared = across * down
    whole = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - shared
    overlap: np.ndarray = np.divide(shared, whole, out=np.zeros_like(whole), where=whole > 0)
    return overlap
