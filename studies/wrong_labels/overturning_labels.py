"""Sensitivity of a comparison of two AUROCs to wrong labels of the test images.

A comparison takes the labels of a test set as true. This module computes how many of the labels
must be wrong to overturn the conclusion, first if the most harmful labels are wrong, and then if
labels are wrong at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats, Integers, check_truth_and_scores
from cxr_compare.evaluation.statistics.bootstrap import cluster_index
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_over_seeds, auroc_parts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.intervals import LEVEL

Labels = npt.NDArray[np.bool_]

_SHARES = (0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
"""Shares of labels that are made wrong at random. With half of them wrong, labels say nothing."""
_Rule = Literal["difference", "interval"]
_RULES: tuple[_Rule, ...] = ("difference", "interval")
_FIRST_BATCH = 1
_GROWTH = 0.1  # a batch of the greedy search is this share of the labels flipped so far
_MOST_CANDIDATES = 30
_MOST_CANDIDATE_IMAGES = 40_000  # number of candidates times images in one step
_FEWEST_DRAWS = 5
_MOST_DRAWS = 20
_MOST_COMPARED = 2_000_000  # number of draws times seeds, shares and images


@dataclass(frozen=True)
class WrongLabels:
    """Numbers of wrong labels that would overturn a comparison of two models' AUROCs.

    The conclusion of the comparison is that the 95 % interval of the difference excludes 0 (the
    difference is shown), or that it does not.

    Attributes:
        shown: True if the difference of the AUROCs is shown with the labels as they are.
        most_harmful: Positions of labels that together overturn the conclusion if all of them are
            wrong, chosen so that few suffice; None if none were found.
        n_images: Number of labels.
        at_random: Smallest tried share of wrong labels that overturns the conclusion in half of the
            random draws; None if no tried share does.
        curve: Results for each share of wrong labels that was tried at random.
    """

    shown: bool
    most_harmful: npt.NDArray[np.int64] | None
    n_images: int
    at_random: float | None
    curve: tuple[RandomErrors, ...]

    @property
    def fewest(self) -> int | None:
        """Number of labels in `most_harmful`, which overturn the conclusion if they are wrong.

        None if no such labels were found.
        """
        return None if self.most_harmful is None else len(self.most_harmful)

    @property
    def fewest_share(self) -> float | None:
        """Number in `fewest` divided by the number of labels; None if `fewest` is None."""
        return None if self.fewest is None else self.fewest / self.n_images


@dataclass(frozen=True)
class RandomErrors:
    """Two models' AUROCs if a given share of the labels, drawn at random, is wrong.

    The AUROCs are mean, lowest and highest of the random draws. `overturned` is the share of the
    draws, in [0, 1], that overturn the conclusion of the comparison.
    """

    share: float
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    overturned: float


def overturning_labels(
    y_true: npt.ArrayLike,
    first: npt.ArrayLike | Sequence[npt.ArrayLike],
    second: npt.ArrayLike | Sequence[npt.ArrayLike],
    patients: npt.ArrayLike | None = None,
    *,
    level: float = LEVEL,
    seed: int = 0,
) -> WrongLabels | None:
    """Find how many labels must be wrong to overturn a comparison of two AUROCs.

    The conclusion is that the interval of the paired difference excludes 0 (the difference is
    shown), or that it does not. A difference that is not shown may become shown in favour of either
    system; the smaller number of labels counts.

    The most harmful labels are those whose change moves the difference most. They are flipped in
    batches, and the influence of the remaining labels is computed again after each batch. The
    number found is enough to overturn the conclusion. The search is greedy, so a slightly smaller
    set may exist. In the random draws, every label is wrong with the same probability.

    Labels are 0 or 1, ``(N,)``. The scores of a model are ``(N,)``, or ``(seeds, N)`` of its
    training seeds. Without `patients`, images are taken as independent. The level is that of the
    interval that decides whether a difference is shown; the seed is that of the random draws. The
    result is None if all labels are equal, or the difference has no interval. Raises InputError if
    a label is neither 0 nor 1, a score is not finite, or the lengths differ.

    Example:
        >>> y_true = np.arange(60) % 2 == 0
        >>> good, poor = y_true + np.arange(60) / 50, np.arange(60) % 7
        >>> result = overturning_labels(y_true, good, poor)
        >>> result.shown, result.fewest
        (True, 6)
    """
    pair = _Pair.from_scores(y_true, first, second, patients, level)
    truth = np.asarray(y_true, dtype=bool)
    standing = pair.standing(truth)
    if standing is None:
        return None
    directions = [-standing] if standing else [-1, 1]
    flips = [_flip(pair, truth, sign, rule) for sign in directions for rule in _RULES]
    enough = [flipped for flipped in flips if flipped is not None]
    flipped = min(enough, key=np.count_nonzero, default=None)
    curve = _random_errors(pair, truth, standing, np.random.default_rng(seed))
    overturning = [errors.share for errors in curve if errors.overturned >= 0.5]
    return WrongLabels(
        shown=standing != 0,
        most_harmful=None if flipped is None else np.flatnonzero(flipped),
        n_images=len(truth),
        at_random=overturning[0] if overturning else None,
        curve=tuple(curve),
    )


@dataclass(frozen=True)
class _Pair:
    """Scores of two systems on the same images, and the interval that decides."""

    systems: tuple[list[Floats], list[Floats]]  # each (N,), one for each training seed
    patient: Integers  # (N,), index from 0
    n_patients: int
    level: float

    @classmethod
    def from_scores(
        cls,
        y_true: npt.ArrayLike,
        first: npt.ArrayLike | Sequence[npt.ArrayLike],
        second: npt.ArrayLike | Sequence[npt.ArrayLike],
        patients: npt.ArrayLike | None,
        level: float,
    ) -> _Pair:
        systems = []
        for scores in (first, second):
            seeds = np.atleast_2d(np.asarray(scores, dtype=np.float64))
            systems.append([check_truth_and_scores(y_true, values)[1] for values in seeds])
        n_images = len(systems[0][0])
        patient, n_patients = cluster_index(np.arange(n_images) if patients is None else patients)
        return cls((systems[0], systems[1]), patient, n_patients, level)

    def estimates(self, truth: Labels) -> list[ClusteredEstimate] | None:
        """Return both AUROCs and their difference; None where these labels lack a class."""
        parts = []
        for seeds in self.systems:
            of_seeds = [auroc_parts(truth, s, self.patient, self.n_patients) for s in seeds]
            known = [part for part in of_seeds if part is not None]
            if len(known) < len(seeds):
                return None
            parts.append(known)
        return [auroc_over_seeds(parts[0]), auroc_over_seeds(parts[1]), auroc_over_seeds(*parts)]

    def conclusion(self, estimates: list[ClusteredEstimate] | None) -> int | None:
        """Return the sign of a shown difference, 0 if it is not shown, None without an interval."""
        if estimates is None:
            return None
        ends = estimates[2].interval_at(self.level)
        if ends is None:
            return None
        return int(ends[0] > 0) - int(ends[1] < 0)

    def end_towards(self, truth: Labels, sign: int) -> float:
        """Return the deciding end of the interval times the sign; the larger, the more harmful."""
        estimates = self.estimates(truth)
        ends = None if estimates is None else estimates[2].interval_at(self.level)
        if ends is None:
            return -np.inf
        shown = self.conclusion(estimates) not in (0, None)
        # A shown difference is overturned when its end towards the sign passes 0, another
        # difference when its other end does.
        toward = max(sign * ends[0], sign * ends[1])
        away = min(sign * ends[0], sign * ends[1])
        return toward if shown else away

    def standing(self, truth: Labels) -> int | None:
        """Return the conclusion for these labels, in the form of `conclusion`."""
        return self.conclusion(self.estimates(truth))


def _flip(pair: _Pair, truth: Labels, sign: int, rule: _Rule) -> Labels | None:
    """Flip labels, the most harmful first, until the conclusion changes towards a sign.

    The rule ``difference`` takes the label that moves the difference most, and ``interval`` the
    label that moves the deciding end of the interval most. Either may find the smaller set.

    The result marks the labels that were flipped, ``(N,)``; it is None where the conclusion does
    not change before a class or half of the labels are used up.
    """
    start = pair.standing(truth)
    flipped = np.zeros(len(truth), dtype=bool)
    batch = _FIRST_BATCH
    while flipped.sum() < len(truth) // 2:
        order = _most_harmful(pair, truth, flipped, sign, batch, rule)
        step = flipped.copy()
        step[order] = True
        now = pair.standing(truth ^ step)
        if now is None:
            return None
        if now != start:
            return _last_of_batch(pair, truth, flipped, order, start)
        flipped = step
        batch = max(_FIRST_BATCH, int(_GROWTH * flipped.sum()))
    return None


def _most_harmful(
    pair: _Pair, truth: Labels, flipped: Labels, sign: int, count: int, rule: _Rule
) -> npt.NDArray[np.int64]:
    """Return the rows whose change moves the difference, or the interval, most towards a sign.

    The interval is computed only where one row is asked for, and only for the candidates that move
    the difference most.
    """
    harm = sign * _influence(pair, truth ^ flipped)
    order = np.argsort(-harm, kind="stable")
    order = order[~flipped[order]]
    n_candidates = min(_MOST_CANDIDATES, _MOST_CANDIDATE_IMAGES // len(truth))
    if rule == "difference" or count > 1 or n_candidates < 2:
        return order[:count]
    ends = []
    for row in order[:n_candidates]:
        labels = truth ^ flipped
        labels[row] ^= True
        ends.append(pair.end_towards(labels, sign))
    return order[[int(np.argmax(ends))]]


def _last_of_batch(
    pair: _Pair, truth: Labels, flipped: Labels, order: Integers, start: int | None
) -> Labels:
    """Flip the shortest beginning of a batch that overturns the conclusion, found by bisection."""
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        step = flipped.copy()
        step[order[:middle]] = True
        if pair.standing(truth ^ step) == start:
            low = middle
        else:
            high = middle
    result = flipped.copy()
    result[order[:high]] = True
    return result


def _influence(pair: _Pair, truth: Labels) -> Floats:
    """Compute the change of the difference of AUROCs by flipping one label, to first order.

    The changes are ``(N,)``. A positive image that becomes negative leaves the mean over positives
    and joins the mean over negatives, and the reverse.
    """
    n_positive = int(truth.sum())
    n_negative = len(truth) - n_positive
    changes = []
    for seeds in pair.systems:
        change = np.zeros(len(truth))
        for scores in seeds:
            outscored, outscoring = _placements(truth, scores)
            auroc = outscored[truth].mean()
            as_positive = (outscored - auroc) / n_positive
            as_negative = (outscoring - auroc) / n_negative
            change += np.where(truth, as_negative - as_positive, as_positive - as_negative)
        changes.append(change / len(seeds))
    return np.asarray(changes[0] - changes[1])


def _placements(truth: Labels, scores: Floats) -> tuple[Floats, Floats]:
    """Return the share of negatives that each image outscores, and of positives that outscore it.

    A tie counts half. Both arrays have shape ``(N,)`` and contain the images of both classes.
    """
    negatives = np.sort(scores[~truth])
    positives = np.sort(scores[truth])
    below = np.searchsorted(negatives, scores, "left") + np.searchsorted(negatives, scores, "right")
    above = np.searchsorted(positives, scores, "left") + np.searchsorted(positives, scores, "right")
    return below / (2 * len(negatives)), 1 - above / (2 * len(positives))


def _random_errors(
    pair: _Pair, truth: Labels, start: int | None, rng: np.random.Generator
) -> list[RandomErrors]:
    """Evaluate labels that are wrong at random, for each of the tried shares."""
    n_seeds = sum(len(seeds) for seeds in pair.systems)
    images = len(truth) * n_seeds * len(_SHARES)
    draws = int(np.clip(_MOST_COMPARED // images, _FEWEST_DRAWS, _MOST_DRAWS))
    curve = []
    for share in _SHARES:
        values = []
        overturned = []
        for _ in range(draws):
            labels = truth ^ (rng.random(len(truth)) < share)
            estimates = pair.estimates(labels)
            if estimates is None:
                continue
            values.append([estimates[0].estimate, estimates[1].estimate])
            overturned.append(pair.conclusion(estimates) != start)
        if values:
            columns = np.asarray(values).T
            ranges = [(float(v.mean()), float(v.min()), float(v.max())) for v in columns]
            share_overturned = float(np.mean(overturned))
            curve.append(RandomErrors(share, ranges[0], ranges[1], share_overturned))
    return curve
