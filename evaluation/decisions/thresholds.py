"""Operating points: a threshold per policy, chosen on validation images only.

Candidates are the midpoints between adjacent distinct validation scores, so that a threshold
never sits on an observed score and no rounding can flip one. Calling every image positive, or
none, is not a choice that validation supports, so it is not a candidate. A threshold that the
user declares is taken as it is.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.contracts.errors import InputError
from evaluation.metrics.image_metrics import rates
from evaluation.statistics.ranking import Floats, check_truth_and_scores

POLICIES = ("max_f1", "sensitivity>=0.95", "specificity>=0.90")
"""The policies that `cxr tune` sets by default."""

_SHARE = r"(?:0?\.\d+|0|1|1\.0*)"
_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
_FLOOR = re.compile(rf"(sensitivity|specificity)>=({_SHARE})")
_COST = re.compile(rf"cost:({_NUMBER})/({_NUMBER})(?:@({_SHARE}))?")
_DECLARED = re.compile(rf"threshold=({_SHARE})")


class Policy(NamedTuple):
    """What a policy's name asks for."""

    kind: str  # `max_f1`, `youden`, `sensitivity`, `specificity`, `cost` or `threshold`
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


def check_policy(policy: str) -> Policy:
    """Read a policy's name.

    Args:
        policy: ``max_f1``, ``youden``, ``sensitivity>=F``, ``specificity>=F`` (F in [0, 1]),
            ``cost:FN/FP`` (what a missed positive and a false alarm cost, at the prevalence of
            validation), ``cost:FN/FP@P`` (at prevalence P), or ``threshold=T`` (declared by the
            user, T in [0, 1]).

    Returns:
        What it asks for.

    Raises:
        InputError: The name is none of these.

    Example:
        >>> check_policy("specificity>=0.90")
        Policy(kind='specificity', value=0.9, prevalence=None)
        >>> check_policy("cost:10/1@0.05")
        Policy(kind='cost', value=10.0, prevalence=0.05)
    """
    if policy in ("max_f1", "youden"):
        return Policy(policy)
    if parts := _FLOOR.fullmatch(policy):
        return Policy(parts[1], float(parts[2]))
    if parts := _DECLARED.fullmatch(policy):
        return Policy("threshold", float(parts[1]))
    if (parts := _COST.fullmatch(policy)) and float(parts[1]) > 0 and float(parts[2]) > 0:
        prevalence = None if parts[3] is None else float(parts[3])
        if prevalence is None or 0 < prevalence < 1:
            return Policy("cost", float(parts[1]) / float(parts[2]), prevalence)
    raise InputError(
        f"unknown policy {policy!r}: use max_f1, youden, sensitivity>=F or specificity>=F with F "
        "between 0 and 1, cost:FN/FP or cost:FN/FP@P with costs above 0 and a prevalence P between "
        "0 and 1, or threshold=T with T between 0 and 1"
    )


def threshold_candidates(y_score: npt.ArrayLike) -> Floats:
    """Midpoints between adjacent distinct scores, rising."""
    distinct = np.unique(np.asarray(y_score, dtype=np.float64))
    lower, upper = distinct[:-1], distinct[1:]
    middle = lower + (upper - lower) / 2
    return np.where(middle > lower, middle, upper)


def choose_threshold(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, policy: str = "max_f1"
) -> ThresholdChoice:
    """Choose the threshold that a policy asks for on these (validation) images.

    ``max_f1``, ``youden`` and ``cost`` take the best candidate, among equals the highest;
    ``sensitivity>=F`` the highest that keeps the floor; ``specificity>=F`` the lowest;
    ``threshold=T`` is T, whatever the images say.
    """
    wanted = check_policy(policy)
    kind, floor = wanted.kind, wanted.value
    if kind == "threshold":
        return ThresholdChoice(policy, floor)
    truth, scores = check_truth_and_scores(y_true, y_score)
    if not truth.any() or truth.all():
        absent = "negative" if truth.any() else "positive"
        return ThresholdChoice(policy, None, f"validation has no {absent} image")
    candidates = threshold_candidates(scores)
    if not len(candidates):
        return ThresholdChoice(policy, None, "all validation images have the same score")
    figures = _rates_at(truth, scores, candidates)
    if floor is None:
        return _best(policy, candidates, figures)
    if kind == "cost":
        prevalence = float(truth.mean()) if wanted.prevalence is None else wanted.prevalence
        return _cheapest(policy, candidates, figures, floor * prevalence / (1 - prevalence))
    kept = figures["recall" if kind == "sensitivity" else "specificity"] >= floor
    if not kept.any():
        side = "positive" if kind == "sensitivity" else "negative"
        reason = f"{kind} >= {floor:g} is met only by calling every image {side}"
        return ThresholdChoice(policy, None, reason)
    allowed = candidates[kept]
    return ThresholdChoice(policy, float(allowed[-1 if kind == "sensitivity" else 0]))


def _best(policy: str, candidates: Floats, figures: dict[str, Floats]) -> ThresholdChoice:
    """The candidate with the best figure; among equals the highest."""
    value, worthless = figures["f1"], "no threshold calls a positive validation image positive"
    if policy == "youden":
        worthless = "no threshold does better than chance on validation"
        # Rounded: the sum of two rates must not decide a tie by its last bit.
        value = np.round(figures["recall"] + figures["specificity"] - 1, 12)
    best = np.flatnonzero(value == value.max())[-1]
    if value[best] <= 0:
        return ThresholdChoice(policy, None, worthless)
    return ThresholdChoice(policy, float(candidates[best]))


def _cheapest(
    policy: str, candidates: Floats, figures: dict[str, Floats], odds: float
) -> ThresholdChoice:
    """The candidate of least expected cost; none where calling all images alike is cheaper.

    `odds` is what missing all positives costs, in what false alarms on all negatives cost.
    """
    # Rounded: the last bit must not decide between equals.
    cost = np.round(odds * (1 - figures["recall"]) + 1 - figures["specificity"], 12)
    best = np.flatnonzero(cost == cost.min())[-1]
    for all_called, side in ((1.0, "positive"), (odds, "negative")):
        if all_called < cost[best]:
            reason = f"at this cost calling every image {side} is cheaper than any threshold"
            return ThresholdChoice(policy, None, reason)
    return ThresholdChoice(policy, float(candidates[best]))


def _rates_at(
    truth: npt.NDArray[np.bool_], scores: Floats, candidates: Floats
) -> dict[str, Floats]:
    """The rates at every candidate threshold, from two sorted lists."""
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    fn = np.searchsorted(positives, candidates, side="left")
    tn = np.searchsorted(negatives, candidates, side="left")
    return rates(len(positives) - fn, len(negatives) - tn, tn, fn)
