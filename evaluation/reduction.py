"""Reduction of the boxes of an image to its image score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import positions
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_Rule = Literal["max", "noisy_or", "top_k"]
TOP_K = 3
"""Number of boxes that the rule ``top_k`` adds up."""


@dataclass(frozen=True)
class Reduction:
    """Rule that reduces the boxes of an image to one image score.

    ``max`` takes the score of the most confident box; ``noisy_or`` takes ``1 - prod(1 - score)``;
    ``top_k`` is the sum of the three highest scores divided by three, so that missing boxes count
    0. An image without boxes scores 0. Boxes with a score below `min_score` are ignored.
    ``noisy_or`` needs this: 300 boxes with score 0.01 would give an image score of 0.95.

    Source:
        ``max``: the multiple-instance assumption, Dietterich et al. 1997.
    """

    rule: _Rule = "max"
    min_score: float = 0.0

    def reduce_ranked(self, rows: Integers, scores: Floats, n_images: int) -> Floats:
        """Compute one score for each image, shape ``(n_images,)``, from sorted boxes.

        `rows` has the index of the image of each box, from 0, rising; `scores`, in [0, 1], fall
        within an image; shape ``(B,)`` both. An image without boxes scores 0.

        Example:
            >>> Reduction("max").reduce_ranked(np.array([1, 1]), np.array([0.75, 0.5]), 2).tolist()
            [0.0, 0.75]
        """
        used = scores >= self.min_score
        rows = rows[used]
        scores = scores[used]
        reduced = np.zeros(n_images)
        if not len(rows):
            return reduced
        starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
        if self.rule == "max":
            reduced[rows[starts]] = scores[starts]
        elif self.rule == "noisy_or":
            reduced[rows[starts]] = 1.0 - np.multiply.reduceat(1.0 - scores, starts)
        else:
            rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
            top = rank < TOP_K
            reduced = np.bincount(rows[top], scores[top], minlength=n_images) / TOP_K
        return reduced


CANDIDATES = (
    Reduction("max"),
    Reduction("top_k"),
    *(Reduction("noisy_or", floor) for floor in (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)),
)
"""Reductions that validation chooses from, simpler ones first. The first is the usual one."""


def reduce_boxes(
    boxes: pd.DataFrame, image_ids: pd.Index, reduction: Reduction | None = None
) -> pd.Series:
    """Reduce the boxes of each image to one image score, in the order of `image_ids`.

    `boxes` has ``image_id`` and ``score`` in [0, 1], and may be empty; the ids are unique. By
    default the score of the most confident box is taken. An InputError is raised if an id repeats,
    a box belongs to no image, or a score lies outside [0, 1].

    Example:
        >>> boxes = pd.DataFrame({"image_id": ["a", "a"], "score": [0.5, 0.75]})
        >>> reduce_boxes(boxes, pd.Index(["a", "b"])).tolist()
        [0.75, 0.0]
    """
    rows, scores = _rows_and_scores(boxes, image_ids)
    # Boxes are sorted by image and score, so that the order of rows has no effect.
    order = np.lexsort((-scores, rows))
    reduced = (reduction or Reduction()).reduce_ranked(rows[order], scores[order], len(image_ids))
    return pd.Series(reduced, index=image_ids, name="score")


def _rows_and_scores(boxes: pd.DataFrame, image_ids: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each box's image in `image_ids`, and its score, both checked."""
    if not image_ids.is_unique:
        repeated = image_ids[image_ids.duplicated()][0]
        raise InputError(f"image ids must be unique; {repeated!r} repeats")
    rows = positions(boxes["image_id"], image_ids)
    if (rows < 0).any():
        unknown = boxes["image_id"].iloc[int(np.flatnonzero(rows < 0)[0])]
        raise InputError(f"boxes: image {unknown!r} is not among the images under evaluation")
    scores = boxes["score"].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if wrong.size:
        raise InputError(
            f"boxes: score must be in [0, 1]; row {wrong[0]}, image "
            f"{boxes['image_id'].iloc[int(wrong[0])]!r}: score={scores[wrong[0]]}"
        )
    return rows, scores
