"""Operating points: one threshold for each policy, chosen on validation images only.

The candidates for a threshold are the midpoints between adjacent distinct validation scores. A
threshold therefore lies between two observed scores, so that no rounding can change a decision. A
threshold that calls every validation image positive, or none, is no candidate, because validation
cannot support such a choice. A threshold that the user declares is taken as it is.

`ValidationScores.refit` chooses thresholds again for many resamples of patients at once, by running
sums along the sorted validation scores. Some resamples reach a required sensitivity or specificity
only by calling every image positive, or none. Such a resample gets the nearest candidate, because
leaving it out would remove the most extreme thresholds from the interval.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats, Integers, check_truth_and_scores
from cxr_compare.evaluation.statistics.running_sums import SegmentSums, first_at_least

POLICIES = ("max_f1", "sensitivity>=0.95", "specificity>=0.90")
"""Policies for which thresholds are chosen by default."""

DECLARED = "declared"
"""Policy of a threshold that somebody declared for the system, see `choices.Declared`."""

_SHARE = r"(?:0?\.\d+|0|1|1\.0*)"
_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
_FLOOR = re.compile(rf"(sensitivity|specificity)>=({_SHARE})")
_COST = re.compile(rf"cost:({_NUMBER})/({_NUMBER})(?:@({_SHARE}))?")
_DECLARED = re.compile(rf"threshold=({_SHARE})")

_FEWEST_MISSES = 2
"""Smallest number of errors that a required sensitivity or specificity must allow on validation.

