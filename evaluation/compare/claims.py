"""What may be said of differences, by intervals that Holm's method widens, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.compare.estimates import Estimate, Estimates, family_level
from cxr_compare.evaluation.compare.protocol import Protocol
from cxr_compare.evaluation.compare.scorecard import Scorecard
from cxr_compare.evaluation.metrics.notes import (
    Note,
)
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.bootstrap import per_cluster
from cxr_compare.evaluation.statistics.clustered_share import (
    exact_share,
)
from cxr_compare.evaluation.statistics.figure_text import (
    interval_text,
    number,
    range_text,
)
from cxr_compare.evaluation.statistics.intervals import (
    Interval,
)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values of a family of tests, in its order.

    Source:
        Holm 1979.
    """
    tests = [(p, position) for position, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, position) in enumerate(sorted(tests)):
        highest = max(highest, min(1.0, p * (len(tests) - rank)))
        adjusted[position] = highest
    return adjusted


def _step_down(count: int, shown: Callable[[int, int], bool]) -> list[int]:
    """For how many comparisons the interval of each claim of a family is widened.

    All open claims are held against intervals of ``1 - 0.05 / number open``; those that are shown
    with them leave, and the rest are held again against narrower ones, until none is shown.

    Source:
        Holm 1979, written in intervals.
    """
    comparisons, still_open = [count] * count, list(range(count))
    while still_open:
        size = len(still_open)
        for claim in still_open:
            comparisons[claim] = size
        left = [claim for claim in still_open if not shown(claim, size)]
        if len(left) == size:
            break
        still_open = left
    return comparisons


_ROUNDING, _MOST_DIGITS = 1e-9, 9

Standing = Literal["first", "second", "same", "open", "unknown"]
"""Which system has more of a metric: shown of one, equal figures, not shown, or no interval."""


def same(one: float, other: float) -> bool:
    """Whether two figures are equal, but for the order of their sums."""
    return abs(one - other) < _ROUNDING


@dataclass(frozen=True)
class Claim:
    """A difference of two systems, and the interval on which all that is said of it rests."""

    first: str
    second: str
    metric: str
    policy: str
    values: tuple[float, float]  # the figures of both systems
    # First - second; its interval covers `level`.
    difference: Estimate = field(default_factory=Estimate)
    comparisons: int = 1  # how many comparisons the interval is widened for

    @classmethod
    def from_estimates(
        cls, figures: Estimates, first: str, second: str, metric: str, policy: str = ""
    ) -> Claim:
        """The claim as a single comparison."""
        one, other = (figures.get(name, metric, policy).estimate for name in (first, second))
        difference = figures.difference(first, second, metric, policy)
        return cls(first, second, metric, policy, (one, other), difference)

    @property
    def standing(self) -> Standing:
        """What the interval shows: a system has more only where it excludes 0, as printed."""
        if self.difference.excludes_zero:
            return "first" if self.difference.estimate > 0 else "second"
        if self.equal:
            return "same"
        return "open" if self.difference.bounded else "unknown"

    @property
    def equal(self) -> bool:
        """Whether both systems have the same figure."""
        return same(*self.values)

    @property
    def decided(self) -> bool:
        """Whether a difference was shown."""
        return self.standing in ("first", "second")

    @property
    def leader(self) -> str:
        """The system that was shown to have more; empty where none was."""
        return {"first": self.first, "second": self.second}.get(self.standing, "")

    @property
    def level(self) -> float:
        """Coverage of the interval."""
        return family_level(self.comparisons)

    @property
    def level_words(self) -> str:
        """Coverage of the interval, in per cent."""
        return f"{100 * self.level:.3g} %"

    @property
    def falling(self) -> Claim:
        """The same claim with the higher figure first."""
        if self.equal or not self.values[0] < self.values[1]:
            return self
        return replace(
            self,
            first=self.second,
            second=self.first,
            values=(self.values[1], self.values[0]),
            difference=self.difference.reversed(),
        )

    @property
    def gap_words(self) -> str:
        """The difference with the interval that the verdict rests on, or why there is none."""
        words = f"difference {number(self.difference.estimate)}"
        if self.difference.bounded:
            return f"{words}, {self.level_words} interval {interval_text(self.difference)}"
        lacking = f"no interval for one of {self.comparisons} comparisons"
        reason = self.difference.note or ("no interval" if self.comparisons == 1 else lacking)
        return f"{words}; {reason}"


