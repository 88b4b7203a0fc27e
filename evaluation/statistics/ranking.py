"""Scores against labels: the rule at a threshold, and AUROC and average precision from one sort.

The order of the scores is found once; every replicate of the bootstrap is then a cumulative sum.
Groups are held against all other images by exchanging patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer[Any]]


def as_array(values: Any) -> npt.NDArray[Any]:
    """Return an array of a list, an array, a Series, or a tensor on any device.

    Example:
        >>> as_array([1, 0]).tolist()
        [1, 0]
    """
    if hasattr(values, "detach"):  # a tensor of torch, maybe on a GPU, maybe with gradients
        values = values.detach().cpu()
    return np.asarray(values)


def check_truth_and_scores(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Validate labels and scores of the same images.

    Example:
        >>> check_truth_and_scores([0, 1], [0.2, 0.7])[0].tolist()
        [False, True]
    """
    truth, scores = as_array(y_true), as_array(y_score).astype(np.float64)
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
        return _cumulated(np.take(weights, self._of_image, axis=1))

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
            positives = _cumulated(on_positive)  # (R, P + 1)
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


def _cumulated(weights: Integers) -> npt.NDArray[np.int32]:
    """Cumulative sum along each row with a leading 0, shape ``(R, n + 1)``."""
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1), dtype=np.int32)
    np.cumsum(weights, axis=1, dtype=np.int32, out=sums[:, 1:])
    return sums


