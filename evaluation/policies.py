"""Thresholds of the image score, chosen on validation images by a policy such as ``max_f1``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cxr_compare.data_prep.base.errors import InputError, as_typed
from cxr_compare.evaluation.statistics.arrays import Flags, Floats, Integers

USUAL_POLICY = "max_f1"
"""Policy that is evaluated if none is named."""
_FLOOR = re.compile(r"(sensitivity|specificity)>=(0?\.\d+|1)")
_GIVEN = re.compile(r"threshold=([-+.\de]+)")
_FEWEST_ERRORS = 2
"""Errors that a floor must allow: with fewer, no resample shows how far its threshold varies."""
_CELLS = 2_000_000
"""Most cells of one table of resamples and images."""


class _Best(NamedTuple):
    """A policy that takes the cut of the highest gain, if that is above 0.

    `gain` is a function of the positive and of all images at or above each score, ``(R, L)``, and
    of the numbers of positive and of all images, ``(R, 1)``.
    """

    words: str
    gain: Callable[[Integers, Integers, Integers, Integers], Floats | Integers]


_BEST = {
    "max_f1": _Best(
        "best F1",
        lambda positive, called, n_positive, _n: positive / np.maximum(called + n_positive, 1),
    ),
    "youden": _Best(
        "best sensitivity + specificity",
        lambda positive, called, n_positive, n: positive * n - called * n_positive,
    ),
}


class Policy(NamedTuple):
    """A policy as it was read: its kind and its value."""

    kind: str
    value: float = 0.0


def parse(policy: str) -> Policy:
    """Read a policy; InputError for an unknown one.

    Examples:
        >>> parse("sensitivity>=0.95"), parse("threshold=0.3").value
        (Policy(kind='sensitivity', value=0.95), 0.3)
    """
    if policy in _BEST:
        return Policy(policy)
    if match := _FLOOR.fullmatch(policy):
        return Policy(match[1], float(match[2]))
    given = as_typed({"policy": policy})
    if match := _GIVEN.fullmatch(policy):
        try:
            value = float(match[1])
        except ValueError:
            value = -1.0
        if 0 <= value <= 1:
            return Policy("threshold", value)
        raise InputError(f"{given}: write a score from 0 to 1, such as threshold=0.5")
    raise InputError(
        f"{given}: is unknown; write {', '.join(_BEST)}, sensitivity>=0.95, specificity>=0.90 or "
        "threshold=0.5"
    )


def is_given(policy: str) -> bool:
    """Return True for a stated threshold, which no validation image chooses."""
    return policy.startswith("threshold=")


def policy_text(policy: str) -> str:
    """Describe a policy in words.

    Examples:
        >>> policy_text("max_f1"), policy_text("sensitivity>=0.95"), policy_text("threshold=0.3")
        ('best F1', 'sensitivity ≥ 0.95', 'a given score of 0.3')
    """
    if is_given(policy):
        return f"a given score of {policy.removeprefix('threshold=')}"
    if policy in _BEST:
        return _BEST[policy].words
    return policy.replace(">=", " ≥ ") or "Without a threshold"


def threshold_text(policy: str) -> str:
    """Name the threshold of a policy in a sentence.

    Examples:
        >>> threshold_text("max_f1"), threshold_text("threshold=0.3")
        ('the threshold for best F1', 'a given score of 0.3')
    """
    return policy_text(policy) if is_given(policy) else f"the threshold for {policy_text(policy)}"


@dataclass(frozen=True)
class Cuts:
    """Images at or above each of L scores, for each of R weightings of the patients.

    Attributes:
        scores: The distinct scores, falling, shape ``(L,)``.
        positive: Weight of the positive images at or above each score, shape ``(R, L)``.
        called: Weight of all images at or above each score, shape ``(R, L)``.
    """

    scores: Floats
    positive: Integers
    called: Integers

    def choose(self, policy: str, *, once: bool = False) -> Floats:
        """Return the threshold of each weighting, shape ``(R,)``; NaN where there is none.

        It lies in the middle between two neighbouring scores. With `once`, a floor that is only
        reached by calling all images has no threshold.
        """
        kind, value = parse(policy)
        if kind == "threshold":
            return np.full(len(self.called), value)
        n_positive, n = self.positive[:, -1:], self.called[:, -1:]
        if kind in _BEST:
            gain = _BEST[kind].gain(self.positive, self.called, n_positive, n)
            gain = np.where(self.called >= n, 0, gain)
            index = gain.argmax(axis=1)
            exists = gain.max(axis=1) > 0
        else:
            index, exists = self._at_floor(kind, value, once=once)
        exists = exists & ((n_positive > 0) & (n_positive < n))[:, 0]
        reached = self.called[np.arange(len(index)), np.where(exists, index, 0)]
        last = len(self.scores) - 1
        upper = self.scores[np.minimum(_first(self.called, reached), last)]
        lower = self.scores[np.minimum(_first(self.called, reached + 1), last)]
        middle = lower + (upper - lower) / 2
        return np.where(exists, np.where(middle > lower, middle, upper), np.nan)

    def _at_floor(self, kind: str, floor: float, *, once: bool) -> tuple[Integers, Flags]:
        """Return the cut that just keeps a floor in each weighting, and where there is one."""
        n_positive, n = self.positive[:, -1], self.called[:, -1]
        first, last = _first(self.called, 1), _first(self.called, n)
        if kind == "sensitivity":
            index = np.maximum(_first(self.positive, _least(n_positive, floor)), first)
        else:
            most = n - n_positive - _least(n - n_positive, floor)
            index = np.minimum(_first(self.called - self.positive, most + 1), last) - 1
        exists = (index >= first) & (index < last) if once else first < last
        return np.maximum(np.minimum(index, last - 1), first), exists


def _first(sums: Integers, least: Integers | int) -> Integers:
    """Return where each row of running sums first reaches a value; its length if never."""
    reached = sums >= np.reshape(least, (-1, 1))
    return np.where(reached.any(axis=1), reached.argmax(axis=1), sums.shape[1])


def _least(count: Integers, floor: float) -> Integers:
    """Return the smallest whole number whose share of a count is not below a floor."""
    whole = np.maximum(count, 1)
    guess = np.ceil(floor * whole).astype(np.int64)
    guess = np.where((guess - 1) / whole >= floor, guess - 1, guess)
    return np.where(guess / whole >= floor, guess, guess + 1)


def thresholds(
    positive: Flags,
    scores: Floats,
    patients: Integers,
    weights: Integers,
    policies: Sequence[str],
    *,
    once: bool = False,
) -> dict[str, Floats]:
    """Choose the threshold of each policy on N images, for each weighting of P patients.

    `patients` numbers the patient of each image; `weights` have the shape ``(R, P)``.
    """
    if not policies:
        return {}
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True)[: len(order)])
    step = max(1, _CELLS // max(len(order), 1))
    parts = []
    for start in range(0, len(weights), step):
        drawn = weights[start : start + step, patients[order]].astype(np.int64)
        of_positive = np.cumsum(drawn * positive[order], axis=1)[:, ends]
        cuts = Cuts(ranked[ends], of_positive, np.cumsum(drawn, axis=1)[:, ends])
        parts.append([cuts.choose(policy, once=once) for policy in policies])
    return dict(zip(policies, np.concatenate(parts, axis=1), strict=True))


def too_few_errors(positive: Flags, policy: str) -> str:
    """Return why resamples do not show how far a threshold varies; empty if they do."""
    kind, floor = parse(policy)
    if kind not in ("sensitivity", "specificity"):
        return ""
    count = int(positive.sum() if kind == "sensitivity" else (~positive).sum())
    allowed = int(count * (1 - floor) + 1e-9)
    if allowed >= _FEWEST_ERRORS:
        return ""
    return (
        f"the floor allows {allowed} errors of {count} validation images, and an interval needs "
        f"{_FEWEST_ERRORS}"
    )


def threshold_of(positive: Flags, scores: Floats, policy: str) -> tuple[float | None, str]:
    """Choose the threshold of a policy on N validation images; None comes with the reason."""
    if is_given(policy):
        return parse(policy).value, ""
    if not len(scores):
        return None, "there is no validation image"
    if not positive.any():
        return None, "no validation image is positive"
    if positive.all():
        return None, "no validation image is negative"
    numbers = np.arange(len(scores))
    once = np.ones((1, len(scores)), dtype=np.int64)
    value = float(thresholds(positive, scores, numbers, once, [policy], once=True)[policy][0])
    return (None, "validation images give no threshold") if np.isnan(value) else (value, "")
