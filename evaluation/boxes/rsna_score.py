"""Score of the RSNA Pneumonia Detection Challenge 2018."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, cached_property

import numpy as np
import scipy  # whose parts load when they are first used

from cxr_compare.evaluation.boxes.cut_counts import sums_at_row_cuts
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import per_cluster

_RSNA_IOU = np.nextafter(np.linspace(0.4, 0.75, 8), 1.0)
"""IoU thresholds of the RSNA score; just above, since an IoU must exceed them."""


class WeightedRsnaScore:
    """The RSNA 2018 score at several score cuts.

    Boxes at or above the cut are called. An image scores the mean over IoU thresholds of
    ``TP / (TP + FP + FN)``: a call where nothing is true scores 0, an image without calls and
    lesions is left out. The figure is the mean over images.

    Source:
        RSNA Pneumonia Detection Challenge 2018, evaluation page.
    """

    def __init__(
        self, pairs: BoxPairs, clusters: Integers, n_clusters: int, cuts: Iterable[float] = ()
    ) -> None:
        self.cuts, self._n_clusters = np.array([*cuts], dtype=np.float64), n_clusters
        self._matches, self._owner = match_pairs(pairs, _RSNA_IOU), np.asarray(clusters)
        self._lesions = per_cluster(pairs.truth.per_image[:, None], clusters, n_clusters)[:, 0]
        self._counted = cache(self._counts)

    def _counts(self, cut: float) -> scipy.sparse.csr_matrix:
        """Sum of scores and number of images of each cluster at a cut, ``(2, clusters)``."""
        called = slice(np.searchsorted(-self._matches.score, -cut, side="right"))
        image, hits = self._matches.image[called], self._matches.hit[called]
        n_lesions = self._matches.n_true
        marks = np.bincount(image, minlength=len(n_lesions)) + n_lesions
        score = np.zeros(len(marks))
        for hit in hits.T:
            found = np.bincount(image[hit], minlength=len(marks))
            score += found / np.maximum(marks - found, 1) / hits.shape[1]
        sums = [np.bincount(self._owner, of, self._n_clusters) for of in (score, marks > 0)]
        return scipy.sparse.csr_matrix(np.array(sums))

    @cached_property
    def _tables(self) -> Floats:
        return np.stack([self._counts(cut).toarray() for cut in self.cuts.tolist()], axis=1)

    def __call__(self, weights: Integers) -> Floats:
        """The score per weighting and cut, ``(R, cuts)``; NaN where every image is left out."""
        weight = np.asarray(weights, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weight @ self._tables[0].T) / (weight @ self._tables[1].T))

    def at(self, weight: Floats, cuts: Floats) -> Floats:
        """The score of each row of weights at its own cut, both ``(R,)``; NaN without one."""
        value, counted = sums_at_row_cuts(self._counted, 2, weight, cuts).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(value / counted)

    def best_cut(self, weights: Integers) -> Floats:
        """The cut of the highest score of each row, of equals the lowest; NaN without a lesion."""
        scores = self(weights)
        best = self.cuts[np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)]
        return np.where(weights @ self._lesions > 0, best, np.nan)
