"""Operating points: a threshold per policy, chosen on validation images only.

Candidates are the midpoints between adjacent distinct validation scores, so that a threshold
never sits on an observed score and no rounding can flip one. Calling every image positive, or
none, is not a choice that validation supports, so it is not a candidate. A threshold that the
user declares is taken as it is.

A threshold is an estimate, too: another sample of validation patients would have given another
one. Every replicate of the bootstrap therefore draws validation patients as well, the same for
all systems, and chooses every threshold again, as all else that is a `_Choice`. All replicates are
rows of running sums along the validation scores, so no Python loop runs over them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.notebook import ShownAsText
from cxr_compare.evaluation.decisions.guarantees import (
    MOST_MARKS,
    Guarantee,
    GuaranteeImages,
    midpoints,
    read_guarantee,
    share_p_values,
)
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.statistics.arrays import Floats, Integers, check_truth_and_scores
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap
from cxr_compare.evaluation.statistics.guarantee_size import MOST_SIMULATED, GuaranteedShare
from cxr_compare.evaluation.statistics.running_sums import SegmentSums, first_at_least

POLICIES = ("max_f1", "sensitivity>=0.95", "specificity>=0.90")
"""The policies that `cxr tune` sets by default."""

_SHARE = r"(?:0?\.\d+|0|1|1\.0*)"
_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
_FLOOR = re.compile(rf"(sensitivity|specificity)>=({_SHARE})")
_COST = re.compile(rf"cost:({_NUMBER})/({_NUMBER})(?:@({_SHARE}))?")
_DECLARED = re.compile(rf"threshold=({_SHARE})")

Name = TypeVar("Name", bound=Hashable)
_FEWEST_MISSES = 2
"""A floor that allows fewer on validation sets its threshold by the very lowest or highest score.

How far an extreme varies no bootstrap can say: it is drawn again in most resamples.
"""
_STREAM = 1
"""Of random numbers: draws of validation patients owe nothing to those of test patients."""


class _Policy(NamedTuple):
    """What a policy's name asks for."""

    # `max_f1`, `youden`, `sensitivity`, `specificity`, `cost`, `threshold` or `guarantee`
    kind: str
    # the floor, the cost of a missed positive in false alarms, or the declared threshold; `None`
    # for the first two
    value: float | None = None
    # of positives where the rule will be used; `None`: that of validation
    prevalence: float | None = None


@dataclass(frozen=True)
class ThresholdChoice:
    """A policy's threshold, or why validation gives none."""

    policy: str  # the policy's name
    threshold: float | None  # `score >= threshold` is positive; `None` where there is none
    reason: str | None = None  # why there is none; `None` where there is one


def check_policy(policy: str) -> _Policy:
    """Read a policy's name.

    Args:
        policy: ``max_f1``, ``youden``, ``sensitivity>=F``, ``specificity>=F`` (F in [0, 1]),
            ``cost:FN/FP`` (what a missed positive and a false alarm cost, at the prevalence of
            validation), ``cost:FN/FP@P`` (at prevalence P), ``threshold=T`` (declared by the
            user, T in [0, 1]), or a guarantee, see `evaluation.decisions.guarantees.read_promise`.

    Returns:
        What it asks for.

    Raises:
        InputError: The name is none of these, or a guarantee with a number out of its bounds.

    Example:
        >>> check_policy("specificity>=0.90")
        _Policy(kind='specificity', value=0.9, prevalence=None)
        >>> check_policy("cost:10/1@0.05")
        _Policy(kind='cost', value=10.0, prevalence=0.05)
        >>> check_policy("sensitivity>=0.90@0.90").kind
        'guarantee'
    """
    if policy in ("max_f1", "youden"):
        return _Policy(policy)
    if parts := _FLOOR.fullmatch(policy):
        return _Policy(parts[1], float(parts[2]))
    if parts := _DECLARED.fullmatch(policy):
        return _Policy("threshold", float(parts[1]))
    if (parts := _COST.fullmatch(policy)) and float(parts[1]) > 0 and float(parts[2]) > 0:
        prevalence = None if parts[3] is None else float(parts[3])
        if prevalence is None or 0 < prevalence < 1:
            return _Policy("cost", float(parts[1]) / float(parts[2]), prevalence)
    if read_guarantee(policy):
        return _Policy("guarantee")
    raise InputError(
        f"unknown policy {policy!r}: use max_f1, youden, sensitivity>=F or specificity>=F with F "
        "between 0 and 1, cost:FN/FP or cost:FN/FP@P with costs above 0 and a prevalence P between "
        "0 and 1, threshold=T with T between 0 and 1, or a guarantee such as sensitivity>=F@C with "
        "a confidence C"
    )