def decide_together(claims: Sequence[Claim]) -> list[Claim]:
    """Give each claim of a family the interval by which Holm's method decides it.

    See `_step_down`; a claim is shown where its interval excludes 0. So what is said and the
    interval beside it never contradict each other, and in 95 % of cases no claim of the family is
    false. Claims without an interval are not of the family.
    """
    bounded = [position for position, claim in enumerate(claims) if claim.difference.bounded]

    def widened(position: int, size: int) -> Claim:
        gap = claims[position].difference.within(size)
        return replace(claims[position], difference=gap, comparisons=size)

    sizes = _step_down(len(bounded), lambda number, size: widened(bounded[number], size).decided)
    decided = list(claims)
    for position, size in zip(bounded, sizes, strict=True):
        decided[position] = widened(position, size)
    return decided


def against_margin(
    gap: Interval, margin: float
) -> Literal["equivalent", "non-inferior", "worse", "open", "unknown"]:
    """Hold the interval of a difference other - reference against a margin, unrounded.

    Non-inferior: the interval lies above -margin (a one-sided test at half of what the interval
    leaves out). Equivalent: it lies wholly between -margin and margin (both one-sided tests).
    Worse: it lies below -margin. An end that is the margin shows nothing.

    Source:
        Schuirmann 1987, the two one-sided tests; ICH E9.

    Example:
        >>> from cxr_compare.evaluation.statistics.intervals import Interval
        >>> against_margin(Interval(-0.01, -0.03049, 0.01), 0.0304)
        'open'
    """
    if not gap.bounded:
        return "unknown"
    if -margin < gap.low and gap.high < margin:
        return "equivalent"
    if gap.low > -margin:
        return "non-inferior"
    return "worse" if gap.high < -margin else "open"


def margin_words(
    reference: str, other: str, title: str, gap: Interval, margin: float, contrasts: int = 1
) -> str:
    """Say whether a system is non-inferior or equivalent to the reference."""
    standing, subject = against_margin(gap, margin), title[:1].upper() + title[1:]
    if standing == "unknown":
        return f"{subject}: {other} and {reference} cannot be held against the margin: no interval."
    digits = _telling_digits((gap.low, gap.high), margin)
    ends = f"{number(-gap.high, digits)} to {number(-gap.low, digits)}"
    several = f", Bonferroni over {contrasts} contrasts" if contrasts > 1 else ""
    claim = {
        "equivalent": f"is equivalent to {reference} within",
        "non-inferior": f"is non-inferior to {reference} by",
        "worse": f"is worse than {reference} by more than",
        "open": f"was not shown to be non-inferior to {reference} by",
    }[standing]
    return (
        f"{subject}: {other} {claim} the margin of {number(margin, digits)}: difference "
        f"{reference} − {other} {number(-gap.estimate, digits)} ({100 - 5 / contrasts:.4g} % "
        f"interval {ends}{several})."
    )


def _telling_digits(ends: tuple[float, float], margin: float) -> int:
    """So many digits, at least 3, that printed ends lie to the margin as true ones do."""

    def kept(digits: int) -> bool:
        return all(
            np.sign(round(end, digits) - round(mark, digits)) == np.sign(end - mark)
            for end in ends
            for mark in (-margin, margin)
        )

    return next((digits for digits in range(3, _MOST_DIGITS) if kept(digits)), _MOST_DIGITS)


