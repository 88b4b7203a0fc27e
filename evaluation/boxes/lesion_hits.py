"""Lesions that are found by marks, and false marks, by one of three rules of a hit.

A mark is a predicted box, or a box or point that a reader set. A mark that hits no lesion is false.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

Hit = Literal["iou", "centre"]
"""Name of a rule in `HIT_RULES`: ``iou`` or ``centre``."""


class HitRule(NamedTuple):
    """Rule by which a mark (a predicted box, or a reader's box or point) hits a lesion.

    Attributes:
        kind: With ``iou``, the IoU of mark and lesion must be at least `limit`. With ``centre``,
            the centre of the mark must lie in the lesion's box or on its border. With ``distance``,
            the centres of mark and lesion must be at most `limit` apart.
        limit: Least IoU in (0, 1] for ``iou``, largest distance in original px for ``distance``;
            unused for ``centre``.
    """

    kind: Literal["iou", "centre", "distance"]
    limit: float = 0.0


HIT_RULES: dict[Hit, HitRule] = {"iou": HitRule("iou", 0.2), "centre": HitRule("centre")}
"""Rules by which the predicted boxes of a system hit lesions, by name."""


class LesionHits(NamedTuple):
    """Lesions with the scores of the marks that find them, and the marks of all images.

    Attributes:
        lesion_image: Position of the image of each lesion, shape ``(lesions,)``.
        best: Highest score of a mark that hits each lesion, minus infinity where no mark does,
            shape ``(lesions,)``.
        mark_image: Position of the image of each mark, shape ``(marks,)``.
        mark_score: Score of each mark, shape ``(marks,)``.
        false: True for marks that hit no lesion, shape ``(marks,)``.
        n_images: Number of images, with and without lesions.

    Example:
        >>> hits = LesionHits(np.array([0]), np.array([0.9]), np.array([0, 1]),
        ...     np.array([0.9, 0.4]), np.array([False, True]), 2)
        >>> hits.normal.tolist(), hits.highest_false.tolist()
        ([False, True], [-inf, 0.4])
    """

    lesion_image: Integers
    best: Floats
    mark_image: Integers
    mark_score: Floats
    false: npt.NDArray[np.bool_]
    n_images: int

    @property
    def highest_false(self) -> Floats:
        """Highest score of a false mark on each image, ``(images,)``; minus infinity if none."""
        highest = np.full(self.n_images, -np.inf)
        np.maximum.at(highest, self.mark_image[self.false], self.mark_score[self.false])
        return highest

    @property
    def normal(self) -> npt.NDArray[np.bool_]:
        """True for images without a lesion, shape ``(images,)``."""
        return np.bincount(self.lesion_image, minlength=self.n_images) == 0


def find_lesions(pairs: BoxPairs, rule: HitRule = HIT_RULES["iou"]) -> LesionHits:
    """Find the lesions that predicted boxes hit, and the predicted boxes that hit no lesion.

    A lesion may be hit by several boxes, and a box may hit several lesions.

    Source:
        Chakraborty 1989 (free-response marks).

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.boxes.matching import pair_boxes
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = pd.concat([truth.assign(score=0.9), truth.assign(score=0.4, image_id="b")])
        >>> hits = find_lesions(pair_boxes(boxes, truth, pd.Index(["a", "b"])))
        >>> hits.best.tolist(), hits.highest_false.tolist()
        ([0.9], [-inf, 0.4])
    """
    hits = _is_hit(pairs, rule)
    best = np.full(len(pairs.truth.image), -np.inf)
    np.maximum.at(best, pairs.true[hits], pairs.boxes.score[pairs.box[hits]])
    false = np.ones(len(pairs.boxes.score), dtype=bool)
    false[pairs.box[hits]] = False
    return LesionHits(
        lesion_image=pairs.truth.image,
        best=best,
        mark_image=pairs.boxes.image,
        mark_score=pairs.boxes.score,
        false=false,
        n_images=len(pairs.truth.per_image),
    )


def _is_hit(pairs: BoxPairs, rule: HitRule) -> npt.NDArray[np.bool_]:
    """Return True for the pairs whose mark hits the lesion, shape ``(pairs,)``."""
    if rule.kind == "iou":
        return np.asarray(pairs.iou >= rule.limit)
    mark = pairs.boxes.corners[pairs.box]
    lesion = pairs.truth.corners[pairs.true]
    centre = (mark[:, :2] + mark[:, 2:]) / 2
    if rule.kind == "distance":
        offset = centre - (lesion[:, :2] + lesion[:, 2:]) / 2
        return np.asarray(np.hypot(offset[:, 0], offset[:, 1]) <= rule.limit)
    return np.asarray(((centre >= lesion[:, :2]) & (centre <= lesion[:, 2:])).all(axis=1))
