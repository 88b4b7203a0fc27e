"""Intersection over the detected box's area: what share of a mark lies on a lesion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.boxes.iou import BoxPairs
from evaluation.statistics.bootstrap import per_cluster
from evaluation.statistics.ranking import Floats, Integers

IOBB_THRESHOLDS = (0.1, 0.25, 0.5)
IOBB_METRICS = tuple(
    f"iobb_{kind}_{round(100 * each)}"
    for kind in ("accuracy", "false_marks")
    for each in IOBB_THRESHOLDS
)
"""Names of the figures in the order of `WeightedIobb`."""


class WeightedIobb:
    """Share of true boxes found, and false marks an image, where IoBB decides.

    Boxes at or above the cut are called. A true box is found where a called box has at least a
    share of its own area on it; a called box that has that on no true box is false. The share of
    found boxes alone rewards marking everything, so it never stands without the false marks.

    Args:
        pairs: Boxes of the images judged.
        clusters: Cluster (patient) of each image as an index from 0, shape ``(images,)``.
        n_clusters: How many clusters weights are given for.
        cut: Score from which boxes are called.
        thresholds: Shares of a called box's area.

    Source:
        Wang et al. 2017, ChestX-ray8, section 4.3 (accuracy and average false positives at
        T(IoBB)).
    """

    def __init__(
        self,
        pairs: BoxPairs,
        clusters: Integers,
        n_clusters: int,
        cut: float,
        thresholds: Sequence[float] = IOBB_THRESHOLDS,
    ) -> None:
        owner, called = np.asarray(clusters), pairs.boxes.score >= cut
        corners, true = pairs.boxes.corners[pairs.box], pairs.true_corners[pairs.true]
        shared = np.minimum(corners[:, 2:], true[:, 2:]) - np.maximum(corners[:, :2], true[:, :2])
        area = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
        iobb = np.prod(np.maximum(shared, 0), axis=1) / area
        found = np.zeros((len(pairs.true_image), len(thresholds)), dtype=bool)
        false = np.repeat(called[:, None], len(thresholds), axis=1)
        for column, least in enumerate(thresholds):
            on = (iobb >= least) & called[pairs.box]
            found[pairs.true[on], column] = True
            false[pairs.box[on], column] = False
        self._found = per_cluster(found, owner[pairs.true_image], n_clusters)
        self._false = per_cluster(false, owner[pairs.boxes.image], n_clusters)
        self._images = np.bincount(owner, minlength=n_clusters)
        self._lesions = np.bincount(owner, weights=pairs.n_true, minlength=n_clusters)

    def __call__(self, weights: Integers) -> Floats:
        """The figures per weighting.

        Args:
            weights: How often each cluster counts, shape ``(R, n_clusters)``.

        Returns:
            Accuracy at each threshold, then false marks an image, shape ``(R, 2 x thresholds)``;
            accuracy is NaN where a weighting has no true box.
        """
        weight = np.asarray(weights, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy = (weight @ self._found) / (weight @ self._lesions)[:, None]
            false = (weight @ self._false) / (weight @ self._images)[:, None]
        return np.hstack([accuracy, false])
