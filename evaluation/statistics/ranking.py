"""AUROC, average precision and curves from one sort of the scores.

The order of the scores is computed once; every replicate of the bootstrap is then a cumulative sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import (
    Flags,
    Floats,
    Integers,
    undefined_is_nan,
)
from cxr_compare.evaluation.statistics.running_sums import cumulative_rows


class FallingScores:
    """Images sorted from the highest score down, to count the positive calls at any threshold.

    An image is called positive if its score is at least the threshold. The patients, numbered from
    0 by `clusters`, may have any whole-number weights, as in resamples of a bootstrap.

    Attributes:
        negated: The scores times -1, from the highest score down, so that the values rise, shape
            ``(N,)``.

    Examples:
        >>> images = FallingScores(np.array([0.2, 0.9, 0.2]), np.array([0, 1, 1]))
        >>> sums = images.sums(np.array([[1, 1], [0, 2]]))
        >>> images.called(sums, np.array([0.2, 0.5])).tolist()
        [3.0, 2.0]
    """

    def __init__(self, scores: Floats, clusters: Integers) -> None:
        order = np.argsort(-scores, kind="stable")
        self.negated = -scores[order]
        self._patient_of_image = clusters[order]

    def weights(self, weights: Integers) -> npt.NDArray[np.int32]:
        """Return the weight of each image, ``(R, N)``, which is that of its patient, ``(R, P)``.

        Images are in the order from the highest score down, in each of R samples.
        """
        return np.take(weights, self._patient_of_image, axis=1).astype(np.int32)

    def sums(self, weights: Integers) -> npt.NDArray[np.int32]:
        """Compute the total weight of the images from the highest score down to each image.

        For weights of P patients in R samples, ``(R, P)``, the sums have a leading 0 and the shape
        ``(R, N + 1)``.
        """
        return cumulative_rows(np.take(weights, self._patient_of_image, axis=1))

    def called(self, sums: npt.NDArray[np.int32], thresholds: Floats) -> Floats:
        """Return the total weight of the images whose score is at least the threshold of a sample.

        `sums` are those of the method `sums`; a sample without a threshold (NaN) has NaN.
        """
        position = np.searchsorted(self.negated, -thresholds, side="right")
        return np.where(np.isnan(thresholds), np.nan, sums[np.arange(len(sums)), position])


class RankedScores:
    """Labels and scores, sorted once, to compute AUROC and average precision many times.

    Each computation may give the patients other weights, as in resamples of a bootstrap. `clusters`
    numbers the patient of each image from 0; without it, every image counts as a separate patient.

    Examples:
        >>> positive = np.array([False, False, True, True])
        >>> ranked = RankedScores(positive, np.array([0.1, 0.4, 0.4, 0.8]))
        >>> ranked.auroc().tolist()
        [0.875]
        >>> ranked.auroc(np.array([[1, 1, 1, 1], [1, 0, 1, 1]])).tolist()
        [0.875, 1.0]
    """

    def __init__(
        self,
        truth: Flags,
        scores: Floats,
        clusters: Integers | None = None,
    ) -> None:
        patients: Integers = np.arange(len(truth)) if clusters is None else clusters
        self.n_clusters = int(patients.max()) + 1 if len(patients) else 0
        self.positive = FallingScores(scores[truth], patients[truth])
        self.negative = FallingScores(scores[~truth], patients[~truth])
        # Number of images of either class that score strictly higher than each positive image
        # ("above"), or at least as high ("upto").
        positives = self.positive.negated
        negatives = self.negative.negated
        self.negative_above = np.searchsorted(negatives, positives, side="left")
        self.negative_upto = np.searchsorted(negatives, positives, side="right")
        self.positive_upto = np.searchsorted(positives, positives, side="right")
        self.negatives_tied = bool((self.negative_above != self.negative_upto).any())

    def auroc(self, weights: Integers | None = None) -> Floats:
        """Compute the AUROC, ``(R,)``, for each of R samples of weighted patients, ``(R, P)``.

        Without weights, each patient counts once (``R = 1``). NaN if a sample lacks a class.
        """
        return self.figures(weights)["auroc"]

    def figures(self, weights: Integers | None = None) -> dict[str, Floats]:
        """Compute AUROC and average precision for each sample of weighted patients, ``(R, P)``.

        In ``auroc`` a tie counts half; in ``average_precision`` tied scores form one step. Both
        have the shape ``(R,)``, and are NaN if a sample lacks a class that the metric needs. The
        last columns of the weights may belong to patients without an image; without weights, each
        patient counts once.
        """
        once = np.ones((1, self.n_clusters), dtype=np.int32)
        return self.sums(once if weights is None else weights).figures()

    def sums(self, weights: Integers) -> RankingSums:
        """Compute running sums of the weights of images, from which all metrics follow."""
        on_positive = self.positive.weights(weights)  # (R, P)
        positives = cumulative_rows(on_positive)  # (R, P + 1)
        return RankingSums(self, on_positive, positives, self.negative.sums(weights))


class RankingSums(NamedTuple):
    """Running sums of the weights of images that are sorted by score, one row for each sample.

    A sample is one set of patient weights, such as a resample of the bootstrap. There are R
    samples, P positive and N negative images.

    Attributes:
        on_positive: Weight of each positive image, from the highest score down, shape ``(R, P)``.
        positives: Running sums of these weights with a leading 0, shape ``(R, P + 1)``.
        negatives: Running sums of the weights of negative images, shape ``(R, N + 1)``.
    """

    ranked: RankedScores
    on_positive: npt.NDArray[np.int32]
    positives: npt.NDArray[np.int32]
    negatives: npt.NDArray[np.int32]

    def figures(self) -> dict[str, Floats]:
        """Compute AUROC and average precision of each sample; see `RankedScores.figures`."""
        ranked = self.ranked
        n_positive = self.positives[:, -1].astype(np.float64)
        n_negative = self.negatives[:, -1].astype(np.float64)
        false = np.take(self.negatives, ranked.negative_upto, axis=1)  # (R, P)
        true = np.take(self.positives, ranked.positive_upto, axis=1)  # (R, P)
        # Twice the number of wrongly ranked pairs; a tie counts once, which is half a pair.
        losses = np.einsum("rp,rp->r", self.on_positive, false, dtype=np.int64)
        if ranked.negatives_tied:
            above = np.take(self.negatives, ranked.negative_above, axis=1)
            losses = losses + np.einsum("rp,rp->r", self.on_positive, above, dtype=np.int64)
        else:
            losses = 2 * losses
        called = true + false
        np.maximum(called, 1, out=called)  # where no image is called, all weights are 0
        gained = np.einsum("rp,rp->r", self.on_positive, true / called)
        with undefined_is_nan():
            pairs = n_positive * n_negative
            return {
                "auroc": np.where(pairs > 0, 1.0 - losses / (2.0 * pairs), np.nan),
                "average_precision": np.where(n_positive > 0, gained / n_positive, np.nan),
            }

    def counts(self, thresholds: Floats) -> dict[str, Floats]:
        """Count ``tp``, ``fp``, ``tn`` and ``fn``, ``(R,)``, of each sample at its threshold.

        A sample without a threshold (NaN) has NaN.

        Examples:
            >>> positive = np.array([False, True, True])
            >>> ranked = RankedScores(positive, np.array([0.2, 0.9, 0.2]))
            >>> counts = ranked.sums(np.array([[1, 1, 1], [1, 2, 1]])).counts(np.array([0.2, 0.5]))
            >>> {name: count.tolist() for name, count in counts.items()}
            {'tp': [2.0, 2.0], 'fp': [1.0, 0.0], 'tn': [0.0, 1.0], 'fn': [0.0, 1.0]}
        """
        tp = self.ranked.positive.called(self.positives, thresholds)
        fp = self.ranked.negative.called(self.negatives, thresholds)
        return {
            "tp": tp,
            "fp": fp,
            "tn": self.negatives[:, -1] - fp,
            "fn": self.positives[:, -1] - tp,
        }


def roc_and_pr_curves(y_true: Flags, y_score: Floats) -> dict[str, Floats]:
    """Compute the ROC and the precision-recall curve, one point per distinct score.

    From the point at which no image is called positive on, ``fpr``, ``recall`` and ``precision``
    have the same shape, ``(distinct scores + 1,)``. The precision is NaN if no image is called
    positive, and a rate is NaN if its class is absent.

    Source:
        Fawcett 2006, "An introduction to ROC analysis".

    Examples:
        >>> curve = roc_and_pr_curves(np.array([False, True, True]), np.array([0.2, 0.9, 0.2]))
        >>> curve["fpr"].tolist(), curve["recall"].tolist()
        ([0.0, 0.0, 1.0], [0.0, 0.5, 1.0])
    """
    order = np.argsort(-y_score, kind="stable")
    scores, truth = y_score[order], y_true[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    true = np.append(0, np.cumsum(truth)[ends]).astype(np.float64)
    false = np.append(0, np.cumsum(~truth)[ends]).astype(np.float64)
    with undefined_is_nan():
        return {
            "fpr": false / np.float64((~truth).sum()),
            "recall": true / np.float64(truth.sum()),
            "precision": true / (true + false),
        }
