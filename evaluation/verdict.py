"""The answer in plain words, never more than the paired intervals support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.intervals import Interval, find_difference, find_interval, rows_of
from evaluation.wording import inside_sentence, listing, metric_words, number, policy_words

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
    metrics: pd.DataFrame, systems: list[str], finding: str, *, seeds: dict[str, int] | None = None
) -> Verdict:
    """Say which system is better, as far as the intervals say so.

    Two systems differ only where the interval of their paired difference excludes 0; else they
    are "not shown to differ", which is not the same as equal.

    Args:
        metrics: The tidy metrics table.
        systems: Display names; the first is the reference.
        finding: Display name of the target.
        seeds: Training runs behind each system; None where unknown (other software, readers).

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
    findings = [
        compare_pair(metrics, systems[0], other, metric, policy)
        for metric, policy in SUPPORTING
        for other in systems[1:]
        if find_difference(metrics, systems[0], other, metric, policy).known
    ]
    scope = _scope(systems, seeds)
    if len(systems) > 2:
        scope += " The intervals are not widened for the number of comparisons."
    return Verdict(_headline(metrics, systems, finding), scope, findings)


def compare_pair(
    metrics: pd.DataFrame, first: str, second: str, metric: str, policy: str = ""
) -> Finding:
    """Compare two systems on one metric in one sentence.

    Args:
        metrics: The tidy metrics table.
        first: A system.
        second: Another system.
        metric: Short name; higher must be better.
        policy: Threshold policy, or "".
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
    gap += f" (95 % interval {difference.ends})"
    if difference.excludes_zero:
        text = f"{title}{at} is higher for {first} than for {second}: {values[0]} and {values[1]}"
        return Finding(f"{text}, {gap}.", decided=True, leader=first, difference=difference)
    text = f"{title}{at} was not shown to differ: {first} {values[0]}, {second} {values[1]}"
    return Finding(f"{text}, {gap}.", decided=False, leader="", difference=difference)


def _headline(metrics: pd.DataFrame, systems: list[str], finding: str) -> str:
    where = _where(metrics)
    task = f"telling images with {inside_sentence(finding)} from images without"
    scores = {name: find_interval(metrics, name, PRIMARY_METRIC) for name in systems}
    if not all(score.known for score in scores.values()):
        lost = listing([name for name, score in scores.items() if not score.known])
        return f"{where}, no comparison is possible: the AUROC of {lost} is undefined."
    if len(systems) == 1:
        name, score = systems[0], scores[systems[0]]
        ends = f" (95 % interval {score.ends})" if score.bounded else ""
        return f"{where}, {name} reached an AUROC of {number(score.estimate)}{ends} in {task}."
    ranked = sorted(systems, key=lambda name: -scores[name].estimate)
    if len(systems) > 2:
        return _headline_of_many(metrics, ranked, scores, where, task)
    first, second = ranked
    difference = find_difference(metrics, first, second, PRIMARY_METRIC)
    values = f"AUROC {number(scores[first].estimate)} and {number(scores[second].estimate)}"
    if not difference.bounded:
        reason = difference.note or "the paired difference has no interval"
        return f"{where}, nothing can be claimed of {first} and {second}: {values}; {reason}."
    gap = f"difference {number(difference.estimate)} (95 % interval {difference.ends})"
    if difference.excludes_zero:
        return f"{where}, {first} was better than {second} at {task}: {values}, {gap}."
    return f"{where}, {first} and {second} were not shown to differ in {task}: {values}, {gap}."


def _headline_of_many(
    metrics: pd.DataFrame,
    ranked: list[str],
    scores: dict[str, Interval],
    where: str,
    task: str,
) -> str:
    """Say of the highest which others it was shown to exceed, each with its difference."""
    best, *others = ranked
    beaten: list[str] = []
    open_: list[str] = []
    for other in others:
        difference = find_difference(metrics, best, other, PRIMARY_METRIC)
        words = f"{other} ({number(scores[other].estimate)}"
        if difference.bounded:
            words += f"; difference {number(difference.estimate)}, 95 % interval {difference.ends}"
        (beaten if difference.excludes_zero else open_).append(words + ")")
    parts = [f"it was shown to exceed {listing(beaten)}"] if beaten else []
    parts += [f"it was not shown to differ from {listing(open_)}"] if open_ else []
    return (
        f"{where}, {best} had the highest AUROC of {len(ranked)} systems in {task} "
        f"({number(scores[best].estimate)}); {listing(parts)}."
    )


def _where(metrics: pd.DataFrame) -> str:
    rows = rows_of(metrics)
    rows = rows[rows["metric"] == PRIMARY_METRIC]
    count = int(rows["n_images"].max()) if len(rows) else 0
    return f"On these {count:,} test images" if count else "On this test set"


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
