"""IoBB: lesions are found if a large enough share of a called box's area lies on them.

IoBB is the intersection of a predicted and a true box over the area of the predicted bounding box.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.boxes.cut_counts import sums_at_row_cuts
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

IOBB_THRESHOLDS = (0.1, 0.25, 0.5)
"""IoBB thresholds: least share of a called box's area that must lie on a true box."""


class WeightedIobb:
    """Share of true boxes found by IoBB and false positives per image, for many weightings.

    IoBB (intersection over the detected bounding box) is the share of a predicted box's area that
    lies on a true box. Boxes with a score of at least a cut are called. A true box is found if the
    IoBB of some called box with it reaches a threshold; the thresholds are 0.1, 0.25 and 0.5
    (`IOBB_THRESHOLDS`). A called box whose IoBB with every true box is below the threshold is a
    false positive. The share of found boxes and the number of false positives are reported
    together, because a system that covers the whole image with boxes finds every true box.

    The figures are computed for many weightings of the patients at once.

    Args:
        pairs: Pairs of predicted and true boxes of the same image, as `pair_boxes` makes them.
        clusters: Patient of each image as a whole number from 0 to P - 1, shape ``(images,)``.
        n_clusters: Number of patients, P.

    Source:
        Wang et al. 2017 (ChestX-ray8), section 4.3: accuracy and average number of false positives
        at T(IoBB).

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.boxes.matching import pair_boxes
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> pairs = pair_boxes(truth.assign(x2=12.0, score=0.9), truth, pd.Index(["a"]))
        >>> WeightedIobb(pairs, np.array([0]), 1).at(np.ones((1, 1)), np.array([0.5])).tolist()
        [[1.0, 1.0, 0.0, 0.0, 0.0, 1.0]]
    """

    def __init__(self, pairs: BoxPairs, clusters: Integers, n_clusters: int) -> None:
        owner = np.asarray(clusters)
        self._n_clusters = n_clusters
        iobb = _iobb(pairs)
        n_boxes = len(pairs.boxes.score)
        self._score = pairs.boxes.score
        self._highest_iobb = np.zeros(n_boxes)
        np.maximum.at(self._highest_iobb, pairs.box, iobb)
        self._patient_of_box = owner[pairs.boxes.image]
        self._patient_of_lesion = owner[pairs.truth.image]
        # Highest score of a box that finds each lesion, one row for each threshold.
        self._best_score = np.full((len(IOBB_THRESHOLDS), len(pairs.truth.image)), -np.inf)
        for best_score, threshold in zip(self._best_score, IOBB_THRESHOLDS, strict=True):
            on_lesion = iobb >= threshold
            scores = pairs.boxes.score[pairs.box[on_lesion]]
            np.maximum.at(best_score, pairs.true[on_lesion], scores)
        self._n_images = np.bincount(owner, minlength=n_clusters)
        self._n_lesions = np.bincount(owner, weights=pairs.truth.per_image, minlength=n_clusters)
        self._cached_counts = cache(self._counts)

    def _counts(self, cut: float) -> scipy.sparse.csr_matrix:
        """Count found lesions and false boxes of each patient at a cut.

        The result has the shape ``(6, P)``: found lesions at each of the three thresholds, then
        false boxes at each of them.
        """
        called = np.flatnonzero(self._score >= cut)
        patients = [self._patient_of_lesion[best >= cut] for best in self._best_score]
        for threshold in IOBB_THRESHOLDS:
            false = called[self._highest_iobb[called] < threshold]
            patients.append(self._patient_of_box[false])
        counts = [np.bincount(owners, minlength=self._n_clusters) for owners in patients]
        return scipy.sparse.csr_matrix(np.array(counts, dtype=np.float64))

    def at(self, weight: Floats, cuts: Floats) -> Floats:
        """Compute the figures for each row of weights at the row's own score cut.

        Args:
            weight: Weights of P patients in R weightings, shape ``(R, P)``, such as how often each
                patient was drawn in each of R bootstrap resamples.
            cuts: Score cut of each row of `weight`, shape ``(R,)``; NaN where a row has no cut.

        Returns:
            The share of lesions found at each of the IoBB thresholds 0.1, 0.25 and 0.5, then the
            false positives per image at each of them, shape ``(R, 6)``. All are NaN in rows without
            a cut; the shares are NaN in rows without a lesion.
        """
        n_thresholds = len(IOBB_THRESHOLDS)
        sums = sums_at_row_cuts(self._cached_counts, 2 * n_thresholds, weight, cuts)
        sizes = np.stack([weight @ self._n_lesions, weight @ self._n_images], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return sums / np.repeat(sizes, n_thresholds, axis=1)


def _iobb(pairs: BoxPairs) -> Floats:
    """Return the IoBB of each pair: the share of the predicted box's area on the true box."""
    box = pairs.boxes.corners[pairs.box]
    true = pairs.truth.corners[pairs.true]
    sides = np.minimum(box[:, 2:], true[:, 2:]) - np.maximum(box[:, :2], true[:, :2])
    area = np.prod(box[:, 2:] - box[:, :2], axis=1)
    return np.asarray(np.prod(np.maximum(sides, 0), axis=1) / area)
