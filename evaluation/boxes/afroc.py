"""Area under the alternative FROC curve: lesions against images without one."""

from __future__ import annotations

import numpy as np

from cxr_compare.evaluation.boxes.lesion_hits import LesionHits
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.ranking import FallingScores


class WeightedAfroc:
    """Area under the AFROC curve, for many image weightings at once.

    A lesion that is found with a higher score than the most confident false mark of a normal image
    counts 1, with an equal one 1/2. A lesion that no mark finds and a normal image without a mark
    rank lowest.

    Args:
        hits: Lesions and marks.
        worth: Weight of each lesion, shape ``(lesions,)``; ones give the AFROC, in which every
            lesion counts alike.
        clusters: Number of each image's patient from 0, shape ``(images,)``.

    Source:
        Chakraborty and Berbaum 2004 (JAFROC); Chakraborty and Zhai 2016 (weights).

    Example:
        >>> hits = LesionHits(np.array([0]), np.array([0.9]), np.array([0, 1]),
        ...     np.array([0.9, 0.4]), np.array([False, True]), 2)
        >>> WeightedAfroc.shared(hits, np.array([0, 1]))(np.ones((1, 2), dtype=int)).tolist()
        [1.0]
    """

    def __init__(self, hits: LesionHits, worth: Floats, clusters: Integers) -> None:
        patients = np.asarray(clusters)
        normal = hits.normal
        self._normals = FallingScores(hits.highest_false[normal], patients[normal])
        self._patient_of_lesion = patients[hits.lesion_image]
        self._worth = worth
        # How many normal images rank strictly above, or at least as high as, each lesion.
        self._above = np.searchsorted(self._normals.negated, -hits.best, side="left")
        self._upto = np.searchsorted(self._normals.negated, -hits.best, side="right")

    @classmethod
    def shared(cls, hits: LesionHits, clusters: Integers) -> WeightedAfroc:
        """Build the weighted AFROC, in which all lesions of an image share its weight alike.

        Args:
            hits: Lesions and marks.
            clusters: Number of each image's patient from 0, shape ``(images,)``.
        """
        lesions_of_image = np.bincount(hits.lesion_image)
        return cls(hits, 1 / lesions_of_image[hits.lesion_image], clusters)

    def __call__(self, weights: Integers) -> Floats:
        """Return the area per weighting, ``(R,)``; NaN without a lesion or a normal image."""
        normals = self._normals.sums(weights)
        on_lesion = np.take(weights, self._patient_of_lesion, axis=1) * self._worth
        lost = np.take(normals, self._above, axis=1) + np.take(normals, self._upto, axis=1)
        losses = np.einsum("rl,rl->r", on_lesion, lost) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1 - losses / (on_lesion.sum(axis=1) * normals[:, -1]))
