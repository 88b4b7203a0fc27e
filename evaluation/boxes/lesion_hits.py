"""Lesions that are found by predicted boxes, and predicted boxes that hit none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

HIT = 0.2
"""Least IoU of a predicted box and a lesion that it hits."""


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
    """

    lesion_image: Integers
    best: Floats
    mark_image: Integers
    mark_score: Floats
    false: npt.NDArray[np.bool_]
    n_images: int


def find_lesions(pairs: BoxPairs) -> LesionHits:
    """Find the lesions that predicted boxes hit, and the predicted boxes that hit no lesion.

    A lesion may be hit by several boxes, and a box may hit several lesions.

    Source:
        Chakraborty 1989 (free-response marks).
    """
    hits = pairs.iou >= HIT
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
