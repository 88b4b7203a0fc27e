"""The answer in plain words, never more than the paired intervals support."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from evaluation.compare.figures import Figure, Figures
from evaluation.compare.protocol import (
    EXPLORATORY,
    Protocol,
    against_margin,
    margin_words,
    standing_words,
)
from evaluation.metrics.evaluation_set import ALL
from evaluation.metrics.registry import METRICS, highlighted, metric_title
from evaluation.metrics.words import ends_words, inside_sentence, listing, number, policy_words
from evaluation.statistics.bootstrap import Interval

if TYPE_CHECKING:
    import pandas as pd

    from evaluation.compare.protocol import Protocol


@dataclass(frozen=True)
class PrimaryComparison:
    """A comparison's figures and tests, and the figure that decides.

    Attributes:
        figures: Every figure.
        tests: From `paired_tests`; `None` or empty where there are none.
        protocol: Names the primary figure.
        many: Whether more than two systems are compared.
    """

    figures: Figures
    tests: pd.DataFrame | None
    protocol: Protocol
    many: bool

    @property
    def tested(self) -> bool:
        """Whether there are tests."""
        return self.tests is not None and len(self.tests) > 0

    @property
    def primary(self) -> tuple[str, str]:
        """Metric and policy of the primary figure."""
        return self.protocol.metric, self.protocol.policy

    def score(self, name: str) -> Figure:
        """A system's primary figure."""
        return self.figures.of(name, *self.primary)

    def difference(self, first: str, second: str) -> Figure:
        """The paired difference of the primary figure."""
        return self.figures.difference(first, second, *self.primary)

    def p_value(
        self, first: str, second: str, key: tuple[str, str], *, all_pairs: bool = False
    ) -> float | None:
        """Holm's p-value, where several systems are compared and it is known.

        Args:
            first: A system.
            second: Another.
            key: Metric and policy.
            all_pairs: Over all pairs, as for the best of several, which the figures chose; else
                over the contrasts with the reference system.
        """
        column = "p_holm_pairs" if all_pairs else "p_holm"
        return self._tested(first, second, key, column) if self.many else None

    def simultaneous(self, first: str, second: str) -> Figure:
        """The difference of the primary figure, its interval for all contrasts at once.

        Returns:
            By the method of the difference's own interval; no interval where there is none for
            several contrasts.
        """
        return self.difference(first, second).within(len(self.figures.systems) - 1)

    def detectable(self, first: str, second: str) -> float | None:
        """The smallest difference of the primary figure that the test set could have shown."""
        return self._tested(first, second, self.primary, "detectable")

    def _tested(self, first: str, second: str, key: tuple[str, str], column: str) -> float | None:
        rows = pd.concat([self._rows(first, second, key), self._rows(second, first, key)])
        values = rows[column].dropna() if column in rows else rows.index[:0]
        return float(np.asarray(values)[0]) if len(values) else None

    def _rows(self, first: str, second: str, key: tuple[str, str]) -> pd.DataFrame:
        """Tests of a pair on all images, by patient; those of a figure's own test come first."""
        table = self.tests
        if table is None or table.empty:
            return pd.DataFrame()
        of = (table["first"] == first) & (table["second"] == second)
        of &= (table["metric"] == key[0]) & (table["policy"] == key[1])
        of &= (table["subgroup"] == ALL) & (table["independent"] == "patients")
        return table[of]


SIGNIFICANT = 0.05
IN_A_SENTENCE = 4
"""Systems whose figures one sentence can hold."""


def _shown(difference: Interval, p_value: float | None) -> bool:
    """Whether a difference may be claimed: its interval excludes 0, and so does the test."""
    return difference.excludes_zero and (p_value is None or p_value < SIGNIFICANT)


def _adjusted(p_value: float | None, family: str = "") -> str:
    """An adjusted p-value in words; nothing where there is none.

    Example:
        >>> _adjusted(0.012, " over all pairs")
        '; p = 0.012 after Holm over all pairs'
    """
    if p_value is None:
        return ""
    size = "p < 0.001" if p_value < 0.001 else f"p = {number(p_value)}"
    return f"; {size} after Holm{family}"


HeadlineKind = Literal["decided", "open", "single", "unknown"]
"""A difference was shown; one was not shown; one system alone; no figure or no interval."""


class Headline(NamedTuple):
    """The answer in one sentence, and what kind of answer it is."""

    text: str
    kind: HeadlineKind


