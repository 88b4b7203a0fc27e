"""The answer in plain words, never more than the paired intervals support."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evaluation.compare.headline import IN_A_SENTENCE, adjusted, headline, shown
from evaluation.compare.intervals import Interval, find_difference, find_interval
from evaluation.compare.protocol import (
    EXPLORATORY,
    Protocol,
    against_margin,
    margin_words,
    standing_words,
)
from evaluation.compare.question import Question
from evaluation.metrics.registry import (
    listing,
    metric_words,
    number,
    policy_words,
)

if TYPE_CHECKING:
    import pandas as pd

PRIMARY_METRIC = "auroc"
SUPPORTING = (
    ("average_precision", ""),
    ("recall", "max_f1"),
    ("specificity", "max_f1"),
    ("localised_sensitivity", "max_f1"),
    ("ap50", ""),
)
SECONDARY = "Secondary, explains but does not confirm: "
"""Before every claim of a confirmatory report that is not of its primary figure."""
_NOT_WIDENED = "The intervals are not widened for the number of comparisons"
_ALSO_TESTED = (
    " (but those held against a margin are); a difference is claimed only where p after Holm is "
    "below 0.05, too."
)


@dataclass(frozen=True)
class Finding:
    """One comparison in words.

    Args:
        text: A sentence with its numbers.
        decided: Whether the interval excludes 0.
        leader: The system shown to be better, or "".
        difference: The paired difference behind it.
    """

    text: str
    decided: bool
    leader: str
    difference: Interval


@dataclass(frozen=True)
class Verdict:
    """The report's opening.

    Args:
        headline: The answer in one sentence.
        scope: What the answer speaks of, and what it does not.
        findings: The further comparisons, one sentence each.
    """

    headline: str
    scope: str
    findings: list[Finding]

    @property
    def open(self) -> bool:
        """Whether anything was left undecided."""
        return "not shown to differ" in self.headline or any(
            not finding.decided for finding in self.findings
        )


def state_verdict(
    metrics: pd.DataFrame,
    systems: list[str],
    finding: str,
    *,
    seeds: dict[str, int] | None = None,
    protocol: Protocol = EXPLORATORY,
    tests: pd.DataFrame | None = None,
    looks_before: int | None = None,
) -> Verdict:
    """Say which system is better, as far as the intervals say so.

    Two systems differ only where the interval of their paired difference excludes 0; else they
    are "not shown to differ", which is not the same as equal.

    Args:
        metrics: The tidy metrics table.
        systems: Display names; the first is the reference.
        finding: Display name of the target.
        seeds: Training runs behind each system; None where unknown (other software, readers).
        protocol: The question; its primary figure decides.
        tests: From `evaluation.compare.paired_tests.paired_tests`; where several systems are compared, a
            difference is claimed only if its Holm-adjusted p-value is below 0.05 too.
        looks_before: How often the test split was looked at before the protocol was first used.

    Example:
        >>> import pandas as pd
        >>> rows = [("A", 0.9, 0.8, 0.95), ("B", 0.8, 0.7, 0.9), ("A - B", 0.1, -0.1, 0.2)]
        >>> frame = pd.DataFrame(rows, columns=["system", "estimate", "ci_low", "ci_high"])
        >>> frame = frame.assign(metric="auroc", policy="", subgroup="", n_images=50)
        >>> print(state_verdict(frame, ["A", "B"], "Lung opacity").headline)
        On these 50 test images, A and B were not shown to differ in telling images with lung
        opacity from images without: AUROC 0.900 and 0.800, difference 0.100 (95 % interval
        −0.100 to 0.200).
    """
    known = Question(metrics, tests, protocol, many=len(systems) > 2)
    primary = (protocol.metric, protocol.policy)
    answers = [
        _against_margin(known, systems[0], other, len(systems) - 1)
        for other in systems[1:]
        if protocol.margin is not None
    ]
    findings = [
        compare_pair(
            metrics, systems[0], other, *key, p_value=known.p_value(systems[0], other, key)
        )
        for key in ((PRIMARY_METRIC, ""), *SUPPORTING)
        if key != primary
        for other in systems[1:]
        if find_difference(metrics, systems[0], other, *key).known
    ]
    if protocol.declared:
        findings = [replace(each, text=SECONDARY + each.text) for each in findings]
    if len(systems) > IN_A_SENTENCE:
        findings = _gather(_against_best(known, systems) + findings)
    findings = answers + findings
    parts = [_scope(systems, seeds)]
    if len(systems) > 2:
        parts.append(_NOT_WIDENED + (_ALSO_TESTED if known.tested else "."))
    parts += _detectable(known, systems)
    parts += [standing_words(protocol, looks_before)] if known.tested or protocol.declared else []
    if any(each.text.startswith(SECONDARY) for each in findings):
        parts.append(
            "Findings marked as secondary explain the answer; the protocol did not fix them, so "
            "they confirm nothing."
        )
    return Verdict(headline(known, systems, finding), " ".join(parts), findings)


def _against_best(known: Question, systems: list[str]) -> list[Finding]:
    """What the headline of many systems leaves out: the highest against each other one."""
    protocol = known.protocol
    if not all(known.score(name).known for name in systems):
        return []
    best, *others = sorted(systems, key=lambda name: -known.score(name).estimate)
    primary = (protocol.metric, protocol.policy)
    return [
        compare_pair(
            known.metrics,
            best,
            other,
            *primary,
            p_value=known.p_value(best, other, primary, all_pairs=True),
        )
        for other in others
    ]


def _gather(findings: list[Finding]) -> list[Finding]:
    """What was decided in full, the rest as a count: the table has every figure."""
    decided = [finding for finding in findings if finding.decided]
    left = len(findings) - len(decided)
    if not left:
        return decided
    text = f"{left} further comparisons were not shown to differ; the table has their intervals."
    return [*decided, Finding(text, decided=False, leader="", difference=Interval())]


def _against_margin(known: Question, reference: str, other: str, contrasts: int) -> Finding:
    protocol, gap = known.protocol, known.simultaneous(other, reference)
    margin = protocol.margin or 0.0
    text = margin_words(reference, other, protocol.title, gap, margin, contrasts)
    decided = against_margin(gap, margin) not in ("open", "unknown")
    return Finding(text, decided=decided, leader="", difference=gap)


def _detectable(known: Question, systems: list[str]) -> list[str]:
    """The smallest difference that the test set could have shown, per contrast."""
    reaches = [(other, known.detectable(systems[0], other)) for other in systems[1:]]
    told = [(other, reach) for other, reach in reaches if reach is not None]
    if not told:
        return []
    versus = f" between {systems[0]} and " if known.many else ""
    sizes = [f"{number(reach)}{versus + other if versus else ''}" for other, reach in told]
    if len(told) >= IN_A_SENTENCE:
        reach_of = sorted(reach for _, reach in told)
        sizes = [f"{number(reach_of[0])} to {number(reach_of[-1])} against {systems[0]}"]
    return [
        f"Such a test set shows a true difference in {known.protocol.title} of {listing(sizes)} "
        "in 80 % of cases (two-sided 5 %; 2.80 x the standard error of the paired difference, "
        "by patient); smaller ones it mostly misses."
    ]


def compare_pair(
    metrics: pd.DataFrame,
    first: str,
    second: str,
    metric: str,
    policy: str = "",
    p_value: float | None = None,
) -> Finding:
    """Compare two systems on one metric in one sentence.

    Args:
        metrics: The tidy metrics table.
        first: A system.
        second: Another system.
        metric: Short name; higher must be better.
        policy: Threshold policy, or "".
        p_value: Adjusted for the number of comparisons; at 0.05 or above nothing is claimed.
    """
    difference = find_difference(metrics, first, second, metric, policy)
    if difference.estimate < 0:
        first, second, difference = second, first, difference.reversed()
    values = [
        number(find_interval(metrics, each, metric, policy).estimate) for each in (first, second)
    ]
    title = metric_words(metric).title
    at = f" at the threshold for {policy_words(policy)}" if policy else ""
    gap = f"difference {number(difference.estimate)}"
    if not difference.bounded:
        reason = difference.note or "no interval"
        text = f"{title}{at}: {first} {values[0]}, {second} {values[1]}; no claim ({reason})."
        return Finding(text, decided=False, leader="", difference=difference)
    gap += f" (95 % interval {difference.ends}{adjusted(p_value)})"
    if shown(difference, p_value):
        text = f"{title}{at} is higher for {first} than for {second}: {values[0]} and {values[1]}"
        return Finding(f"{text}, {gap}.", decided=True, leader=first, difference=difference)
    text = f"{title}{at} was not shown to differ: {first} {values[0]}, {second} {values[1]}"
    return Finding(f"{text}, {gap}.", decided=False, leader="", difference=difference)


def _scope(systems: list[str], seeds: dict[str, int] | None) -> str:
    """Say how far the answer reaches."""
    single = [name for name in systems if (seeds or {}).get(name, 0) == 1]
    count = {1: "this", 2: "these two", 3: "these three"}.get(len(systems), "these")
    noun = "model" if len(systems) == 1 else "models"
    if len(single) == len(systems):
        return (
            f"The answer speaks of {count} trained {noun}, one training run (seed) each, on this "
            "data: another run of the same recipe may come out differently."
        )
    if single:
        return (
            f"Of {listing(single)} there is one training run (seed): the answer speaks of that "
            "trained model on this data, not of the recipe behind it."
        )
    return f"The answer speaks of {count} {noun.replace('model', 'system')} on this data."