def choose_threshold(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, policy: str = "max_f1"
) -> ThresholdChoice:
    """Choose the threshold that a policy asks for on these (validation) images.

    ``max_f1``, ``youden`` and ``cost`` take the best candidate, among equals the highest;
    ``sensitivity>=F`` the highest that keeps the floor; ``specificity>=F`` the lowest;
    ``threshold=T`` is T, whatever the images say. A guarantee needs their patients:
    `PromisedImages.choose`.
    """
    wanted = check_policy(policy)
    if wanted.kind == "threshold":
        return ThresholdChoice(policy, wanted.value)
    if wanted.kind == "guarantee":
        raise InputError(f"{policy}: a guarantee holds by patient, so it is made by cxr tune")
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        absent = "negative" if truth.any() else "positive"
        return ThresholdChoice(policy, None, f"validation has no {absent} image")
    falling, place = np.unique(-scores, return_inverse=True)
    if len(falling) == 1:
        return ThresholdChoice(policy, None, "all validation images have the same score")
    positive = np.bincount(place[truth], minlength=len(falling))
    cuts = _Cuts(-falling, np.cumsum(positive)[None], np.cumsum(np.bincount(place))[None])
    at, there = _choose(cuts, wanted)
    if not there[0]:
        return ThresholdChoice(policy, None, _why_none(cuts, wanted))
    return ThresholdChoice(policy, float(cuts.thresholds(at)[0]))


def _why_none(cuts: _Cuts, wanted: _Policy) -> str:
    """Why no candidate is what a policy asks for."""
    if wanted.kind == "max_f1":
        return "no threshold calls a positive validation image positive"
    if wanted.kind == "youden":
        return "no threshold does better than chance on validation"
    if wanted.kind == "cost":
        side = "positive" if _costs(cuts, wanted)[0].min() > 1 else "negative"
        return f"at this cost calling every image {side} is cheaper than any threshold"
    side = "positive" if wanted.kind == "sensitivity" else "negative"
    return f"{wanted.kind} >= {wanted.value:g} is met only by calling every image {side}"


@dataclass(frozen=True)
class ValidationScores:
    """What thresholds are chosen on: validation images, or studies or patients, of one system.

    With `policies` it is the `_Choice` of their thresholds, by their names.
    """

    y_true: npt.NDArray[np.bool_]  # shape `(M,)`, bool
    scores: Floats  # shape `(M,)`, float64
    patients: npt.NDArray[np.str_]  # name of the patient of each, shape `(M,)`
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
        """How many are positive."""
        return int(self.y_true.sum())

    def refit(self, clusters: Integers, n_clusters: int) -> Callable[[Integers], dict[str, Floats]]:
        """As `_Choice.refit`: the threshold of every policy for every row of patient weights."""
        policies = {policy: check_policy(policy) for policy in self.policies}
        falling, place = np.unique(-self.scores, return_inverse=True)
        of = len(falling), n_clusters
        positive = SegmentSums(place[self.y_true], clusters[self.y_true], *of)
        every = SegmentSums(place, clusters, *of)

        def thresholds(weights: Integers) -> dict[str, Floats]:
            found = {
                policy: np.full(len(weights), asked.value if asked.kind == "threshold" else np.nan)
                for policy, asked in policies.items()
            }
            if not len(falling):
                return found
            cuts = _Cuts(
                -falling,
                np.cumsum(positive(weights), axis=1, dtype=np.int32),
                np.cumsum(every(weights), axis=1, dtype=np.int32),
            )
            for policy, asked in policies.items():
                if asked.kind != "threshold":
                    with np.errstate(invalid="ignore", divide="ignore"):
                        at, there = _choose(cuts, asked)
                    kept = there & cuts.both_classes
                    found[policy] = np.where(kept, cuts.thresholds(at), np.nan)
            return found

        return thresholds

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


class _Choice(Protocol):
    """Something that validation chooses, so that other validation patients may choose otherwise."""

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """Name of the patient of each row that it is chosen on."""

    def refit(self, clusters: Integers, n_clusters: int) -> Callable[[Integers], dict[str, Floats]]:
        """What every row of patient weights chooses, by name, ``(R,)``; NaN where it is nothing."""