def headline(known: PrimaryComparison, systems: list[str], finding: str) -> Headline:
    """Say in one sentence which system is better, or that none was shown to be."""
    where, things = _judged_on(known)
    title = known.protocol.title
    task = f"telling {things} with {inside_sentence(finding)} from {things} without"
    if METRICS[known.protocol.metric].boxed:
        task = f"finding {inside_sentence(finding)}"
    scores = {name: known.score(name) for name in systems}
    if not all(score.known for score in scores.values()):
        undefined = listing([name for name, score in scores.items() if not score.known])
        text = f"{where}, no comparison is possible: the {title} of {undefined} is undefined."
        return Headline(text, "unknown")
    if len(systems) == 1:
        name, score = systems[0], scores[systems[0]]
        ends = f" (95 % interval {ends_words(score)})" if score.bounded else ""
        text = f"{where}, the {title} of {name} was {number(score.estimate)}{ends} in {task}."
        return Headline(text, "single")
    ranked = sorted(systems, key=lambda name: -scores[name].estimate)
    if len(systems) > 2:
        return _headline_of_many(known, ranked, scores, where, task)
    first, second = ranked
    difference = known.difference(first, second)
    values = f"{title} {number(scores[first].estimate)} and {number(scores[second].estimate)}"
    if not difference.bounded:
        reason = difference.note or "the paired difference has no interval"
        text = f"{where}, nothing can be claimed of {first} and {second}: {values}; {reason}."
        return Headline(text, "unknown")
    gap = f"difference {number(difference.estimate)} (95 % interval {ends_words(difference)})"
    if difference.excludes_zero:
        text = f"{where}, {first} was better than {second} at {task}: {values}, {gap}."
        return Headline(text, "decided")
    text = f"{where}, {first} and {second} were not shown to differ in {task}: {values}, {gap}."
    return Headline(text, "open")


def _headline_of_many(
    known: PrimaryComparison,
    ranked: list[str],
    scores: Mapping[str, Interval],
    where: str,
    task: str,
) -> Headline:
    """Say of the highest which others it was shown to exceed, each with its difference."""
    best, *others = ranked
    beaten: list[str] = []
    open_: list[str] = []
    for other in others:
        difference = known.difference(best, other)
        p_value = known.p_value(best, other, known.primary, all_pairs=True)
        words = f"{other} ({number(scores[other].estimate)}"
        if difference.bounded and len(ranked) <= IN_A_SENTENCE:
            words += f"; difference {number(difference.estimate)}"
            words += f", 95 % interval {ends_words(difference)}"
            words += _adjusted(p_value, " over all pairs")
        (beaten if _shown(difference, p_value) else open_).append(words + ")")
    parts = [f"it was shown to exceed {listing(beaten)}"] if beaten else []
    parts += [f"it was not shown to differ from {listing(open_)}"] if open_ else []
    text = (
        f"{where}, {best} had the highest {known.protocol.title} of {len(ranked)} systems "
        f"in {task} ({number(scores[best].estimate)}); {listing(parts)}."
    )
    return Headline(text, "open" if open_ else "decided")