def first_at_least(sums: npt.NDArray[Any], sought: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where each row of running sums first reaches a value, by binary search in all rows at once.

    Shapes: `sums` ``(R, n)``; `sought`, returned ``(R,)``.

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


_BATCH, _MOST_EXCHANGES, _ENOUGH = 1000, 20_000, 10
_CELLS = 2_000_000
_ROUNDING = 1e-9


class _Exchanges(NamedTuple):
    """Which images are inside after each of `n` exchanges, exchange by exchange."""

    n: int
    row: npt.NDArray[np.int64]  # number of the exchange, of each image inside
    image: npt.NDArray[np.int64]

    def sums(self, values: npt.NDArray[Any]) -> Floats:
        """Sums over the images inside, shape ``(n,)``."""
        return np.bincount(self.row, values[self.image], self.n).astype(np.float64)


_Gap = Callable[[_Exchanges], Floats]
"""A figure of the images inside minus that of all others, ``(n,)``."""


class ExchangedPatients:
    """Patients who change places between a group of images and all others.

    They change places who have like numbers (0, 1, more) of positive and of negative images, so
    both sides keep theirs. A patient with images on both sides keeps the number of each class on
    either; which of them these are is drawn. An exchange takes the time of the images inside.

    Shapes: `inside` (the group), `y_true`, `patients` (an index from 0) ``(N,)``.
    """

    def __init__(
        self, inside: npt.NDArray[np.bool_], y_true: npt.NDArray[np.bool_], patients: Integers
    ) -> None:
        self._truth, self._inside = y_true, np.flatnonzero(inside)
        positive, negative, n_inside = (
            np.bincount(patients[of], minlength=patients.max() + 1)
            for of in (y_true, ~y_true, inside)
        )
        self._images, self._by_patient = positive + negative, np.argsort(patients, kind="stable")
        whole = (n_inside == 0) | (n_inside == self._images)
        kind = np.where(whole, np.minimum(positive, 2) * 3 + np.minimum(negative, 2), 0)
        alike = [np.flatnonzero(kind == like) for like in np.unique(kind[kind > 0])]
        self._alike = [(who, int(np.count_nonzero(n_inside[who]))) for who in alike]
        owner = np.where(whole[patients], -1, 2 * patients + y_true)
        self._mixed = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
        self._owner, self._mixed_inside = owner[self._mixed], inside[self._mixed]

    def draw(self, count: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Which images are inside after so many exchanges, shape ``(count, N)``."""
        members, drawn = np.zeros((count, len(self._truth)), dtype=bool), self._draw(count, rng)
        members[drawn.row, drawn.image] = True
        return members

    def _draw(self, count: int, rng: np.random.Generator) -> _Exchanges:
        drawn = [who[_subsets(len(who), inside, count, rng)] for who, inside in self._alike]
        patients = np.hstack([np.empty((count, 0), dtype=np.int64), *drawn])
        size, rows = self._images[patients], np.arange(count)
        before = (np.cumsum(self._images) - self._images)[patients].ravel()
        place = np.repeat(before - np.cumsum(size) + size.ravel(), size.ravel())
        order = np.argsort(self._owner + rng.random((count, len(self._owner))), axis=1)
        mixed = self._mixed[order[:, self._mixed_inside]]
        return _Exchanges(
            count,
            np.append(np.repeat(rows, size.sum(axis=1)), np.repeat(rows, mixed.shape[1])),
            np.append(self._by_patient[place + np.arange(len(place))], mixed),
        )

    def auroc_gap(self, scores: Floats) -> _Gap:
        """Of AUROC; what is outside follows from all images and those inside."""
        truth, ranks = self._truth, np.unique(scores, return_inverse=True)[1]
        at = [np.bincount(ranks[of], minlength=ranks.max() + 1) for of in (truth, ~truth)]
        positive_below, negative_below = (np.cumsum(n) - n / 2 for n in at)
        n_positive, n_negative = (n.sum() for n in at)
        won = np.where(truth, negative_below[ranks], n_positive - positive_below[ranks])

        def gap(drawn: _Exchanges) -> Floats:
            place = drawn.row * (ranks.max() + 1) + ranks[drawn.image]
            of, positive, negative = truth[drawn.image], drawn.sums(truth), drawn.sums(~truth)
            rivals = np.sort(place[~of])  # those of earlier exchanges are below all
            upto = sum(np.searchsorted(rivals, place[of], side=s) for s in ("left", "right")) / 2
            earlier = positive * (np.cumsum(negative) - negative)
            inside = np.bincount(drawn.row[of], upto, drawn.n) - earlier
            outside = won[truth].sum() - drawn.sums(won) + inside
            pairs = (n_positive - positive) * (n_negative - negative)
            return np.asarray(inside / (positive * negative) - outside / pairs)

        return gap

    def share_gap(self, counted: Floats, drawn: _Exchanges) -> Floats:
        """The share of images that count inside minus that outside, ``(n,)``."""
        hits, size = drawn.sums(counted), np.bincount(drawn.row, minlength=drawn.n)
        return np.asarray(hits / size - (counted.sum() - hits) / (len(counted) - size))

    def p_values(self, gaps: Mapping[str, Sequence[_Gap]], seed: int = 0) -> dict[str, float]:
        """Two-sided p-values of gaps, the mean over seeds, of systems and of the first minus each.

        Patients are exchanged until 10 exchanges give at least as large a gap of each, 20,000
        times at most. A gap that is undefined counts as large in an exchange, and has no p-value
        where it is that of the images as they are.

        Source:
            Besag and Clifford 1991, when to stop; Davison and Hinkley 1997, section 4.3.
        """

        def sizes(drawn: _Exchanges) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                seeds = [[gap(drawn) for gap in of_system] for of_system in gaps.values()]
            means = np.transpose([np.mean(each, axis=0) for each in seeds])
            return np.abs(np.hstack([means, means[:, :1] - means[:, 1:]]))

        rng, (first, *others) = np.random.default_rng(seed), gaps
        as_they_are = _Exchanges(1, np.zeros_like(self._inside), self._inside)
        least = sizes(as_they_are)[0] - _ROUNDING
        known, extreme, done = ~np.isnan(least), np.zeros(len(least)), 0
        rows = max(1, min(_BATCH, _CELLS // len(self._inside)))
        while done < _BATCH or (done < _MOST_EXCHANGES and (extreme[known] < _ENOUGH).any()):
            extreme += (~(sizes(self._draw(rows, rng)) < least)).sum(axis=0)
            done += rows
        p_values = np.where(known, (extreme + 1) / (done + 1), np.nan).tolist()
        return dict(zip([*gaps, *(f"{first} - {n}" for n in others)], p_values, strict=True))


def _subsets(n: int, k: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw `k` of `n` numbers from 0 without replacement, so many times, ``(count, k)``."""
    if 3 * k > n:
        return np.argpartition(rng.random((count, n)), k - 1, axis=1)[:, :k]
    drawn = rng.integers(n, size=(count, k))
    while True:
        drawn.sort(axis=1)
        twice = np.nonzero(drawn[:, 1:] == drawn[:, :-1])
        if not len(twice[0]):
            return drawn
        drawn[twice] = rng.integers(n, size=len(twice[0]))
