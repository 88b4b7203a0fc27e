"""Verdict of a comparison: what its figures and intervals show, in sentences and as claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

from cxr_compare.evaluation.figures import image_blind_name
from cxr_compare.evaluation.image_blind import FEW_BOXES
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.policies import policy_text
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.evaluation.verdict.claims import (
    Claim,
    Family,
    Lookup,
    against_chance,
    decide_together,
    family_level,
)
from cxr_compare.evaluation.verdict.prose import inside_sentence, listing

_FURTHER = (
    ("auroc", ""),
    ("average_precision", ""),
    ("recall", "max_f1"),
    ("specificity", "max_f1"),
    ("localised_sensitivity", "max_f1"),
    ("ap50", ""),
)
"""Figures that are claimed beside the primary one, and the rules for their thresholds."""


class JointSystem(NamedTuple):
    """A compared system that joins the output of other compared systems."""

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """Headline of a comparison, further findings, and the claims that both rest on.

    `sentences` are those of the headline without its opening: the answer first.
    """

    headline: str
    sentences: tuple[str, ...]
    kind: Literal["decided", "open", "single", "unknown"]
    findings: tuple[str, ...]
    claims: tuple[Claim, ...]

    def of(self, family: Family) -> list[Claim]:
        """Return the claims that are corrected together."""
        return [claim for claim in self.claims if claim.family == family]


def state_verdict(
    figures: Lookup,
    systems: Sequence[str],
    finding: str,
    *,
    protocol: Protocol,
    policy: str = "",
    joint: JointSystem | None = None,
    unit: str = "images",
    synthetic: bool = False,
) -> Verdict:
    """State which system has the higher primary figure, as far as the intervals show it.

    Two systems differ only if the interval of their paired difference excludes 0, widened by Holm's
    method for the number of claims of its family. A joint system must exceed each of its members
    (intersection-union test: Berger 1982), and is in no other claim.
    """
    key = protocol.key
    single = [name for name in systems if joint is None or name != joint.name]
    pairs = combinations(single, 2)
    claims = decide_together([Claim.of("answer", figures, *pair, key) for pair in pairs], figures)
    known = [name for name in single if figures.get(name, *key).known]
    of_joint = []
    if joint is not None:
        of_joint = [Claim.of("joint", figures, joint.name, name, key) for name in joint.members]
    blind = _image_blind(figures, single, key)
    further = decide_together([*_further(figures, single, key), *blind], figures)
    title = f"{METRICS[key[0]].inside}{_at(key[1])} for {inside_sentence(finding)}"
    answer = _answer(figures, known, key, title, claims)
    if undefined := [name for name in single if name not in known]:
        reasons = "; ".join(dict.fromkeys(figures.get(name, *key).note for name in undefined))
        answer += f"; it is undefined for {listing(undefined)} ({reasons})"
    if all(against_chance(figures.get(name, "auroc")) in ("open", "below") for name in single):
        answer = f"{_nobody(single)} shown to be better than chance by AUROC; {answer}"
    count = max(figures.count(name, *key) for name in single)
    drawn = "synthetic " if synthetic else ""
    opening = f"On these {count:,} {drawn}test {unit}, "
    headline = [f"{answer}."]
    if joint is not None:
        sentences = _joint_sentence(joint, of_joint, title), _joint_errors(figures, joint, policy)
        headline.append(" ".join(filter(None, sentences)))
    localising = further[len(further) - len(blind) :]
    findings = [_image_blind_sentence(claim) for claim in localising]
    return Verdict(
        opening + " ".join(headline),
        (_begun(headline[0], systems), *headline[1:]),
        _kind(single, known, claims),
        tuple(findings),
        (*claims, *of_joint, *further),
    )


def _begun(sentence: str, systems: Sequence[str]) -> str:
    """Return a sentence with a capital letter, unless it begins with the name of a system."""
    named = sentence.startswith(tuple(systems))
    return sentence if named else sentence[:1].upper() + sentence[1:]


def _kind(
    systems: Sequence[str], known: Sequence[str], claims: Sequence[Claim]
) -> Literal["decided", "open", "single", "unknown"]:
    """Return ``decided`` if one of all systems was shown to exceed every other one."""
    if len(known) < 2:
        return "single" if len(systems) == 1 and known else "unknown"
    if not any(claim.tested or claim.equal for claim in claims):
        return "unknown"
    wins = [sum(claim.higher == name for claim in claims) for name in systems]
    return "decided" if len(systems) - 1 in wins else "open"


def _at(policy: str) -> str:
    return f" at the threshold for {policy_text(policy)}" if policy else ""


def _gap(claim: Claim) -> str:
    """Return a difference with its interval, or with the reason why there is none."""
    difference = claim.difference
    text = f"difference {number(difference.estimate)}"
    if not claim.tested:
        return f"{text}; {difference.note or 'no interval'}"
    ends = range_text(difference.ci_low, difference.ci_high)
    return f"{text}, {100 * family_level(claim.comparisons):.3g} % interval {ends}"


def _nobody(systems: Sequence[str]) -> str:
    return f"{systems[0]} was not" if len(systems) == 1 else "no system was"


def _answer(
    figures: Lookup,
    known: Sequence[str],
    key: tuple[str, str],
    title: str,
    claims: Sequence[Claim],
) -> str:
    """State the primary figure of the only system, of two, or of the highest of several."""
    if not known:
        return f"nothing can be compared by {title}"
    if len(known) == 1:
        figure = figures.get(known[0], *key)
        ends = range_text(figure.ci_low, figure.ci_high)
        interval = f" (95 % interval {ends})" if figure.bounded else ""
        return f"the {title} of {known[0]} was {number(figure.estimate)}{interval}"
    among = [claim.falling for claim in claims if {claim.first, claim.second} <= set(known)]
    if len(known) == 2:
        return _pair(among[0], title)
    top = max(known, key=lambda name: figures.get(name, *key).estimate)
    exceeds, similar = "shown to exceed", "not shown to differ from"
    untested = "not tested against"
    results: dict[str, list[str]] = {exceeds: [], similar: [], untested: []}
    for claim in among:
        if top in (claim.first, claim.second):
            other, value = claim.second, claim.values[1]
            if claim.second == top:  # as high
                other, value = claim.first, claim.values[0]
            words = similar if claim.tested or claim.equal else untested
            if claim.higher:
                words = exceeds
            results[words].append(f"{other} ({number(value)})")
    groups = [f"{words} {listing(names)}" for words, names in results.items() if names]
    against = ", and ".join(groups)
    highest = number(figures.get(top, *key).estimate)
    return f"{top} had the highest {title} of {len(known)} systems ({highest}); it was {against}"


def _pair(claim: Claim, title: str) -> str:
    """State what the difference of two systems shows; the higher figure stands first."""
    values = f"{number(claim.values[0])} and {number(claim.values[1])}, {_gap(claim)}"
    if claim.higher:
        return f"{claim.first} had a higher {title} than {claim.second}: {values}"
    if claim.tested or claim.equal:
        return f"{claim.first} and {claim.second} were not shown to differ in {title}: {values}"
    return f"nothing can be claimed of {claim.first} and {claim.second} in {title}: {values}"


def _joint_sentence(joint: JointSystem, claims: Sequence[Claim], title: str) -> str:
    """State if a joint system was shown to exceed each of its members."""
    shown = all(claim.higher == joint.name for claim in claims)
    rows = [
        f"{number(claim.values[0])} against {number(claim.values[1])} of {claim.second} "
        f"({_gap(claim)})"
        for claim in claims
    ]
    verb = "was" if shown else "was not"
    return (
        f"{joint.name} {verb} shown to have a higher {title} than each of "
        f"{listing(joint.members)}: {'; '.join(rows)}."
    )


def _joint_errors(figures: Lookup, joint: JointSystem, policy: str) -> str:
    """State how many errors a joint system and its members make at the threshold."""
    names = (joint.name, *joint.members)
    errors = [
        sum(figures.get(name, metric, policy).estimate for metric in ("fp", "fn")) for name in names
    ]
    if not policy or any(count != count for count in errors):
        return ""
    counts = [f"{name} {count:,.4g}" for name, count in zip(names, errors, strict=True)]
    return f"Errors{_at(policy)}: {listing(counts)}."


def _further(figures: Lookup, systems: Sequence[str], key: tuple[str, str]) -> list[Claim]:
    """Make the claims of the reference system against each other one in the further figures."""
    reference, *others = systems
    return [
        Claim.of("findings", figures, reference, other, each)
        for each in _FURTHER
        if each != key
        for other in others
        if figures.difference(reference, other, *each).known
    ]


def _image_blind(figures: Lookup, systems: Sequence[str], key: tuple[str, str]) -> list[Claim]:
    """Make the claim of each system against constant positions, in one localisation figure."""
    primary = [key] if METRICS[key[0]].boxed else []
    claims = []
    for name in systems:
        baseline = image_blind_name(name)
        for each in (*primary, ("froc_mean", ""), ("pointing_accuracy", "")):
            difference = figures.difference(name, baseline, *each)
            if difference.known and difference.note != FEW_BOXES:
                claims.append(Claim.of("findings", figures, name, baseline, each))
                break
    return claims


def _image_blind_sentence(claim: Claim) -> str:
    """State whether a system localises lesions better than constant positions with its scores."""
    shown = "localises" if claim.higher == claim.first else "was not shown to localise"
    values = f"{number(claim.values[0])}, constant positions {number(claim.values[1])}"
    title = METRICS[claim.metric].inside
    return f"{claim.first} {shown} lesions: {title}{_at(claim.policy)} {values}, {_gap(claim)}."