def _judged_on(known: PrimaryComparison) -> tuple[str, str]:
    """The opening words, and what was judged: images, studies or patients."""
    count = max(
        (
            figure.counts.n_images
            for _, key, figure in known.figures
            if key.subgroup == ALL and key.metric == known.protocol.metric
        ),
        default=0,
    )
    nouns = {"study": "studies", "patient": "patients"}
    things = nouns.get(known.figures.unit, "images")
    return (
        (f"On these {count:,} test {things}", things) if count else ("On this test set", "images")
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
    """One comparison in words."""

    text: str
    decided: bool
    leader: str
    difference: Interval
    secondary: bool = False


@dataclass(frozen=True)
class Verdict:
    """The report's opening.

    Attributes:
        headline: The answer in one sentence.
        scope: How far it reaches.
        findings: Further comparisons.
        kind: What kind of answer it is.
        cautions: What may make it wrong, the most harmful first; shown right below the headline.
    """

    headline: str
    scope: str
    findings: list[Finding]
    kind: HeadlineKind
    cautions: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether anything was left undecided."""
        return self.kind == "open" or any(not finding.decided for finding in self.findings)


def _supporting() -> list[tuple[str, str]]:
    """The figures that a verdict tells of beside the primary one, with their policies."""
    names = highlighted("verdict")
    return [(name, "max_f1" if "threshold" in METRICS[name].needs else "") for name in names]


def state_verdict(
    figures: Figures,
    systems: list[str],
    finding: str,
    *,
    seeds: dict[str, int] | None = None,
    protocol: Protocol = EXPLORATORY,
    tests: pd.DataFrame | None = None,
    uses_before: int | None = None,
) -> Verdict:
    """Say which system is better, as far as the intervals say so.

    Two systems differ only where the interval of their paired difference excludes 0; else they
    are "not shown to differ", which is not the same as equal.

    Example:
        >>> import pandas as pd
        >>> rows = [("A", 0.9, 0.8, 0.95), ("B", 0.8, 0.7, 0.9), ("A - B", 0.1, -0.1, 0.2)]
        >>> frame = pd.DataFrame(rows, columns=["system", "estimate", "ci_low", "ci_high"])
        >>> frame = frame.assign(metric="auroc", policy="", subgroup="", n_images=50)
        >>> print(state_verdict(Figures.from_table(frame), ["A", "B"], "Lung opacity").headline)
        On these 50 test images, A and B were not shown to differ in telling images with lung
        opacity from images without: AUROC 0.900 and 0.800, difference 0.100 (95 % interval
        −0.100 to 0.200).
    """
    known = PrimaryComparison(figures, tests, protocol, many=len(systems) > 2)
    answers = [
        _against_margin(known, systems[0], other, len(systems) - 1)
        for other in systems[1:]
        if protocol.margin is not None
    ]
    findings = [
        _compare_pair(
            figures, systems[0], other, *key, p_value=known.p_value(systems[0], other, key)
        )
        for key in _supporting()
        if key != known.primary
        for other in systems[1:]
        if figures.difference(systems[0], other, *key).known
    ]
    if protocol.declared:
        findings = [replace(each, text=SECONDARY + each.text, secondary=True) for each in findings]
    if len(systems) > IN_A_SENTENCE:
        findings = _gather(_against_best(known, systems) + findings)
    findings = answers + findings
    parts = [_scope(systems, seeds)]
    if len(systems) > 2:
        parts.append(_NOT_WIDENED + (_ALSO_TESTED if known.tested else "."))
    parts += _detectable(known, systems)
    parts += [standing_words(protocol, uses_before)] if known.tested or protocol.declared else []
    if any(each.secondary for each in findings):
        parts.append(
            "Findings marked as secondary explain the answer; the protocol did not fix them, so "
            "they confirm nothing."
        )
    first = headline(known, systems, finding)
    return Verdict(first.text, " ".join(parts), findings, first.kind)


def _against_best(known: PrimaryComparison, systems: list[str]) -> list[Finding]:
    """What the headline of many systems leaves out: the highest against each other one."""
    protocol = known.protocol
    if not all(known.score(name).known for name in systems):
        return []
    best, *others = sorted(systems, key=lambda name: -known.score(name).estimate)
    primary = (protocol.metric, protocol.policy)
    return [
        _compare_pair(
            known.figures,
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


def _against_margin(
    known: PrimaryComparison, reference: str, other: str, contrasts: int
) -> Finding:
    protocol, gap = known.protocol, known.simultaneous(other, reference)
    margin = protocol.margin or 0.0
    text = margin_words(reference, other, protocol.title, gap, margin, contrasts)
    decided = against_margin(gap, margin) not in ("open", "unknown")
    return Finding(text, decided=decided, leader="", difference=gap)


def _detectable(known: PrimaryComparison, systems: list[str]) -> list[str]:
    """The smallest difference that the test set could have shown, per contrast."""
    reaches = [(other, known.detectable(systems[0], other)) for other in systems[1:]]
    known_reaches = [(other, reach) for other, reach in reaches if reach is not None]
    if not known_reaches:
        return []
    versus = f" between {systems[0]} and " if known.many else ""
    sizes = [f"{number(reach)}{versus + other if versus else ''}" for other, reach in known_reaches]
    if len(known_reaches) >= IN_A_SENTENCE:
        reach_of = sorted(reach for _, reach in known_reaches)
        sizes = [f"{number(reach_of[0])} to {number(reach_of[-1])} against {systems[0]}"]
    return [
        f"This test set has 80 % power to detect a true difference in {known.protocol.title} of "
        f"{listing(sizes)} (two-sided 5 %; 2.80 x the standard error of the paired difference, by "
        "patient); smaller differences would usually be missed."
    ]


def _compare_pair(
    figures: Figures,
    first: str,
    second: str,
    metric: str,
    policy: str = "",
    p_value: float | None = None,
) -> Finding:
    """Compare two systems on one metric in one sentence."""
    difference: Interval = figures.difference(first, second, metric, policy)
    if difference.estimate < 0:
        first, second, difference = second, first, difference.reversed()
    values = [number(figures.of(each, metric, policy).estimate) for each in (first, second)]
    title = metric_title(metric)
    at = f" at the threshold for {policy_words(policy)}" if policy else ""
    gap = f"difference {number(difference.estimate)}"
    if not difference.bounded:
        reason = difference.note or "no interval"
        text = f"{title}{at}: {first} {values[0]}, {second} {values[1]}; no claim ({reason})."
        return Finding(text, decided=False, leader="", difference=difference)
    gap += f" (95 % interval {ends_words(difference)}{_adjusted(p_value)})"
    if _shown(difference, p_value):
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
