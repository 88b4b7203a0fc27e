"""IoBB accuracy: true boxes found by the share of a called box that lies on them."""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy  # whose parts load when they are first used

from cxr_compare.evaluation.boxes.cut_counts import sums_at_row_cuts
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_IOBB_THRESHOLDS = (0.1, 0.25, 0.5)


class WeightedIobb:
    """Share of true boxes found, and false positives per image, where IoBB decides.

    Boxes at or above the cut are called. A true box is found where a called box has at least a
    share of its own area on it; a called box that has that on no true box is false. The share of
    found boxes alone rewards marking everything, so it never stands without the false marks.

    Source:
        Wang et al. 2017, ChestX-ray8, section 4.3 (accuracy and average false positives at
        T(IoBB)).
    """

    def __init__(self, pairs: BoxPairs, clusters: Integers, n_clusters: int) -> None:
        owner, self._n_clusters = np.asarray(clusters), n_clusters
        corners, true = pairs.boxes.corners[pairs.box], pairs.truth.corners[pairs.true]
        shared = np.minimum(corners[:, 2:], true[:, 2:]) - np.maximum(corners[:, :2], true[:, :2])
        area = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
        iobb = np.prod(np.maximum(shared, 0), axis=1) / area
        self._score, self._most = pairs.boxes.score, np.zeros(len(pairs.boxes.score))
        np.maximum.at(self._most, pairs.box, iobb)
        self._of_box, self._of_lesion = owner[pairs.boxes.image], owner[pairs.truth.image]
        self._best = np.full((len(_IOBB_THRESHOLDS), len(self._of_lesion)), -np.inf)
        for best, least in zip(self._best, _IOBB_THRESHOLDS, strict=True):
            on = iobb >= least  # the highest score of a box on a lesion
            np.maximum.at(best, pairs.true[on], pairs.boxes.score[pairs.box[on]])
        self._images = np.bincount(owner, minlength=n_clusters)
        self._lesions = np.bincount(owner, weights=pairs.truth.per_image, minlength=n_clusters)
        self._counted = cache(self._counts)

    def _counts(self, cut: float) -> scipy.sparse.csr_matrix:
        """Lesions found and false boxes of each cluster at a cut, ``(2 x 3, clusters)``."""
        called = np.flatnonzero(self._score >= cut)
        false = [self._of_box[called[self._most[called] < least]] for least in _IOBB_THRESHOLDS]
        kinds = [*(self._of_lesion[best >= cut] for best in self._best), *false]
        counts = [np.bincount(owner, minlength=self._n_clusters) for owner in kinds]
        return scipy.sparse.csr_matrix(np.array(counts, dtype=np.float64))

    def at(self, weight: Floats, cuts: Floats) -> Floats:
        """Accuracies, then false positives per image, ``(R, 2 x 3)``, each row at its own cut."""
        own = sums_at_row_cuts(self._counted, 2 * len(_IOBB_THRESHOLDS), weight, cuts)
        size = np.stack([weight @ self._lesions, weight @ self._images], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return own / np.repeat(size, len(_IOBB_THRESHOLDS), axis=1)
