"""Area under the alternative FROC (AFROC) curve: found lesions against images without a lesion."""

from __future__ import annotations

import numpy as np

from cxr_compare.evaluation.boxes.lesion_hits import LesionHits
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.ranking import FallingScores


class WeightedAfroc:
    """Area under the AFROC curve, for many weightings of the patients at once.

    A mark is a predicted box, or a box or point that a reader set; a normal image is one without a
    lesion. The area is a weighted mean over all pairs of a lesion and a normal image. A pair counts
    1 if the lesion is found with a higher score than that of the most confident false mark on the
    normal image, 1/2 if the two scores are equal, and 0 otherwise. A lesion that no mark finds and
    a normal image without a mark have the score minus infinity.

    `worth` is the weight of each lesion, at least 0; with weights of 1 every lesion counts alike.
    `clusters` numbers the patient of each image from 0.

    Source:
        Chakraborty and Berbaum 2004 (JAFROC); Chakraborty and Zhai 2016 (weights).
    """

    def __init__(self, hits: LesionHits, worth: Floats, clusters: Integers) -> None:
        patients = np.asarray(clusters)
        normal = hits.normal
        self._normals = FallingScores(hits.highest_false[normal], patients[normal])
        self._patient_of_lesion = patients[hits.lesion_image]
        self._worth = worth
        # Number of normal images that rank above each lesion, and that rank at least as high.
        self._above = np.searchsorted(self._normals.negated, -hits.best, side="left")
        self._upto = np.searchsorted(self._normals.negated, -hits.best, side="right")

    @classmethod
    def shared(cls, hits: LesionHits, clusters: Integers) -> WeightedAfroc:
        """Build an object in which each of the k lesions of an image has the weight 1 / k.

        Source:
            Chakraborty and Zhai 2016 (weighted AFROC).
        """
        lesions_of_image = np.bincount(hits.lesion_image)
        return cls(hits, 1 / lesions_of_image[hits.lesion_image], clusters)

    def __call__(self, weights: Integers) -> Floats:
        """Compute the area, ``(R,)``, under each of R weightings of P patients, ``(R, P)``.

        It is NaN where no lesion or no normal image has a weight.
        """
        normals = self._normals.sums(weights)
        on_lesion = np.take(weights, self._patient_of_lesion, axis=1) * self._worth
        lost = np.take(normals, self._above, axis=1) + np.take(normals, self._upto, axis=1)
        losses = np.einsum("rl,rl->r", on_lesion, lost) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1 - losses / (on_lesion.sum(axis=1) * normals[:, -1]))
