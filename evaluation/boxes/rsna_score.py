"""Score of the RSNA Pneumonia Detection Challenge 2018."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, cached_property

import numpy as np

from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import per_cluster

_IOU_THRESHOLDS = np.nextafter(np.linspace(0.4, 0.75, 8), 1.0)
"""IoU thresholds 0.40, 0.45, ... 0.75, as the next larger floats, since an IoU must exceed them."""


class WeightedRsnaScore:
    """RSNA 2018 score at given score cuts, for many weightings of the patients at once.

    Boxes with a score of at least the cut are called. At one IoU threshold, an image has the value
    ``TP / (TP + FP + FN)``, from its numbers of true positives, false positives and missed lesions.
    The value of the image is the mean over the thresholds 0.40, 0.45, ... 0.75, and the RSNA score
    is the mean over the images. An image with called boxes but no lesion has the value 0; an image
    with neither is left out.

    `clusters` numbers the patient of each image from 0 to `n_clusters` - 1. A call computes the
    score at each of `cuts`, from which `best_cut` chooses.

    Source:
        RSNA Pneumonia Detection Challenge 2018, evaluation page.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.boxes.matching import pair_boxes
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = pd.concat([truth.assign(score=0.9), truth.assign(score=0.4, image_id="b")])
        >>> pairs = pair_boxes(boxes, truth, pd.Index(["a", "b"]))
        >>> score = WeightedRsnaScore(pairs, np.array([0, 1]), 2, cuts=[0.3, 0.5])
        >>> score(np.ones((1, 2), dtype=int)).round(6).tolist()
        [[0.5, 1.0]]
    """

    def __init__(
        self, pairs: BoxPairs, clusters: Integers, n_clusters: int, cuts: Iterable[float] = ()
    ) -> None:
        self.cuts = np.array([*cuts], dtype=np.float64)
        self._n_clusters = n_clusters
        self._matches = match_pairs(pairs, _IOU_THRESHOLDS)
        self._patients = np.asarray(clusters)
        self._n_lesions = per_cluster(pairs.truth.per_image[:, None], clusters, n_clusters)[:, 0]
        self._cached_counts = cache(self._counts)

    def _counts(self, cut: float) -> Floats:
        """Sum the values of each patient's images at a cut, and count the images, ``(2, P)``."""
        called = slice(np.searchsorted(-self._matches.score, -cut, side="right"))
        image = self._matches.image[called]
        hits = self._matches.hit[called]
        n_lesions = self._matches.n_true
        called_and_true = np.bincount(image, minlength=len(n_lesions)) + n_lesions
        score = np.zeros(len(n_lesions))
        for hit in hits.T:
            true_positives = np.bincount(image[hit], minlength=len(n_lesions))
            either = np.maximum(called_and_true - true_positives, 1)
            score += true_positives / either / hits.shape[1]
        sums = [
            np.bincount(self._patients, values, self._n_clusters)
            for values in (score, called_and_true > 0)
        ]
        return np.array(sums)

    @cached_property
    def _tables(self) -> Floats:
        """Sums and counts of `_counts` at all cuts, shape ``(2, cuts, P)``."""
        return np.stack([self._counts(cut) for cut in self.cuts.tolist()], axis=1)

    def __call__(self, weights: Integers) -> Floats:
        """Compute the RSNA score, ``(R, cuts)``, under R weightings of P patients, ``(R, P)``.

        It is in [0, 1], and NaN where every image is left out.
        """
        weight = np.asarray(weights, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weight @ self._tables[0].T) / (weight @ self._tables[1].T))

    def at(self, weight: Floats, cuts: Floats) -> Floats:
        """Compute the RSNA score, ``(R,)``, for each row of weights, ``(R, P)``, at its own cut.

        It is NaN in rows whose cut is NaN, and where every image is left out.
        """
        sums = np.full((2, len(weight)), np.nan)
        for cut in np.unique(cuts[~np.isnan(cuts)]).tolist():
            rows = cuts == cut
            sums[:, rows] = self._cached_counts(cut) @ weight[rows].T
        score_sum, n_images = sums
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(score_sum / n_images)

    def best_cut(self, weights: Integers) -> Floats:
        """Choose the score cut with the highest RSNA score for each row of weights, shape ``(R,)``.

        Of several cuts with the same RSNA score, the first in `cuts` is chosen. Rows without a
        lesion are NaN.
        """
        scores = self(weights)
        best = self.cuts[np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)]
        return np.where(weights @ self._n_lesions > 0, best, np.nan)
