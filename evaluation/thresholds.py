"""Operating points: a threshold per policy, chosen on validation images only.

Candidates are the midpoints between adjacent distinct validation scores, so that a threshold
never sits on an observed score and no rounding can flip one. Calling every image positive, or
none, is not a choice that validation supports, so it is not a candidate.
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.tables import InputError
from evaluation.metrics import rates
from evaluation.ranking import Floats, check_truth_and_scores

POLICIES = ("max_f1", "sensitivity>=0.95", "specificity>=0.90")
"""The policies that `cxr tune` sets unless told otherwise."""

_FLOOR = re.compile(r"(sensitivity|specificity)>=(0?\.\d+|0|1|1\.0*)")


@dataclass(frozen=True)
class ThresholdChoice:
    """A policy's threshold, or why validation gives none.

    Attributes:
        policy: The policy's name.
        threshold: ``score >= threshold`` is positive; `None` where there is none.
        reason: Why there is none; `None` where there is one.
    """

    policy: str
    threshold: float | None
    reason: str | None = None


def check_policy(policy: str) -> tuple[str, float | None]:
    """Split a policy's name into what it asks for and its floor.

    Args:
        policy: ``max_f1``, ``youden``, ``sensitivity>=F`` or ``specificity>=F`` with F in [0, 1].

    Returns:
        The kind and the floor (`None` for the first two).

    Raises:
        InputError: The name is none of these.

    Example:
        >>> check_policy("specificity>=0.90")
        ('specificity', 0.9)
    """
    if policy in ("max_f1", "youden"):
        return policy, None
    parts = _FLOOR.fullmatch(policy)
    if parts is None:
        raise InputError(
            f"unknown policy {policy!r}: use max_f1, youden, sensitivity>=F or specificity>=F "
            "with F between 0 and 1"
        )
    return parts[1], float(parts[2])


def threshold_candidates(y_score: npt.ArrayLike) -> Floats:
    """Midpoints between adjacent distinct scores, rising.

    Args:
        y_score: Finite scores, shape ``(N,)``.

    Returns:
        Shape ``(distinct - 1,)``. Where no float lies strictly between two scores, the upper one.

    Example:
        >>> threshold_candidates([0.5, 0.25, 0.5, 1.0]).tolist()
        [0.375, 0.75]
    """
    distinct = np.unique(np.asarray(y_score, dtype=np.float64))
    lower, upper = distinct[:-1], distinct[1:]
    middle = lower + (upper - lower) / 2
    return np.where(middle > lower, middle, upper)


def choose_threshold(
    y_true: npt.ArrayLike, y_score: npt.ArrayLike, policy: str = "max_f1"
) -> ThresholdChoice:
    """Choose the threshold that a policy asks for on these (validation) images.

    ``max_f1`` and ``youden`` take the best candidate, among equals the highest;
    ``sensitivity>=F`` the highest that keeps the floor; ``specificity>=F`` the lowest.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        y_score: Scores, shape ``(N,)``.
        policy: See `check_policy`.

    Returns:
        The choice; without a threshold where validation gives none, and then with the reason.

    Raises:
        InputError: The policy is unknown, or labels or scores are not valid.

    Example:
        >>> choose_threshold([0, 0, 1, 1], [0.125, 0.375, 0.25, 0.75], "max_f1").threshold
        0.1875
        >>> choose_threshold([1, 0], [0.1, 0.2], "sensitivity>=0.95").reason
        'sensitivity >= 0.95 is met only by calling every image positive'
    """
    kind, floor = check_policy(policy)
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


def _rates_at(
    truth: npt.NDArray[np.bool_], scores: Floats, candidates: Floats
) -> dict[str, Floats]:
    """The rates at every candidate threshold, from two sorted lists."""
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    fn = np.searchsorted(positives, candidates, side="left")
    tn = np.searchsorted(negatives, candidates, side="left")
    return rates(len(positives) - fn, len(negatives) - tn, tn, fn)
