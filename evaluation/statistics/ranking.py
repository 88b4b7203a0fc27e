"""Scores against labels: the rule at a threshold, and AUROC and average precision from one sort.

The bootstrap asks for the same two figures thousands of times with other weights on the same
images. The order of the scores never changes, so it is found once; every replicate is then a
cumulative sum.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.contracts.errors import InputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer[Any]]


def check_truth_and_scores(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Validate labels and scores of the same images.

    Args:
        y_true: Labels, 0 or 1 (or booleans), shape ``(N,)``.
        y_score: Finite scores, the higher the more positive, shape ``(N,)``.

    Returns:
        The labels as booleans and the scores as float64, both shape ``(N,)``.

    Raises:
        InputError: The shapes differ, a label is neither 0 nor 1, or a score is not finite.

    Example:
        >>> check_truth_and_scores([0, 1], [0.2, 0.7])[0].tolist()
        [False, True]
    """
    truth, scores = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != scores.shape:
        raise InputError(
            f"y_true and y_score must be one value per image; got shapes {truth.shape} and "
            f"{scores.shape}"
        )
    wrong = np.flatnonzero((truth != 0) & (truth != 1))
    if wrong.size:
        raise InputError(
            f"y_true must be 0 or 1; row {wrong[0]} is {truth[wrong[0]]!r}: leave images of "
            "unknown label out"
        )
    infinite = np.flatnonzero(~np.isfinite(scores))
    if infinite.size:
        raise InputError(f"y_score must be finite; row {infinite[0]} is {scores[infinite[0]]}")
    return truth.astype(bool), scores


def is_positive(y_score: npt.ArrayLike, threshold: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """The decision rule, of images as of boxes: a score at the threshold is positive.

    Args:
        y_score: Scores, any shape.
        threshold: One, or of a shape that broadcasts with it.

    Example:
        >>> is_positive([0.4, 0.5, 0.6], 0.5).tolist()
        [False, True, True]
    """
    return np.asarray(np.asarray(y_score) >= np.asarray(threshold))


class RankedScores:
    """Labels and scores sorted once, ready for AUROC and average precision under any weights.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Scores, higher is more positive, shape ``(N,)``.
        clusters: The cluster (patient) of each image as an index from 0, shape ``(N,)``;
            weights are then given per cluster. Left out: each image is its own.

    Raises:
        InputError: See `check_truth_and_scores`.

    Example:
        >>> ranked = RankedScores([0, 1, 1], [0.1, 0.4, 0.1])
        >>> ranked.auroc(np.array([[1, 1, 1], [1, 1, 0]])).tolist()
        [0.75, 1.0]
    """

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
        order = np.argsort(-scores, kind="stable")
        falling, positive, of_image = -scores[order], truth[order], of_image[order]
        self._positive, self._negative = of_image[positive], of_image[~positive]
        at_positive, at_negative = falling[positive], falling[~positive]
        # How many images of either kind score strictly above, or at least as high as, a positive.
        self._negative_above = np.searchsorted(at_negative, at_positive, side="left")
        self._negative_upto = np.searchsorted(at_negative, at_positive, side="right")
        self._positive_upto = np.searchsorted(at_positive, at_positive, side="right")
        self._negatives_tied = bool((self._negative_above != self._negative_upto).any())

    def _one_each(self) -> Integers:
        return np.ones((1, self.n_clusters), dtype=np.int32)

    def auroc(self, weights: Integers | None = None) -> Floats:
        """Area under the ROC curve; a tie between a positive and a negative counts half.

        Args:
            weights: How often each cluster counts, whole numbers, shape ``(R, clusters)``;
                left out: once each. Clusters without an image here may follow.

        Returns:
            One area per row, shape ``(R,)``; NaN where a row has only one of the classes.
        """
        return self.figures(self._one_each() if weights is None else weights)["auroc"]

    def average_precision(self, weights: Integers | None = None) -> Floats:
        """Step-wise average precision, tied scores together.

        Args:
            weights: As in `auroc`.

        Returns:
            One figure per row, shape ``(R,)``; NaN where a row has no positive.
        """
        return self.figures(self._one_each() if weights is None else weights)["average_precision"]

    def figures(self, weights: Integers) -> dict[str, Floats]:
        """AUROC and average precision together, sharing the cumulative sums.

        Args:
            weights: How often each cluster counts, shape ``(R, clusters)``.

        Returns:
            ``auroc`` and ``average_precision``, each shape ``(R,)``.
        """
        on_positive = np.take(weights, self._positive, axis=1).astype(np.int32)  # (R, P)
        negatives = _cumulated(np.take(weights, self._negative, axis=1))  # (R, N + 1)
        positives = _cumulated(on_positive)  # (R, P + 1)
        n_positive = positives[:, -1].astype(np.float64)
        n_negative = negatives[:, -1].astype(np.float64)
        false = np.take(negatives, self._negative_upto, axis=1)  # (R, P)
        true = np.take(positives, self._positive_upto, axis=1)  # (R, P)
        losses = np.einsum("rp,rp->r", on_positive, false, dtype=np.int64)
        if self._negatives_tied:
            above = np.take(negatives, self._negative_above, axis=1)
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


def _cumulated(weights: Integers) -> npt.NDArray[np.int32]:
    """Cumulative sum along each row with a leading 0, shape ``(R, n + 1)``."""
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1), dtype=np.int32)
    np.cumsum(weights, axis=1, dtype=np.int32, out=sums[:, 1:])
    return sums


def first_at_least(sums: npt.NDArray[Any], sought: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where each row of running sums first reaches a value, by binary search in all rows at once.

    Args:
        sums: Rows that nowhere fall, shape ``(R, n)``.
        sought: A value for each row, shape ``(R,)``.

    Returns:
        From 0 to n, which a row has that never reaches it, shape ``(R,)``.

    Example:
        >>> sums = np.array([[0, 2, 2], [1, 4, 9], [0, 0, 1]])
        >>> first_at_least(sums, np.array([1, 4, 2])).tolist()
        [1, 1, 3]
    """
    n_rows, length = sums.shape
    rows, low = np.arange(n_rows), np.zeros(n_rows, dtype=np.int64)
    high = np.full(n_rows, length)
    for _ in range(length.bit_length()):
        middle = (low + high) // 2
        below = (middle < high) & (sums[rows, np.minimum(middle, length - 1)] < sought)
        low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
    return low


def curves(y_true: npt.ArrayLike, y_score: npt.ArrayLike) -> dict[str, Floats]:
    """The ROC and the precision-recall curve, one point per distinct score.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Scores, shape ``(N,)``.

    Returns:
        ``threshold`` (falling; the first is infinite: nobody is called positive), ``fpr``,
        ``tpr``, ``precision`` and ``recall``, all of one length. ``precision`` of the first
        point, where nobody is called positive, is NaN; so is a rate without its class.

    Raises:
        InputError: See `check_truth_and_scores`.

    Example:
        >>> curves([0, 1, 1], [0.1, 0.4, 0.3])["tpr"].tolist()
        [0.0, 0.5, 1.0, 1.0]
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
