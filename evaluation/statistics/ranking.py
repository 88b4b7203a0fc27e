"""Scores against labels: the rule at a threshold, and AUROC and average precision from one sort.

The order of the scores is found once; every replicate of the bootstrap is then a cumulative sum.
Groups are held against all other images by exchanging patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats, Integers, check_truth_and_scores
from cxr_compare.evaluation.statistics.running_sums import cumulative_rows, first_at_least


class FallingScores:
    """Images from the highest score down, ready for counts at any threshold under any weights.

    `negated` are the scores in that order, times -1, so that they rise.

    Example:
        >>> images = FallingScores(np.array([0.2, 0.9, 0.2]), np.array([0, 1, 1]))
        >>> sums = images.sums(np.array([[1, 1], [0, 2]]))
        >>> images.called(sums, np.array([0.2, 0.5])).tolist()
        [3.0, 2.0]
    """

    def __init__(self, scores: Floats, clusters: Integers) -> None:
        order = np.argsort(-scores, kind="stable")
        self.negated, self._of_image = -scores[order], clusters[order]

    def weights(self, weights: Integers) -> npt.NDArray[np.int32]:
        """The weight of each image, shape ``(R, N)``."""
        return np.take(weights, self._of_image, axis=1).astype(np.int32)

    def sums(self, weights: Integers) -> npt.NDArray[np.int32]:
        """Running sums of the weights of clusters, shape ``(R, N + 1)`` with a leading 0."""
        return cumulative_rows(np.take(weights, self._of_image, axis=1))

    def called(self, sums: npt.NDArray[np.int32], thresholds: Floats) -> Floats:
        """The weight that scores at least each row's own threshold; NaN without one."""
        place = np.searchsorted(self.negated, -thresholds, side="right")
        return np.where(np.isnan(thresholds), np.nan, sums[np.arange(len(sums)), place])


class RankedScores:
    """Labels and scores sorted once, ready for AUROC and average precision under any weights."""

    def __init__(
        self,
        y_true: npt.ArrayLike,
        y_score: npt.ArrayLike,
        clusters: Integers | Sequence[int] | None = None,
    ) -> None:
        truth, scores = check_truth_and_scores(y_true, y_score)
        of_image = np.arange(len(truth)) if clusters is None else np.asarray(clusters)
        if of_image.shape != truth.shape:
            raise InputError(f"clusters must name one cluster per image; got {of_image.shape}")
        self.n_clusters = int(of_image.max()) + 1 if len(of_image) else 0
        self.positive = FallingScores(scores[truth], of_image[truth])
        self.negative = FallingScores(scores[~truth], of_image[~truth])
        at_positive, at_negative = self.positive.negated, self.negative.negated
        # How many images of either kind score strictly above, or at least as high as, a positive.
        self.negative_above = np.searchsorted(at_negative, at_positive, side="left")
        self.negative_upto = np.searchsorted(at_negative, at_positive, side="right")
        self.positive_upto = np.searchsorted(at_positive, at_positive, side="right")
        self.negatives_tied = bool((self.negative_above != self.negative_upto).any())

    def auroc(self, weights: Integers | None = None) -> Floats:
        """See `figures`."""
        return self.figures(weights)["auroc"]

    def figures(self, weights: Integers | None = None) -> dict[str, Floats]:
        """``auroc``, in which a tie counts half, and ``average_precision``, tied scores together.

        Each has shape ``(R,)``, NaN where a row lacks a class that it needs. `weights` are whole
        numbers, ``(R, clusters)``; clusters without an image may follow.
        """
        once = np.ones((1, self.n_clusters), dtype=np.int32)
        return self.sums(once if weights is None else weights).figures()

    def sums(self, weights: Integers, beside: RankingSums | None = None) -> RankingSums:
        """Running sums of weights, from which every figure of the ranking follows."""
        if beside is None:
            on_positive = self.positive.weights(weights)  # (R, P)
            positives = cumulative_rows(on_positive)  # (R, P + 1)
        else:
            on_positive, positives = beside.on_positive, beside.positives
        return RankingSums(self, on_positive, positives, self.negative.sums(weights))


