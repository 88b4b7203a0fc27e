"""Score of the RSNA Pneumonia Detection Challenge 2018."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, cached_property

import numpy as np
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.boxes.cut_counts import sums_at_row_cuts
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import per_cluster

_IOU_THRESHOLDS = np.nextafter(np.linspace(0.4, 0.75, 8), 1.0)
"""IoU thresholds of the score; just above, since an IoU must exceed them."""


class WeightedRsnaScore:
    """RSNA 2018 score at several score cuts, for many image weightings at once.

    Boxes at or above the cut are called. An image scores the mean over IoU thresholds of
    ``TP / (TP + FP + FN)``. An image with a called box and no lesion scores 0; one without called
    boxes and lesions is left out. The score is the mean over images.

    Args:
        pairs: Predicted with true boxes.
        clusters: Number of each image's patient from 0, shape ``(images,)``.
        n_clusters: Number of patients, P.
        cuts: Score cuts, shape ``(cuts,)``, for calling the object and `best_cut`.

    Attributes:
        cuts: The score cuts, shape ``(cuts,)``.

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

    def _counts(self, cut: float) -> scipy.sparse.csr_matrix:
        """Sum scores and count images of each patient at a cut, shape ``(2, P)``."""
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
        return scipy.sparse.csr_matrix(np.array(sums))

    @cached_property
    def _tables(self) -> Floats:
        """Counts at all cuts, shape ``(2, cuts, P)``."""
        return np.stack([self._counts(cut).toarray() for cut in self.cuts.tolist()], axis=1)

    def __call__(self, weights: Integers) -> Floats:
        """Return the score per weighting and cut, ``(R, cuts)``; NaN if every image is left out."""
        weight = np.asarray(weights, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weight @ self._tables[0].T) / (weight @ self._tables[1].T))

    def at(self, weight: Floats, cuts: Floats) -> Floats:
        """Compute the score of each row of weights at its own score cut.

        Args:
            weight: Weights of patients, shape ``(R, P)``.
            cuts: Score cut of each row, shape ``(R,)``; NaN where a row has none.

        Returns:
            Scores, shape ``(R,)``; NaN without a cut.
        """
        score_sum, n_images = sums_at_row_cuts(self._cached_counts, 2, weight, cuts).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(score_sum / n_images)

    def best_cut(self, weights: Integers) -> Floats:
        """Choose the cut of the highest score of each row, the lowest of equals.

        Args:
            weights: Weights of patients, shape ``(R, P)``.

        Returns:
            Cuts, shape ``(R,)``; NaN where a row has no lesion.
        """
        scores = self(weights)
        best = self.cuts[np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)]
        return np.where(weights @ self._n_lesions > 0, best, np.nan)