def choose_again(
    choices: Mapping[Name, Sequence[_Choice]], resamples: Resamples
) -> dict[Name, dict[str, Floats]]:
    """Make the choices of all systems again on the same resamples of validation patients.

    Returns what every resample chooses by system and name, ``(R,)``; NaN where it is nothing.
    """
    rows = [choice.patients for made in choices.values() for choice in made]
    if not rows:
        return {name: {} for name in choices}
    names = np.unique(np.concatenate(rows))
    refits = {
        name: [each.refit(np.searchsorted(names, each.patients), len(names)) for each in made]
        for name, made in choices.items()
    }

    def statistic(weights: npt.NDArray[np.int16]) -> dict[tuple[Name, str], Floats]:
        return {
            (name, what): values
            for name, made in refits.items()
            for refit in made
            for what, values in refit(weights).items()
        }

    drawn = cluster_bootstrap(statistic, replace(resamples, n_clusters=len(names), stream=_STREAM))
    return {
        name: {what: values for (of, what), values in drawn.items() if of == name}
        for name in choices
    }


class _Cuts(NamedTuple):
    """Counts of every row if all scores up to a place are called, from the highest on."""

    scores: Floats  # (D,) falling
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

    def thresholds(self, place: npt.NDArray[np.int64]) -> Floats:
        """Between the scores at either side of a cut, of those that a row holds, shape ``(R,)``."""
        called = np.take_along_axis(self.called, place[:, None], axis=1)[:, 0]
        upper = self.scores[first_at_least(self.called, called)]
        below = np.minimum(first_at_least(self.called, called + 1), len(self.scores) - 1)
        return midpoints(self.scores[below], upper)


_Place = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]
"""A place in each row, and whether there is one, both shape ``(R,)``."""


def _choose(cuts: _Cuts, wanted: _Policy) -> _Place:
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


def _at_floor(cuts: _Cuts, kind: str, floor: float) -> _Place:
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


def _cheapest(cuts: _Cuts, wanted: _Policy) -> _Place:
    """The cut of least expected cost; none where calling all images alike is cheaper."""
    cost, odds = _costs(cuts, wanted)
    place = cost.argmin(axis=1)  # the first: of equals the highest threshold counts
    least = np.take_along_axis(cost, place[:, None], axis=1)
    return place, ((least <= 1.0) & (least <= odds))[:, 0] & np.isfinite(least[:, 0])


def _costs(cuts: _Cuts, wanted: _Policy) -> tuple[Floats, Any]:
    """Expected cost of each cut, and that of missing all positives.

    The unit is what false alarms on all negatives cost.
    """
    n_positive, n_negative = cuts.n_positive, cuts.n_all - cuts.n_positive
    prevalence = wanted.prevalence
    share = n_positive / cuts.n_all if prevalence is None else np.float64(prevalence)
    odds = (wanted.value or 0.0) * share / (1 - share)  # (R, 1), or one for all
    specificity = (n_negative - (cuts.called - cuts.tp)) / n_negative
    # Rounded: the last bit must not decide between equals.
    cost = np.round(odds * (1 - cuts.tp / n_positive) + 1 - specificity, 12)
    candidate = (cuts.called > 0) & (cuts.called < cuts.n_all)
    return np.where(candidate & ~np.isnan(cost), cost, np.inf), odds


_PLANNED = {
    "sensitivity": "with the finding",
    "specificity": "without the finding",
    "localised_sensitivity": "with boxed lesions",
    "ppv": "with and without the finding",
    "false_marks": "whose lesions are all boxed",
}
"""Who is counted, by figure."""
_SETS_OF_PPV = 200  # simulated validation sets: each has its threshold chosen


def _chance_of_ppv(
    patients: int, guarantee: Guarantee, prevalence: float, called: tuple[float, float]
) -> float:
    """How often a threshold calls no fewer than these shares with and without the finding."""
    rng, kept, names = np.random.default_rng(0), 0, np.arange(patients).astype(str)
    truth = np.arange(patients) < prevalence * patients
    shifts = [NormalDist().inv_cdf(share) for share in called]
    for _ in range(_SETS_OF_PPV):
        scores = rng.standard_normal(patients) + np.where(truth, *shifts)
        # Binormal; above 0 so many are called. In tenths, as thousands of thresholds take long.
        threshold, _ = GuaranteeImages(truth, np.floor(10 * scores), names).choose(guarantee)
        kept += (threshold or 0.0) < 0
    return kept / _SETS_OF_PPV