class RankingSums(NamedTuple):
    """A ranking under rows of weights."""

    ranked: RankedScores  # the ranking
    # weight of each positive, from the highest score down, shape `(R, P)`
    on_positive: npt.NDArray[np.int32]
    positives: npt.NDArray[np.int32]  # running sums of that, with a leading 0, shape `(R, P + 1)`
    negatives: npt.NDArray[np.int32]  # the same of negatives, shape `(R, N + 1)`

    def figures(self) -> dict[str, Floats]:
        """As `RankedScores.figures`."""
        ranked, on_positive = self.ranked, self.on_positive
        n_positive = self.positives[:, -1].astype(np.float64)
        n_negative = self.negatives[:, -1].astype(np.float64)
        false = np.take(self.negatives, ranked.negative_upto, axis=1)  # (R, P)
        true = np.take(self.positives, ranked.positive_upto, axis=1)  # (R, P)
        losses = np.einsum("rp,rp->r", on_positive, false, dtype=np.int64)
        if ranked.negatives_tied:
            above = np.take(self.negatives, ranked.negative_above, axis=1)
            losses = losses + np.einsum("rp,rp->r", on_positive, above, dtype=np.int64)
        else:
            losses = 2 * losses
        called = true + false
        np.maximum(called, 1, out=called)  # where nobody is called, nobody is weighted either
        gained = np.einsum("rp,rp->r", on_positive, true / called)
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = n_positive * n_negative
            return {
                "auroc": np.where(pairs > 0, 1.0 - losses / (2.0 * pairs), np.nan),
                "average_precision": np.where(n_positive > 0, gained / n_positive, np.nan),
            }

    def counts(self, thresholds: Floats) -> dict[str, Floats]:
        """``tp``, ``fp``, ``tn`` and ``fn`` of each row at its own threshold, NaN without one.

        Example:
            >>> ranked = RankedScores([0, 1, 1], [0.2, 0.9, 0.2])
            >>> counts = ranked.sums(np.array([[1, 1, 1], [1, 2, 1]])).counts(np.array([0.2, 0.5]))
            >>> {name: count.tolist() for name, count in counts.items()}
            {'tp': [2.0, 2.0], 'fp': [1.0, 0.0], 'tn': [0.0, 1.0], 'fn': [0.0, 1.0]}
        """
        tp = self.ranked.positive.called(self.positives, thresholds)
        fp = self.ranked.negative.called(self.negatives, thresholds)
        tn, fn = self.negatives[:, -1] - fp, self.positives[:, -1] - tp
        return {"tp": tp, "fp": fp, "tn": tn, "fn": fn}

    def matched(self, level: float) -> dict[str, Floats]:
        """``recall`` at a specificity, and ``specificity`` at a recall, on the ROC curve itself.

        Points of the curve (one per distinct score) are joined by straight lines; where the curve
        runs straight up or along at the level, its better end counts. NaN without both classes.

        Source:
            Fawcett 2006, interpolation between ROC points.

        Example:
            >>> ranked = RankedScores([1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.1])
            >>> found = ranked.sums(np.ones((1, 5), dtype=int)).matched(0.9)
            >>> {name: values.round(3).tolist() for name, values in found.items()}
            {'recall': [0.5], 'specificity': [0.667]}
        """
        n_positive = self.positives[:, -1].astype(np.float64)
        n_negative = self.negatives[:, -1].astype(np.float64)
        positive = (self.ranked.positive.negated, self.positives)
        negative = (self.ranked.negative.negated, self.negatives)
        if not (len(positive[0]) and len(negative[0])):
            undefined = np.full(len(n_positive), np.nan)
            return {"recall": undefined, "specificity": undefined.copy()}
        # Rounded: 10 negatives at a specificity of 0.9 allow 1 false positive, not 0.9999.
        allowed = np.round(n_negative * (1 - level), 9)
        needed = np.round(n_positive * level, 9)
        above = first_at_least(self.negatives[:, 1:], np.floor(allowed) + 1)
        reached = first_at_least(self.positives[:, 1:], np.ceil(needed))
        with np.errstate(invalid="ignore", divide="ignore"):
            tp = _joined(above, allowed, negative, positive)
            tp = np.where(allowed >= n_negative, n_positive, tp)
            fp = np.where(needed <= 0, 0.0, _joined(reached, needed, positive, negative))
            both = n_positive * n_negative > 0
            return {
                "recall": np.where(both, tp / n_positive, np.nan),
                "specificity": np.where(both, 1 - fp / n_negative, np.nan),
            }


_Class = tuple[Floats, npt.NDArray[np.int32]]
"""Scores of one class, falling and negated, and the running sums of their weights."""


def _joined(place: npt.NDArray[np.int64], wanted: Floats, own: _Class, other: _Class) -> Floats:
    """The other class's count where the ROC curve crosses a count of one class.

    `place` is the image of the class at which the count is reached; all images of its score form
    one line of the curve.
    """
    scores = own[0][np.minimum(place, len(own[0]) - 1)]
    rows = np.arange(len(place))

    def count(of: _Class, side: Literal["left", "right"]) -> Floats:
        falling, sums = of
        return np.asarray(sums[rows, np.searchsorted(falling, scores, side=side)], np.float64)

    begin, before = count(own, "left"), count(other, "left")
    share = (wanted - begin) / (count(own, "right") - begin)
    return before + share * (count(other, "right") - before)


def roc_and_pr_curves(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> dict[str, Floats]:
    """The ROC and the precision-recall curve, one point per distinct score.

    ``threshold`` falls from infinity, where nobody is called positive and precision is NaN; so is
    a rate without its class.
    """
    truth, scores = check_truth_and_scores(y_true, y_score)
    order = np.argsort(-scores, kind="stable")
    scores, truth = scores[order], truth[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    true = np.append(0, np.cumsum(truth)[ends]).astype(np.float64)
    false = np.append(0, np.cumsum(~truth)[ends]).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = true / np.float64(truth.sum())
        return {
            "threshold": np.append(np.inf, scores[ends]),
            "fpr": false / np.float64((~truth).sum()),
            "tpr": recall,
            "precision": true / (true + false),
            "recall": recall.copy(),
        }
