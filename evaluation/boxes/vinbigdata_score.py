"""Score of the VinBigData Chest X-ray Abnormalities Detection challenge, for one finding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.ranking import RankedScores

_IOU = float(np.nextafter(0.4, 1.0))
"""The next larger float than 0.4, which an IoU must exceed."""


class WeightedVinBigDataScore:
    """VinBigData score for many weightings of the patients at once.

    It is the mean of two average precisions, each as in Pascal VOC from 2010 on. That of the
    finding counts boxes that match a lesion by an IoU above 0.4. That of the class "No finding"
    counts images: there each image without a lesion has one true box, the same one-pixel box
    everywhere, so it is found by every image that predicts it. Each image predicts it with the
    score 1 - image score.

    A box can match only the lesion with which its IoU is highest, as in Pascal VOC. Images of equal
    scores form one step. `clusters` numbers the patient of each image from 0 to `n_clusters` - 1.

    Source:
        VinBigData Chest X-ray Abnormalities Detection 2021, evaluation page; Everingham et al. 2010
        (Pascal VOC).

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.boxes.matching import pair_boxes
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = pd.concat([truth.assign(score=0.4), truth.assign(score=0.9, image_id="b")])
        >>> pairs = pair_boxes(boxes, truth, pd.Index(["a", "b", "c"]))
        >>> score = WeightedVinBigDataScore(pairs, np.array([0.4, 0.9, 0.0]), np.arange(3), 3)
        >>> score(np.array([[1, 1, 1], [1, 0, 1]])).round(3).tolist()
        [0.667, 1.0]
    """

    def __init__(
        self, pairs: BoxPairs, scores: Floats, clusters: Integers, n_clusters: int
    ) -> None:
        is_empty: npt.NDArray[np.bool_] = pairs.truth.per_image == 0
        matches = match_pairs(pairs, [_IOU], best_only=True)
        self._boxes = WeightedAveragePrecision(matches, clusters, n_clusters, every_recall=True)
        self._no_finding = RankedScores(is_empty, -scores, clusters)  # ranks as 1 - score does

    def __call__(self, weights: Integers) -> Floats:
        """Compute the score, ``(R,)``, under each of R weightings of P patients, ``(R, P)``.

        It is NaN where no image with a lesion has a weight, or none without a lesion.
        """
        of_boxes = self._boxes(weights)[:, 0]
        of_images = self._no_finding.sums(weights).interpolated_precision()
        return (of_boxes + of_images) / 2
