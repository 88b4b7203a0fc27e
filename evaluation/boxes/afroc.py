"""Area under the alternative FROC curve: lesions against images without one."""

from __future__ import annotations

import numpy as np

from cxr_compare.evaluation.boxes.lesion_hits import LesionHits
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.ranking import FallingScores


class WeightedAfroc:
    """Area under the AFROC curve: lesions against images without one.

    A lesion that is found with a higher score than the most confident false mark of a normal image
    counts 1, with an equal one 1/2; a lesion that nothing finds and a normal image without a mark
    rank lowest. `worth` is of each lesion: ones give the AFROC, where every lesion counts alike.

    Source:
        Chakraborty and Berbaum 2004 (JAFROC); Chakraborty and Zhai 2016 (weights).
    """

    def __init__(self, finds: LesionHits, worth: Floats, clusters: Integers) -> None:
        owner, normal = np.asarray(clusters), finds.normal
        self._normals = FallingScores(finds.highest_false[normal], owner[normal])
        self._lesion_owner, self._worth = owner[finds.lesion_image], worth
        # How many normal images rank strictly above, or at least as high as, each lesion.
        self._above, self._upto = (
            np.searchsorted(self._normals.negated, -finds.best, side=side)
            for side in ("left", "right")
        )

    @classmethod
    def shared(cls, finds: LesionHits, clusters: Integers) -> WeightedAfroc:
        """The weighted AFROC: all lesions of an image share its weight alike."""
        return cls(finds, 1 / np.bincount(finds.lesion_image)[finds.lesion_image], clusters)

    def __call__(self, weights: Integers) -> Floats:
        """The area per weighting, ``(R,)``; NaN without a lesion or without a normal image."""
        normals = self._normals.sums(weights)
        on_lesion = np.take(weights, self._lesion_owner, axis=1) * self._worth
        lost = np.take(normals, self._above, axis=1) + np.take(normals, self._upto, axis=1)
        losses = np.einsum("rl,rl->r", on_lesion, lost) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1 - losses / (on_lesion.sum(axis=1) * normals[:, -1]))
