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

Decision = Literal["equivalent", "not worse", "worse", "cannot tell"]
Gate = Literal["pass", "fail", "cannot tell"]
GATE_STATUS: Mapping[str, int] = {"pass": 0, "fail": 1, "cannot tell": 4}
"""Exit status of each; 2 and 3 are those of bad input and of a fault."""
_ENDED: Mapping[Gate, str] = {"pass": "passed", "fail": "failed", "cannot tell": "cannot tell"}
_MOST_SAID = 3  # systems and findings in the line of a gate
_Ends = tuple[float, float] | None  # of the interval of a difference


def gate_of(decisions: Iterable[Decision | Gate]) -> Gate:
    """Return the decision on all systems and findings together; one that is worse is enough.

    All must be shown not to be worse, so none is corrected for the others (intersection-union
    test: Berger 1982).
    """
    all_decisions = {*decisions}
    if all_decisions & {"worse", "fail"}:
        return "fail"
    return "cannot tell" if "cannot tell" in all_decisions or not all_decisions else "pass"


def margin_record(comparison: Comparison, claims: Sequence[Claim]) -> dict[str, Any]:
    """Return the decisions in the primary figure for ``answer.json``; empty without a margin.

    `claims` are those of the primary figure. The gate passes only if each system is shown not to be
    worse.
    """
    protocol, systems = comparison.protocol, comparison.systems
    if protocol.margin is None:
        return {}
    reference, *others = comparison.single
    same = {name for name in others if _same(systems[reference], systems[name])}
    of_reference = [claim for claim in claims if claim.first == reference]
    ends_of = partial(_auroc_ends, comparison) if protocol.key == AUROC else _ends
    return decided(of_reference, reference, protocol.metric, protocol.margin, same, ends_of)


def _ends(claim: Claim) -> _Ends:
    """Return the ends of the interval of a difference as the table of figures has it."""
    return (claim.ci_low, claim.ci_high) if claim.tested else None


def _auroc_ends(comparison: Comparison, claim: Claim) -> _Ends:
    """Return the ends of the `margin_interval` of the difference of two AUROCs."""
    first, second = (comparison.rows.aurocs[name] for name in (claim.first, claim.second))
    if not claim.tested or first is None or second is None:
        return None
    return margin_interval(first, second)


def decided(
    claims: Iterable[Claim],
    reference: str,
    metric: str,
    margin: float,
    same: Collection[str] = (),
    ends_of: Callable[[Claim], _Ends] = _ends,
) -> dict[str, Any]:
    """Return the decision on each system, of its claims against the reference, and on all.

    The 95 % interval of each difference, reference minus system, has two one-sided tests at 2.5 %
    as its ends (Schuirmann 1987). Systems of the `same` answers as the reference are equivalent.
    """
    decisions: dict[str, Decision] = {}
    intervals: dict[str, list[float]] = {}
    for claim in claims:
        name, ends = claim.second, ends_of(claim)
        if ends is not None:
            intervals[name] = list(ends)
            decisions[name] = decide(*ends, margin)
        else:
            decisions[name] = "equivalent" if claim.equal and name in same else "cannot tell"
    return {
        "reference": reference,
        "metric": metric,
        "margin": margin,
        "decisions": decisions,
        "intervals": intervals,
        "gate": gate_of(decisions.values()),
    }


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


def margin_sentence(record: Mapping[str, Any]) -> str:
    """State how a margin decides on each system, with how much worse or better it may be."""
    phrases = _phrases(record, [])
    several = f", each against {record['reference']}" if len(phrases) > 1 else ""
    return f"By the stated margin: {'; '.join(phrases)}{several}."


def gate_line(records: Mapping[str, Mapping[str, Any]], gate: Gate) -> str:
    """Say how a gate ended and by which systems, of the record of each finding."""
    parts = []
    for finding, record in records.items():
        of_finding = f"{finding}: " if len(records) > 1 else ""
        phrases = _phrases(record, ["worse" if gate == "fail" else gate])
        if gate == "pass":
            title = METRICS[record["metric"]].inside
            by = f"by more than {record['margin']:g} in {title}"
            phrases = [f"no system is worse than {record['reference']} {by}"]
        parts += [of_finding + phrase for phrase in phrases]
    more = [f"and {len(parts) - _MOST_SAID} more"] if len(parts) > _MOST_SAID else []
    shown = "; ".join([*parts[:_MOST_SAID], *more])
    return f"gate {_ENDED[gate]}. {shown or 'a finding is left out'}"


def _phrases(record: Mapping[str, Any], wanted: Collection[str]) -> list[str]:
    """Return a phrase on each system of which the decision is one of `wanted`, if any is named."""
    return [
        _phrase(name, decision, record)
        for name, decision in record["decisions"].items()
        if not wanted or decision in wanted
    ]


def _phrase(name: str, decision: Decision, record: Mapping[str, Any]) -> str:
    """Say what the interval of a system shows against the margin."""
    ends, margin = record["intervals"].get(name), f"{record['margin']:g}"
    title = METRICS[record["metric"]].inside
    if ends is None and decision == "equivalent":
        return f"{name} is equal in {title}"
    if ends is None:
        return f"the difference of {name} in {title} has no interval"
    between = _between(*ends)
    if decision == "worse":
        by = f"{number(ends[0])} to {number(ends[1])}"
        return f"{name} is worse by {by} in {title}, more than the margin of {margin}"
    if decision == "cannot tell":
        return f"{name} is {between} in {title}, and the margin of {margin} lies within"
    shown = "equivalent, within" if decision == "equivalent" else "not worse by more than"
    return f"{name} is {shown} the margin of {margin} in {title} ({between})"


def _between(low: float, high: float) -> str:
    """Return how much worse or better a system is, from the ends of reference minus system."""
    if high < 0:
        return f"{number(-high)} to {number(-low)} better"
    if low > 0:
        return f"{number(low)} to {number(high)} worse"
    return f"{number(high)} worse to {number(-low)} better"