@dataclass(frozen=True, repr=False)
class GuaranteePlan(ShownAsText):
    """How many validation patients give a guarantee its threshold."""

    guarantee: str
    power: float  # how often it gets one
    shares: dict[str, GuaranteedShare]  # by which patients must show them
    figures: tuple[Path, ...] = ()  # drawn of it

    @classmethod
    def of(
        cls, guarantee: str, expected: Sequence[float], images: Sequence[int | str],
        within: float | None, power: float | None, positive: float | None = None,
    ) -> GuaranteePlan:  # fmt: skip
        """Plan a guarantee of one figure or two.

        Args:
            guarantee: As `read_promise` takes it.
            expected: The true figures at its threshold, in order; after a ppv the sensitivity.
            images: Of a patient: numbers, or sets whose numbers they are like; 1 if empty.
            within: Correlation of the scores of a patient's images; 0.5 if left out.
            power: How often it shall get a threshold; 0.8 if left out.
            positive: Share of validation patients with the finding, for a predictive value.

        Raises:
            InputError: It is no guarantee, is expected to be broken, or lacks an assumption.
        """
        made, shares = read_guarantee(guarantee), {}
        if made is None:
            raise InputError(
                f"plan --guarantee {guarantee!r}: give one of {', '.join(_PLANNED)} with its "
                "confidence, as sensitivity>=0.90@0.90"
            )
        predictive = any(part.figure == "ppv" for part in made.parts)
        if len(expected) != len(made.parts) + predictive:
            raise InputError(
                "plan --expect: give the true figure, of two guaranteed ones both; of a ppv that "
                "and the sensitivity at its threshold, as 0.5,0.7"
            )
        if predictive and (positive is None or not 0 < positive < 1 or list(images or [1]) != [1]):
            raise InputError(
                "plan --guarantee: a ppv needs --prevalence, the share of validation patients with "
                "the finding, between 0 and 1, and is planned with one image of each (no --images)"
            )
        if positive and not predictive:
            raise InputError("plan --prevalence: is for the guarantee of a ppv; leave it out")
        if within is not None and not 0 <= within < 1:
            raise InputError(f"plan --within {within:g}: is not from 0 to below 1")
        likeness, figures = 0.5 if within is None else within, list(expected)
        for part in made.parts:
            true, found = figures.pop(0), figures.pop(0) if part.prevalence else 0.5
            marks = part.figure == "false_marks"
            least = 0.0 if marks else max(part.bound, part.prevalence or 0.0)
            limits = ((true, least, part.bound if marks else 1.0), (found, 0.0, 1.0))
            for value, low, high in limits:
                if not low < value < high:
                    raise InputError(f"plan --expect {value:g}: is not from {low:g} to {high:g}")
            condition, chance = f"if the {part.name} is {true:g}", None
            if part.prevalence and positive:
                condition += f" and the sensitivity {found:g}, {positive:.0%} with the finding"
                called = found, found * part.prevalence / (1 - part.prevalence) * (1 / true - 1)
                alone = Guarantee((part,), 1 - made.error)
                chance = partial(
                    _chance_of_ppv, guarantee=alone, prevalence=positive, called=called
                )
            test = partial(share_p_values, whole=not marks)
            for of in images or [1]:
                each = f"images as in {of.upper()}" if isinstance(of, str) else counted(of, "image")
                shares[f"patients {_PLANNED[part.figure]}, {each}, {condition}"] = GuaranteedShare(
                    part.floor, made.error, true, of, likeness, test, MOST_MARKS * marks, chance
                )
        return cls(guarantee, power or 0.8, shares)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """An answer for each figure and number of images; two figures must be shown at once."""
        each = self.power ** (1 / (1 + self.guarantee.count("&")))
        facts = ("floor", "expected", "images", "within")
        return [
            {"plan": name, "patients": share.fewest(each)}
            | {key: getattr(share, key) for key in facts}
            for name, share in self.shares.items()
        ]

    def __str__(self) -> str:
        return "\n".join([*self.sentences(), *(f"Figure: {path}" for path in self.figures)])

    def sentences(self) -> list[str]:
        """Each answer in words."""
        often, many = f"in {self.power:.0%} of validation sets", f"more than {MOST_SIMULATED:,}"
        return [f"The guarantee of {policy_text(self.guarantee)} gets a threshold {often} with"] + [
            f"{format(row['patients'], ',') if row['patients'] else many} {row['plan']}"
            for row in self.rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """The question and its answers, as ``plan.json`` holds them."""
        asked = {"guarantee": self.guarantee, "power": self.power}
        return asked | {"answer": self.sentences(), "studies": self.rows}