@dataclass(frozen=True)
class GoalResult:
    """A protocol's goal, and the exact interval of a system's figure with its threshold held.

    By study or patient ``n_images`` counts these; `case` is empty, or that all images that are not
    counted otherwise are counted against the system, or for it.
    """

    metric: str
    at_least: float
    case: str
    n_images: int
    n_patients: int
    estimate: float
    ci_low: float
    ci_high: float

    @classmethod
    def from_scorecard(
        cls, scorecard: Scorecard, metric: str, protocol: Protocol, case: str
    ) -> GoalResult:
        """Hold a figure at the protocol's threshold against its goal."""
        if why := scorecard.why_undefined(metric, protocol.policy):
            raise InputError(f"protocol: the goal of '{metric}' cannot be evaluated: {why}")
        evaluated = scorecard.evaluated
        counted = evaluated.y_true == (metric == "recall")
        right = counted & (scorecard.called(protocol.policy) == evaluated.y_true)
        table = np.stack([right, counted], axis=1)
        hits, images = per_cluster(table, evaluated.patients, evaluated.n_patients).T
        sizes = int(images.sum()), int(np.count_nonzero(images))
        share, ends = float(hits.sum() / images.sum()), exact_share(hits, images)
        return cls(metric, protocol.goals[metric], case, *sizes, share, *ends)

    @property
    def standing(self) -> Literal["met", "missed", "open"]:
        """Met where the interval lies above the goal, missed where it lies below, unrounded."""
        if self.ci_low > self.at_least:
            return "met"
        return "missed" if self.ci_high < self.at_least else "open"

    @staticmethod
    def together(results: Sequence[GoalResult], where: str) -> str:
        """Whether a system met its goals, which are met only together."""
        standings = {each.standing for each in results}
        goals = "both goals" if len(results) > 1 else "the goal"
        said = f"met {goals}" if standings == {"met"} else f"was not shown to meet {goals}"
        if "missed" in standings:
            said = f"missed {goals}" if standings == {"missed"} else "missed one of two goals"
        return f"{said}{where}: {'; '.join(each.words for each in results)}"

    @property
    def method(self) -> str:
        """What the interval is."""
        clustered = " of the effective number of images by patient (Korn and Graubard)"
        several = self.n_images > self.n_patients
        return f"exact (Clopper-Pearson){clustered * several}, threshold held"

    @property
    def rule(self) -> str:
        """How a goal is held against its interval."""
        return (
            "A goal is met where the whole 95 % interval lies above it (one-sided 2.5 %); of two "
            "both must be, so neither is corrected. "
            f"Intervals: {self.method}, of this model as it is."
        )

    @property
    def words(self) -> str:
        """Figure, interval and goal, with so many digits that they lie to each other as true."""
        digits = _telling_digits((self.ci_low, self.ci_high), self.at_least)
        value, goal = number(self.estimate, digits), number(self.at_least, digits)
        ends = range_text(self.ci_low, self.ci_high, digits=digits)
        said = {"met": "", "missed": ", missed", "open": ", not shown"}[self.standing]
        return f"{METRICS[self.metric].inside} {value} ({ends}; goal {goal}{said})"


HeadlineKind = Literal["decided", "open", "single", "unknown"]
"""A difference was shown; one was not shown; one system alone; no figure or no interval."""


ConclusionKind = Literal["primary", "margin", "pair", "operating_point"]
"""The primary figure of a pair, or against a margin; another figure of a pair; all that a pair has
at one threshold."""


@dataclass(frozen=True)
class Conclusion:
    """A sentence on one pair of systems."""

    text: str  # the sentence
    kind: ConclusionKind  # what it is about
    claims: tuple[Claim, ...]  # the differences in it, each with the interval that decides it
    decided: bool  # whether it says that something was shown
    secondary: bool = False  # whether a protocol left it open, so that it confirms nothing


@dataclass(frozen=True)
class Verdict:
    """The report's opening."""

    where: str  # on what it was evaluated, as an answer begins
    answer: str  # the answer without these words
    scope: Mapping[str, str]  # how far it reaches: sentences by the few words that sum them up
    conclusions: list[Conclusion]  # further comparisons
    kind: HeadlineKind  # what kind of answer it is
    # The differences of the primary figure between all pairs, decided as one family.
    claims: tuple[Claim, ...] = ()
    # What may make it wrong, the most harmful first; shown right below the headline.
    cautions: tuple[Note, ...] = ()
    chance: str = ""  # that no system was shown to be better than chance, where that is so

    @property
    def headline(self) -> str:
        """The answer in one sentence, that no system beats chance first."""
        return f"{self.where}, {'; '.join(filter(None, (self.chance, self.answer)))}."

    def decides(self, first: str, second: str, metric: str, policy: str) -> bool | None:
        """Whether a difference is shown among all that are told; `None` of one that is not told."""
        told = (*self.claims, *(claim for each in self.conclusions for claim in each.claims))
        wanted = (first, second, metric, policy)
        own = [c for c in told if (c.first, c.second, c.metric, c.policy) == wanted]
        return own[0].decided if own else None


@dataclass(frozen=True)
class Setting:
    """What an answer is told with, beside its figures."""

    seeds: Mapping[str, int] | None = None  # training runs behind each system, where known
    # Systems that are a run, or an export of it, as one named before: its name.
    same_training: Mapping[str, str] = field(default_factory=dict)
    synthetic: int = 0  # how many of the evaluated images are synthetic
    cautions: tuple[Note, ...] = ()  # what may make the answer wrong, the most harmful first
    uses_before: int | None = None  # how often the test images were used before; `None`: unknown
    goals: Sequence[GoalResult] = ()  # what the system was found to reach of the protocol's goals
