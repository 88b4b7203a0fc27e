"""Figures of called boxes, an operating point: their F1 at an IoU, and false marks per image."""

from __future__ import annotations

from functools import cache

import numpy as np

from cxr_compare.evaluation.boxes.lesion_hits import find_lesions
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import per_cluster

_IOU = 0.5


class WeightedCalls:
    """F1 of called boxes at IoU 0.5, and false marks per image, for many weightings of patients.

    Boxes with a score of at least a cut are called. For the F1, each lesion takes at most one
    called box with an IoU of at least 0.5, as COCO matches them; every other called box is a false
    positive. A false mark is a called box that hits no lesion by an IoU of at least 0.2, as in the
    FROC curve. `clusters` numbers the patient of each image from 0 to `n_clusters` - 1.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.boxes.matching import pair_boxes
        >>> truth = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [4.0],
        ...     "y2": [2.0]})
        >>> boxes = pd.concat([truth.assign(score=1.0), truth.assign(score=1.0, image_id="b")])
        >>> pairs = pair_boxes(boxes, truth, pd.Index(["a", "b"]))
        >>> calls = WeightedCalls(pairs, np.array([0, 1]), 2)
        >>> calls.at(np.ones((1, 2)), np.array([0.5])).round(3).tolist()
        [[0.667, 0.5]]
    """

    def __init__(self, pairs: BoxPairs, clusters: Integers, n_clusters: int) -> None:
        self._patients = np.asarray(clusters)
        self._n_clusters = n_clusters
        self._matches = match_pairs(pairs, [_IOU])
        self._marks = find_lesions(pairs)
        counts = np.column_stack([pairs.truth.per_image, np.ones(len(pairs.truth.per_image))])
        self._lesions_and_images = per_cluster(counts, clusters, n_clusters).T  # (2, P)
        self._cached_counts = cache(self._counts)

    def _counts(self, cut: float) -> Floats:
        """Count hits, called boxes and false marks of each patient at a cut, ``(3, P)``."""
        called = self._matches.score >= cut
        image = self._matches.image[called]
        hit = image[self._matches.hit[called, 0]]
        is_false = self._marks.false & (self._marks.mark_score >= cut)
        false = self._marks.mark_image[is_false]
        return np.array(
            [
                np.bincount(self._patients[images], minlength=self._n_clusters)
                for images in (hit, image, false)
            ],
            dtype=np.float64,
        )

    def at(self, weight: Floats, cuts: Floats) -> Floats:
        """Compute both figures, ``(R, 2)``, for R rows of weights, each at its own score cut.

        They are NaN in rows whose cut is NaN, and where there is neither a lesion nor a called box,
        or no image.
        """
        sums = np.full((3, len(weight)), np.nan)
        for cut in np.unique(cuts[~np.isnan(cuts)]).tolist():
            rows = cuts == cut
            sums[:, rows] = self._cached_counts(cut) @ weight[rows].T
        hits, called, false = sums
        n_lesions, n_images = self._lesions_and_images @ weight.T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.column_stack([2 * hits / (called + n_lesions), false / n_images])
