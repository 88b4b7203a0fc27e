"""Thresholds chosen again on resampled validation patients, as `choose_threshold` chooses them.

A threshold is an estimate, too: another sample of validation patients would have given another
one. Every replicate of the bootstrap therefore draws validation patients as well, the same for
all systems, and chooses every threshold again. All replicates are rows of running sums along the
validation scores, so no Python loop runs over them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from data_prep.contracts.errors import InputError
from evaluation.decisions.thresholds import Policy, check_policy
from evaluation.statistics.bootstrap import Resamples, SegmentSums, cluster_bootstrap
from evaluation.statistics.ranking import (
    Floats,
    Integers,
    check_truth_and_scores,
    first_at_least,
)

Name = TypeVar("Name", bound=Hashable)
_FEWEST_MISSES = 2
"""A floor that allows fewer on validation sets its threshold by the very lowest or highest score.

How far an extreme varies no bootstrap can say: it is drawn again in most resamples.
"""
_STREAM = 1
"""Of random numbers: draws of validation patients owe nothing to those of test patients."""


@dataclass(frozen=True)
class ValidationScores:
    """What thresholds are chosen on: validation images, or studies or patients, of one system."""

    y_true: npt.NDArray[np.bool_]  # shape `(M,)`, bool
    scores: Floats  # shape `(M,)`, float64
    patients: npt.NDArray[np.str_]  # name of the patient of each, shape `(M,)`

    def __post_init__(self) -> None:
        truth, scores = check_truth_and_scores(self.y_true, self.scores)
        patients = np.asarray(self.patients, dtype=str)
        if patients.shape != truth.shape:
            raise InputError(f"validation: {len(truth)} scores, patients of {len(patients)}")
        for name, values in (("y_true", truth), ("scores", scores), ("patients", patients)):
            object.__setattr__(self, name, values)

    @property
    def n_positive(self) -> int:
        """How many are positive."""
        return int(self.y_true.sum())

    def too_few_for(self, policy: str) -> str:
        """Why resamples cannot say how far a policy's threshold varies; empty where they can.

        Example:
            >>> kept = ValidationScores([True] * 12 + [False] * 40, range(52), ["p"] * 52)
            >>> kept.too_few_for("specificity>=0.90"), kept.too_few_for("max_f1")
            ('', '')
            >>> kept.too_few_for("sensitivity>=0.95")
            'the floor allows 0 of 12 validation positives to be missed; an interval needs 2'
        """
        wanted = check_policy(policy)
        if wanted.kind not in ("sensitivity", "specificity") or wanted.value is None:
            return ""
        positive = wanted.kind == "sensitivity"
        count = self.n_positive if positive else len(self.y_true) - self.n_positive
        allowed = math.floor(count * (1 - wanted.value) + 1e-9)
        if allowed >= _FEWEST_MISSES:
            return ""
        kind, error = ("positives", "missed") if positive else ("negatives", "called positive")
        return (
            f"the floor allows {allowed} of {count} validation {kind} to be {error}; an interval "
            f"needs {_FEWEST_MISSES}"
        )


def refit_thresholds(
    chosen: Mapping[Name, tuple[ValidationScores, Sequence[str]]], resamples: Resamples
) -> dict[Name, dict[str, Floats]]:
    """Choose the thresholds of all systems again on the same resamples of validation patients.

    Returns by system and policy the threshold of every resample, shape ``(R,)``; NaN where that
    validation set gives none.
    """
    if not chosen:
        return {}
    names = np.unique(np.concatenate([validation.patients for validation, _ in chosen.values()]))
    refits = {
        name: _ThresholdRefit(
            validation, policies, np.searchsorted(names, validation.patients), len(names)
        )
        for name, (validation, policies) in chosen.items()
    }

    def statistic(weights: npt.NDArray[np.int16]) -> dict[tuple[Name, str], Floats]:
        return {
            (name, policy): values
            for name, refit in refits.items()
            for policy, values in refit(weights).items()
        }

    drawn = cluster_bootstrap(statistic, replace(resamples, n_clusters=len(names), stream=_STREAM))
    return {
        name: {policy: drawn[name, policy] for policy in policies}
        for name, (_, policies) in chosen.items()
    }


class _ThresholdRefit:
    """The thresholds of one system on resampled validation patients."""

    def __init__(
        self,
        validation: ValidationScores,
        policies: Sequence[str],
        clusters: Integers,
        n_clusters: int,
    ) -> None:
        self._policies = {policy: check_policy(policy) for policy in policies}
        falling, place = np.unique(-validation.scores, return_inverse=True)
        self._scores = -falling
        truth, of = validation.y_true, (len(falling), n_clusters)
        self._positive = SegmentSums(place[truth], clusters[truth], *of)
        self._all = SegmentSums(place, clusters, *of)

    def __call__(self, weights: Integers) -> dict[str, Floats]:
        """The threshold of every policy for every row of patient weights, shape ``(R,)``."""
        if not len(self._scores):
            return {
                policy: np.full(len(weights), _declared(wanted))
                for policy, wanted in self._policies.items()
            }
        cuts = _Cuts(
            np.cumsum(self._positive(weights), axis=1, dtype=np.int32),
            np.cumsum(self._all(weights), axis=1, dtype=np.int32),
        )
        found = {}
        for policy, wanted in self._policies.items():
            if wanted.kind == "threshold":
                found[policy] = np.full(len(weights), _declared(wanted))
                continue
            with np.errstate(invalid="ignore", divide="ignore"):
                place, there = _choose(cuts, wanted)
            found[policy] = np.where(there & cuts.both_classes, self._middle(cuts, place), np.nan)
        return found

    def _middle(self, cuts: _Cuts, place: npt.NDArray[np.int64]) -> Floats:
        """Between the scores at either side of a cut, of those that a row holds."""
        called = cuts.called_at(place)
        last = len(self._scores) - 1
        upper = self._scores[first_at_least(cuts.called, called)]
        lower = self._scores[np.minimum(first_at_least(cuts.called, called + 1), last)]
        middle = lower + (upper - lower) / 2
        return np.where(middle > lower, middle, upper)


def _declared(wanted: Policy) -> float:
    return np.nan if wanted.kind != "threshold" or wanted.value is None else wanted.value


class _Cuts(NamedTuple):
    """Counts of every row if all scores up to a place are called, from the highest on."""

    tp: npt.NDArray[Any]  # (R, D)
    called: npt.NDArray[Any]  # (R, D)

    @property
    def n_positive(self) -> npt.NDArray[Any]:
        """Positives of each row, shape ``(R, 1)``."""
        return self.tp[:, -1:]

    @property
    def n_all(self) -> npt.NDArray[Any]:
        """All of each row, shape ``(R, 1)``."""
        return self.called[:, -1:]

    @property
    def both_classes(self) -> npt.NDArray[np.bool_]:
        """Whether a row has positives and negatives, shape ``(R,)``."""
        positive, whole = self.n_positive[:, 0], self.n_all[:, 0]
        return (positive > 0) & (positive < whole)

    def called_at(self, place: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """How many are called at one place of each row, shape ``(R,)``."""
        return np.take_along_axis(self.called, place[:, None], axis=1)[:, 0]


_Choice = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]
"""A place in each row, and whether there is one, both shape ``(R,)``."""


def _choose(cuts: _Cuts, wanted: Policy) -> _Choice:
    """The cut that a policy asks for; the rules and ties are those of `choose_threshold`."""
    if wanted.kind in ("sensitivity", "specificity"):
        return _at_floor(cuts, wanted.kind, wanted.value or 0.0)
    if wanted.kind == "cost":
        return _cheapest(cuts, wanted)
    if wanted.kind == "youden":
        # Sensitivity + specificity - 1, times both class sizes: whole numbers know ties.
        gain = cuts.tp * cuts.n_all.astype(np.int64) - cuts.called * cuts.n_positive.astype(
            np.int64
        )
    else:
        gain = np.where(cuts.called < cuts.n_all, 2 * cuts.tp / (cuts.called + cuts.n_positive), 0)
    place = gain.argmax(axis=1)  # the first: of equals the highest threshold counts
    return place, np.take_along_axis(gain, place[:, None], axis=1)[:, 0] > 0


def _at_floor(cuts: _Cuts, kind: str, floor: float) -> _Choice:
    """The highest cut that keeps a sensitivity, or the lowest that keeps a specificity."""
    n_positive, n_all = cuts.n_positive[:, 0], cuts.n_all[:, 0]
    some_called = first_at_least(cuts.called, np.ones_like(n_all))
    all_called = first_at_least(cuts.called, n_all)
    if kind == "sensitivity":
        place = np.maximum(first_at_least(cuts.tp, _least(n_positive, floor)), some_called)
    else:
        n_negative = n_all - n_positive
        too_many = n_negative - _least(n_negative, floor) + 1
        place = np.minimum(first_at_least(cuts.called - cuts.tp, too_many), all_called) - 1
    there = (place >= some_called) & (place < all_called)
    return np.where(there, place, 0), there


def _least(count: npt.NDArray[Any], floor: float) -> npt.NDArray[Any]:
    """The smallest whole number whose share of a count is not below a floor."""
    whole = np.maximum(count, 1)
    guess = np.ceil(floor * whole).astype(np.int64)
    guess = np.where((guess - 1) / whole >= floor, guess - 1, guess)  # as floats divide, not reals
    return np.where(guess / whole >= floor, guess, guess + 1)


def _cheapest(cuts: _Cuts, wanted: Policy) -> _Choice:
    """The cut of least expected cost; none where calling all alike is cheaper."""
    n_positive, n_negative = cuts.n_positive, cuts.n_all - cuts.n_positive
    prevalence = wanted.prevalence
    share = n_positive / cuts.n_all if prevalence is None else np.float64(prevalence)
    odds = (wanted.value or 0.0) * share / (1 - share)  # (R, 1), or one for all
    specificity = (n_negative - (cuts.called - cuts.tp)) / n_negative
    # Rounded: the last bit must not decide between equals.
    cost = np.round(odds * (1 - cuts.tp / n_positive) + 1 - specificity, 12)
    candidate = (cuts.called > 0) & (cuts.called < cuts.n_all)
    cost = np.where(candidate & ~np.isnan(cost), cost, np.inf)
    place = cost.argmin(axis=1)  # the first: of equals the highest threshold counts
    least = np.take_along_axis(cost, place[:, None], axis=1)
    return place, ((least <= 1.0) & (least <= odds))[:, 0] & np.isfinite(least[:, 0])