A requirement that allows fewer errors puts its threshold next to the lowest or highest score. The
bootstrap cannot say how far such an extreme varies, since most resamples contain it.
"""


class Policy(NamedTuple):
    """Rule by which a threshold of the image score is chosen.

    Attributes:
        kind: ``max_f1`` (highest F1), ``youden`` (highest sensitivity + specificity),
            ``sensitivity`` or ``specificity`` (at least a given value), ``cost`` (lowest expected
            cost), ``threshold`` (a fixed threshold that the user states) or ``declared`` (the
            threshold that the decision of each system declares).
        value: For ``sensitivity`` and ``specificity`` the smallest allowed value; for ``cost`` the
            cost of a missed positive in units of the cost of a false alarm; for ``threshold`` the
            stated threshold; `None` for the other kinds.
        prevalence: Share of positive images at which costs are weighed, in (0, 1). `None` takes
            that of the validation images.
    """

    kind: str
    value: float | None = None
    prevalence: float | None = None


@dataclass(frozen=True)
class ThresholdChoice:
    """Threshold that a rule (policy) chose, or the reason why it chose none.

    Images with ``score >= threshold`` are positive. `reason` is `None` if there is a threshold.
    """

    policy: str
    threshold: float | None
    reason: str | None = None


def check_policy(policy: str) -> Policy:
    """Read the name of a policy, the rule that chooses a threshold, and check it.

    The names are ``max_f1``, ``youden``, ``sensitivity>=F``, ``specificity>=F`` (F in [0, 1]),
    ``cost:FN/FP`` (costs of a missed positive and of a false alarm, at the prevalence of the
    validation images), ``cost:FN/FP@P`` (at prevalence P), ``threshold=T`` (a fixed threshold that
    the user states, T in [0, 1]) and ``declared`` (the threshold that the decision of each system
    declares). An InputError is raised for any other name, or a number outside its limits.

    Example:
        >>> check_policy("specificity>=0.90")
        Policy(kind='specificity', value=0.9, prevalence=None)
        >>> check_policy("cost:10/1@0.05")
        Policy(kind='cost', value=10.0, prevalence=0.05)
    """
    if policy in ("max_f1", "youden", DECLARED):
        return Policy(policy)
    if match := _FLOOR.fullmatch(policy):
        return Policy(match[1], float(match[2]))
    if match := _DECLARED.fullmatch(policy):
        return Policy("threshold", float(match[1]))
    if (match := _COST.fullmatch(policy)) and float(match[1]) > 0 and float(match[2]) > 0:
        prevalence = None if match[3] is None else float(match[3])
        if prevalence is None or 0 < prevalence < 1:
            return Policy("cost", float(match[1]) / float(match[2]), prevalence)
    raise InputError(
        f"unknown policy {policy!r}: use max_f1, youden, sensitivity>=F or specificity>=F with F "
        "between 0 and 1, cost:FN/FP or cost:FN/FP@P with costs above 0 and a prevalence P between "
        "0 and 1, or threshold=T with T between 0 and 1"
    )


def is_chosen(policy: str) -> bool:
    """Return True if a threshold depends on which validation images it was chosen on.

    A threshold that the user states, such as ``threshold=0.5``, does not, and neither does a
    declared threshold, which is taken as it is. A figure without a threshold has the policy ``""``.
    """
    return bool(policy) and check_policy(policy).kind not in ("threshold", DECLARED)


def choose_threshold(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, policy: str = "max_f1"
) -> ThresholdChoice:
    """Choose the threshold of a policy (a rule such as ``max_f1``) on validation images.

    The candidates are the midpoints between adjacent distinct scores. ``max_f1``, ``youden`` and
    ``cost`` take the best candidate; if several are equally good, they take the highest.
    ``sensitivity>=F`` takes the highest candidate whose sensitivity is at least F, and
    ``specificity>=F`` takes the lowest candidate whose specificity is at least F. ``threshold=T``
    takes T, whatever the images are. ``declared`` is never chosen.

    Labels (0 or 1) and scores have shape ``(N,)``. An InputError is raised for an unknown policy, a
    label that is not 0 or 1, a score that is no finite number, and different numbers of labels and
    scores.

    Example:
        >>> choose_threshold([0, 1, 0, 1], [0.25, 0.5, 0.75, 1.0], "sensitivity>=0.9").threshold
        0.375
    """
    rule = check_policy(policy)
    if rule.kind == "threshold":
        return ThresholdChoice(policy, rule.value)
    if rule.kind == DECLARED:
        return ThresholdChoice(policy, None, "no threshold was declared for the system")
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        absent = "negative" if truth.any() else "positive"
        return ThresholdChoice(policy, None, f"validation has no {absent} image")
    falling, rank = np.unique(-scores, return_inverse=True)
    if len(falling) == 1:
        return ThresholdChoice(policy, None, "all validation images have the same score")
    positive = np.bincount(rank[truth], minlength=len(falling))
    cuts = _Cuts(-falling, np.cumsum(positive)[None], np.cumsum(np.bincount(rank))[None])
    position = _choose_position(cuts, rule)
    if not position.exists[0]:
        return ThresholdChoice(policy, None, _why_no_threshold(cuts, rule))
    return ThresholdChoice(policy, float(cuts.thresholds(position.cut)[0]))


def midpoints(lower: Floats, upper: Floats) -> Floats:
    """Return thresholds between pairs of adjacent scores.

    At each threshold, ``score >= threshold`` is true for the upper score and false for the lower
    score of the pair. If no floating-point number lies between two scores, the threshold is the
    upper score itself.

    Example:
        >>> midpoints(np.array([0.25]), np.array([0.5])).tolist()
        [0.375]
    """
    middle = lower + (upper - lower) / 2
    return np.where(middle > lower, middle, upper)


def _why_no_threshold(cuts: _Cuts, rule: Policy) -> str:
    if rule.kind == "max_f1":
        return "no threshold calls a positive validation image positive"
    if rule.kind == "youden":
        return "no threshold does better than chance on validation"
    if rule.kind == "cost":
        side = "positive" if _costs(cuts, rule).cost.min() > 1 else "negative"
        return f"at this cost calling every image {side} is cheaper than any threshold"
    side = "positive" if rule.kind == "sensitivity" else "negative"
    return f"{rule.kind} >= {rule.value:g} is reached only by calling every image {side}"


@dataclass(frozen=True)
class ValidationScores:
    """Labels, scores and patients of validation images, on which thresholds are chosen.

    The M rows are images, or studies or patients if these are evaluated instead of images; all
    arrays have shape ``(M,)``. If `policies` is not empty, the bootstrap chooses their thresholds
    again on resampled patients, see `evaluation.replicates.refit_choices`.
    """

    y_true: npt.NDArray[np.bool_]
    scores: Floats
    patients: npt.NDArray[np.str_]
    policies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        truth, scores = check_truth_and_scores(self.y_true, self.scores)
        patients = np.asarray(self.patients, dtype=str)
        if patients.shape != truth.shape:
            raise InputError(f"validation: {len(truth)} scores, patients of {len(patients)}")
        for name, values in (("y_true", truth), ("scores", scores), ("patients", patients)):
            object.__setattr__(self, name, values)

    @property
    def n_positive(self) -> int:
        """Number of positive images, studies or patients that thresholds are chosen on."""
        return int(self.y_true.sum())

    def refit(self, clusters: Integers, n_clusters: int) -> Callable[[Integers], dict[str, Floats]]:
        """Prepare to choose the thresholds again on weighted patients.

        `clusters` has the patient of each row as an index from 0, shape ``(M,)``. The function that
        is returned takes R weightings of the patients by whole numbers (how often the bootstrap
        drew each), shape ``(R, n_clusters)``. It returns, by policy, the threshold that is chosen
        under each weighting, shape ``(R,)``; NaN where there is no threshold. If no candidate
        reaches a required sensitivity or specificity, the candidate that comes closest is chosen.

        Example:
            >>> scores = ValidationScores([0, 1], [0.25, 0.75], ["p", "q"], ("max_f1",))
            >>> choose = scores.refit(np.array([0, 1]), 2)
            >>> choose(np.array([[1, 1], [1, 2]]))["max_f1"].tolist()
            [0.5, 0.5]
        """
        rules = {policy: check_policy(policy) for policy in self.policies}
        falling, rank = np.unique(-self.scores, return_inverse=True)
        positive_rank = rank[self.y_true]
        positive_clusters = clusters[self.y_true]
        positive_sums = SegmentSums(positive_rank, positive_clusters, len(falling), n_clusters)
        all_sums = SegmentSums(rank, clusters, len(falling), n_clusters)

        def choose(weights: Integers) -> dict[str, Floats]:
            chosen = {}
            for policy, rule in rules.items():
                declared = rule.value if rule.kind == "threshold" else np.nan
                chosen[policy] = np.full(len(weights), declared)
            if not len(falling):
                return chosen
            cuts = _Cuts(
                -falling,
                np.cumsum(positive_sums(weights), axis=1, dtype=np.int32),
                np.cumsum(all_sums(weights), axis=1, dtype=np.int32),
            )
            for policy, rule in rules.items():
                if rule.kind == "threshold":
                    continue
                with np.errstate(invalid="ignore", divide="ignore"):
                    position = _choose_position(cuts, rule)
                exists = position.is_candidate & cuts.both_classes
                chosen[policy] = np.where(exists, cuts.thresholds(position.cut), np.nan)
            return chosen

        return choose

    def too_few_for(self, policy: str) -> str:
        """Return the reason if there are too few images to measure how far a threshold varies.

        The bootstrap measures it, by choosing the threshold again on resampled patients. A required
        sensitivity or specificity needs two allowed errors on these images; for all other policies
        the reason is empty.

        Example:
            >>> scores = ValidationScores([True] * 12 + [False] * 40, range(52), ["p"] * 52)
            >>> scores.too_few_for("specificity>=0.90"), scores.too_few_for("max_f1")
            ('', '')
            >>> scores.too_few_for("sensitivity>=0.95")
            'the floor allows 0 of 12 validation positives to be missed; an interval needs 2'
        """
        rule = check_policy(policy)
        if rule.kind not in ("sensitivity", "specificity") or rule.value is None:
            return ""
        if rule.kind == "sensitivity":
            count = self.n_positive
            images = "positives to be missed"
        else:
            count = len(self.y_true) - self.n_positive
            images = "negatives to be called positive"
        allowed = math.floor(count * (1 - rule.value) + 1e-9)
        if allowed >= _FEWEST_MISSES:
            return ""
        return (
            f"the floor allows {allowed} of {count} validation {images}; an interval needs "
            f"{_FEWEST_MISSES}"
        )


class _Cuts(NamedTuple):
    """Cumulated counts along falling scores, with one row for each resample.

    Attributes:
        scores: Distinct scores, falling, shape ``(D,)``.
        tp: Number of positives at or above each score, shape ``(R, D)``.
        called: Number of images at or above each score, shape ``(R, D)``.
    """

    scores: Floats
    tp: npt.NDArray[Any]
    called: npt.NDArray[Any]

    @property
    def n_positive(self) -> npt.NDArray[Any]:
        """Number of positives of each row, shape ``(R, 1)``."""
        return self.tp[:, -1:]

    @property
    def n_images(self) -> npt.NDArray[Any]:
        """Number of images of each row, shape ``(R, 1)``."""
        return self.called[:, -1:]

    @property
    def both_classes(self) -> npt.NDArray[np.bool_]:
        """True for rows that have positives and negatives, shape ``(R,)``."""
        positive = self.n_positive[:, 0]
        return (positive > 0) & (positive < self.n_images[:, 0])

    def thresholds(self, index: npt.NDArray[np.int64]) -> Floats:
        """Return the midpoint between the two scores on both sides of a cut, shape ``(R,)``."""
        called = np.take_along_axis(self.called, index[:, None], axis=1)[:, 0]
        upper = self.scores[first_at_least(self.called, called)]
        below = np.minimum(first_at_least(self.called, called + 1), len(self.scores) - 1)
        return midpoints(self.scores[below], upper)


class _Position(NamedTuple):
    """Chosen cut of each row.

    `exists` is True where the cut fulfils the policy. `is_candidate` is True where it can be used
    as a threshold, which includes rows in which no candidate reaches the required value; `cut` is
    then the index of the closest one. All have shape ``(R,)``.
    """

    cut: npt.NDArray[np.int64]
    exists: npt.NDArray[np.bool_]
    is_candidate: npt.NDArray[np.bool_]


def _choose_position(cuts: _Cuts, rule: Policy) -> _Position:
    """Choose the cut of a policy, with the rules and ties of `choose_threshold`."""
    if rule.kind in ("sensitivity", "specificity"):
        return _at_floor(cuts, rule.kind, rule.value or 0.0)
    if rule.kind == "cost":
        return _cheapest(cuts, rule)
    if rule.kind == "youden":
        # Sensitivity + specificity - 1, multiplied by the sizes of both classes. The products are
        # whole numbers, so equal values are recognised exactly.
        n_images = cuts.n_images.astype(np.int64)
        n_positive = cuts.n_positive.astype(np.int64)
        gain = cuts.tp * n_images - cuts.called * n_positive
    else:
        gain = cuts.tp / (cuts.called + cuts.n_positive)  # half of F1
        gain[cuts.called >= cuts.n_images] = 0
    index = gain.argmax(axis=1)  # of equal values the first, which has the highest threshold
    exists = np.take_along_axis(gain, index[:, None], axis=1)[:, 0] > 0
    return _Position(index, exists, exists)


def _at_floor(cuts: _Cuts, kind: str, floor: float) -> _Position:
    """Choose the highest cut that reaches a sensitivity, or the lowest for a specificity."""
    n_positive = cuts.n_positive[:, 0]
    n_images = cuts.n_images[:, 0]
    some_called = first_at_least(cuts.called, np.ones_like(n_images))
    all_called = first_at_least(cuts.called, n_images)
    if kind == "sensitivity":
        reached = first_at_least(cuts.tp, _least(n_positive, floor))
        index = np.maximum(reached, some_called)
    else:
        n_negative = n_images - n_positive
        too_many = n_negative - _least(n_negative, floor) + 1
        index = np.minimum(first_at_least(cuts.called - cuts.tp, too_many), all_called) - 1
    exists = (index >= some_called) & (index < all_called)
    is_candidate = some_called < all_called
    closest = np.maximum(np.minimum(index, all_called - 1), some_called)
    return _Position(np.where(is_candidate, closest, 0), exists, is_candidate)


def _least(count: npt.NDArray[Any], floor: float) -> npt.NDArray[Any]:
    """Return the smallest whole number whose share of a count is not below a floor."""
    whole = np.maximum(count, 1)
    guess = np.ceil(floor * whole).astype(np.int64)
    # Compare by floating-point division, as the figures themselves are computed.
    guess = np.where((guess - 1) / whole >= floor, guess - 1, guess)
    return np.where(guess / whole >= floor, guess, guess + 1)


def _cheapest(cuts: _Cuts, rule: Policy) -> _Position:
    """Choose the cut of least expected cost; no cut if calling all images alike is cheaper."""
    costs = _costs(cuts, rule)
    index = costs.cost.argmin(axis=1)  # of equal costs the first, which has the highest threshold
    least = np.take_along_axis(costs.cost, index[:, None], axis=1)
    cheaper = (least <= 1.0) & (least <= costs.all_missed)
    exists = cheaper[:, 0] & np.isfinite(least[:, 0])
    return _Position(index, exists, exists)


class _Costs(NamedTuple):
    """Expected costs in units of the cost of false alarms on all negatives.

    `cost` is that of each cut, shape ``(R, D)``. `all_missed` is that of missing all positives,
    shape ``(R, 1)``, or one number for all rows.
    """

    cost: Floats
    all_missed: Any


def _costs(cuts: _Cuts, rule: Policy) -> _Costs:
    n_positive = cuts.n_positive
    n_negative = cuts.n_images - n_positive
    if rule.prevalence is None:
        prevalence = n_positive / cuts.n_images
    else:
        prevalence = np.float64(rule.prevalence)
    all_missed = (rule.value or 0.0) * prevalence / (1 - prevalence)
    specificity = (n_negative - (cuts.called - cuts.tp)) / n_negative
    # Costs are rounded, so that the last bit does not decide between equal costs.
    cost = np.round(all_missed * (1 - cuts.tp / n_positive) + 1 - specificity, 12)
    candidate = (cuts.called > 0) & (cuts.called < cuts.n_images)
    return _Costs(np.where(candidate & ~np.isnan(cost), cost, np.inf), all_missed)
