"""Decisions by a margin that was stated: is a system worse than the reference by more?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.figures import AUROC
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.replicates import SystemFigures
from cxr_compare.evaluation.statistics.clustered_auroc import margin_interval
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.verdict.claims import Claim
from cxr_compare.evaluation.verdict.prose import listing

Decision = Literal["equivalent", "not worse", "worse", "cannot tell"]
Gate = Literal["pass", "fail", "cannot tell"]
GATE_STATUS: Mapping[str, int] = {"pass": 0, "fail": 1, "cannot tell": 4}
"""Exit status of each; 2 and 3 are those of bad input and of a fault."""
_SAID: Mapping[Decision, str] = {
    "equivalent": "{systems} {verb} equivalent to {reference} within {margin}",
    "not worse": "{systems} {verb} not worse than {reference} by more than {margin}",
    "worse": "{systems} {verb} worse than {reference} by more than {margin}",
    "cannot tell": "it cannot be told whether {systems} {verb} worse than {reference} by more than "
    "{margin}",
}
_MOST_SAID = 3  # systems and findings in the line of a gate
_OWN_INTERVAL = (
    "its own 95 % interval (wider than that of the difference, which is for a test of 0)"
)


def gate_of(decisions: Iterable[Decision]) -> Gate:
    """Return the decision on all systems and findings together; one that is worse is enough.

    All must be shown not to be worse, so none is corrected for the others (intersection-union
    test: Berger 1982).
    """
    all_decisions = list(decisions)
    if "worse" in all_decisions:
        return "fail"
    return "cannot tell" if "cannot tell" in all_decisions or not all_decisions else "pass"


def margin_record(comparison: Comparison, claims: Sequence[Claim]) -> dict[str, Any]:
    """Return the decisions in each primary figure for ``answer.json``; empty without a margin.

    `claims` are those of the primary figures. The gate passes only if each system is shown not to
    be worse in each figure.
    """
    margins = comparison.protocol.margins([metric for metric, _ in comparison.primary])
    if not margins:
        return {}
    reference, *others = comparison.single
    systems = comparison.systems
    same = {name for name in others if _same(systems[reference], systems[name])}
    figures = {
        metric: decided(
            [claim for claim in claims if claim.metric == metric and claim.first == reference],
            margin,
            same,
            partial(_auroc_ends, comparison),
        )
        for metric, margin in margins.items()
    }
    decisions = [
        decision for figure in figures.values() for decision in figure["decisions"].values()
    ]
    return {"reference": reference, "figures": figures, "gate": gate_of(decisions)}


def decided(
    claims: Iterable[Claim],
    margin: float,
    same: Collection[str] = (),
    auroc_ends: Callable[[Claim], tuple[float, float] | None] | None = None,
) -> dict[str, Any]:
    """Return the decision on each system in one figure, of its claims against the reference.

    The 95 % interval of each difference, reference minus system, has two one-sided tests at 2.5 %
    as its ends (Schuirmann 1987). That of an AUROC is the `margin_interval`. Systems of the `same`
    answers as the reference are equivalent.
    """
    decisions: dict[str, Decision] = {}
    intervals: dict[str, list[float]] = {}
    for claim in claims:
        gap, name = claim.difference, claim.second
        ends = (gap.ci_low, gap.ci_high) if claim.tested else None
        if ends and auroc_ends and (claim.metric, claim.policy) == AUROC:
            ends = auroc_ends(claim)
        if ends is not None:
            intervals[name] = list(ends)
            decisions[name] = decide(*ends, margin)
        else:
            decisions[name] = "equivalent" if claim.equal and name in same else "cannot tell"
    return {"margin": margin, "decisions": decisions, "intervals": intervals}


def _auroc_ends(comparison: Comparison, claim: Claim) -> tuple[float, float] | None:
    """Return the ends of the difference in AUROC between the reference and a system."""
    parts = [comparison.rows.aurocs[name] for name in (claim.first, claim.second)]
    if parts[0] is None or parts[1] is None:
        return None
    return margin_interval(parts[0], parts[1])


def decide(low: float, high: float, margin: float) -> Decision:
    """Return what the interval of reference minus system shows, from its ends."""
    if high < margin:
        return "equivalent" if low > -margin else "not worse"
    return "worse" if low > margin else "cannot tell"


def _same(one: SystemFigures, other: SystemFigures) -> bool:
    """Return True if two systems gave the same scores, boxes and thresholds."""
    boxes, others = one.output.boxes, other.output.boxes
    same_boxes = boxes is others if boxes is None or others is None else boxes.equals(others)
    same_scores = one.output.scores.equals(other.output.scores)
    return same_boxes and same_scores and one.choices.thresholds == other.choices.thresholds


def margin_sentences(record: Mapping[str, Any], titles: Sequence[str]) -> str:
    """State the decisions in each primary figure, of which these are the titles."""
    figures = record["figures"].items()
    return " ".join(
        _sentence(metric, figure, record["reference"], title)
        for (metric, figure), title in zip(figures, titles, strict=True)
    )


def _sentence(metric: str, record: Mapping[str, Any], reference: str, title: str) -> str:
    """State the decision on each system, with how much worse or better it may be."""
    systems_by_decision: dict[Decision, list[str]] = {}
    for name, decision in record["decisions"].items():
        ends = record["intervals"].get(name)
        between = f" ({_between(*ends)})" if ends else ""
        systems_by_decision.setdefault(decision, []).append(name + between)
    margin = f"{record['margin']:g}"
    parts = [
        _SAID[decision].format(
            systems=listing(systems),
            verb="is" if len(systems) == 1 else "are",
            reference=reference,
            margin=margin,
        )
        for decision, systems in systems_by_decision.items()
    ]
    begin = f"By the stated margin of {margin} in {title}"
    if record["intervals"]:
        begin += f" and {_OWN_INTERVAL if metric == AUROC[0] else 'the 95 % interval'}"
    return f"{begin}, {'; '.join(parts)}."


def gate_line(records: Mapping[str, Mapping[str, Any]], gate: Gate) -> str:
    """Say how a gate ended and by which systems, of the record of each finding."""
    outcome = {"pass": "gate passed", "fail": "gate failed", "cannot tell": "gate cannot tell"}[
        gate
    ]
    parts = []
    for finding, record in records.items():
        of_finding = f"{finding}: " if len(records) > 1 else ""
        for metric, figure in record["figures"].items():
            of_figure = (METRICS[metric].inside, f"{figure['margin']:g}", record["reference"])
            parts += [of_finding + text for text in _deciding(figure, gate, *of_figure)]
    more = [f"and {len(parts) - _MOST_SAID} more"] if len(parts) > _MOST_SAID else []
    return f"{outcome}. {'; '.join([*parts[:_MOST_SAID], *more]) or 'a finding is left out'}"


def _deciding(
    figure: Mapping[str, Any], gate: Gate, title: str, margin: str, reference: str
) -> list[str]:
    """Return what decides a gate in one figure: a phrase for each system, or one for all."""
    if gate == "pass":
        return [f"no system is worse than {reference} by more than {margin} in {title}"]
    deciding = "worse" if gate == "fail" else gate
    phrases = []
    for name in (name for name, decision in figure["decisions"].items() if decision == deciding):
        ends = figure["intervals"].get(name)
        if ends is None:
            phrases.append(f"the difference of {name} in {title} has no interval")
        elif gate == "fail":
            by = f"{number(ends[0])} to {number(ends[1])}"
            phrases.append(f"{name} is worse by {by} in {title}, more than the margin of {margin}")
        else:
            between = _between(*ends)
            phrases.append(
                f"{name} is {between} in {title}, and the margin of {margin} lies within"
            )
    return phrases


def _between(low: float, high: float) -> str:
    """Return how much worse or better a system is, from the ends of reference minus system."""
    if high < 0:
        return f"{number(-high)} to {number(-low)} better"
    if low > 0:
        return f"{number(low)} to {number(high)} worse"
    return f"{number(high)} worse to {number(-low)} better"
