"""Verdict of a comparison: what its figures and intervals show, in sentences and as claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.figures import Key
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import METRICS, claimed
from cxr_compare.evaluation.policies import policy_text
from cxr_compare.evaluation.statistics.figure_text import number, p_equation, range_text
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.verdict.claims import (
    NOT_EQUAL,
    Claim,
    Lookup,
    against_chance,
)
from cxr_compare.evaluation.verdict.margin import margin_record, margin_sentence
from cxr_compare.evaluation.verdict.prose import inside_sentence, listing

_POINTING = "pointing_accuracy"
"""Figure on which the claim that a system points at lesions rests."""


@dataclass(frozen=True)
class Verdict:
    """Headline of a comparison, further findings, and the claims that both rest on.

    `sentences` are those of the headline without its opening: the answer first. `margin` is that of
    `margin_record`. `ranks` are the lowest and the highest rank of each of three systems or more.
    `limits` say what was not shown, beside the headline.
    """

    headline: str
    sentences: tuple[str, ...]
    kind: Literal["decided", "open", "single", "unknown"]
    findings: tuple[str, ...]
    claims: tuple[Claim, ...]
    margin: Mapping[str, Any]
    ranks: Mapping[str, tuple[int, int]]
    limits: tuple[str, ...]


def state_verdict(comparison: Comparison) -> Verdict:
    """State which system has the higher primary figure, as far as the table of figures shows it.

    A joint system must exceed each of its members (intersection-union test: Berger 1982). It is in
    no other claim.
    """
    figures = Lookup(comparison.figures)
    truth = comparison.truth
    single = comparison.single
    key = comparison.protocol.key
    n_findings = comparison.n_findings
    pairs = list(combinations(single, 2))
    by_figure = {
        each: [figures.claim("answer", *pair, *each) for pair in pairs]
        for each in comparison.primary
    }
    claims = by_figure[key]
    of_answer = [claim for of_figure in by_figure.values() for claim in of_figure]
    corrected = n_findings * sum(claim.tested for claim in of_answer) > 1
    known = [name for name in single if figures.get(name, *key).known]
    of_joint = [figures.claim("joint", comparison.joint, name, *key) for name in comparison.members]
    pointing = [
        claim
        for name in single
        if (claim := figures.claim("places", name, image_blind_name(name), _POINTING)).tested
    ]
    places = _between_boxes(figures, comparison)
    further = _further(figures, single, key, comparison.main_policy)
    title = f"{comparison.primary_title} for {inside_sentence(truth.finding_title)}"
    answer = state_answer(figures, known, title, claims, key=key, corrected=corrected)
    if undefined := [name for name in single if name not in known]:
        reasons = "; ".join(dict.fromkeys(figures.get(name, *key).note for name in undefined))
        answer += f"; it is undefined for {listing(undefined)} ({reasons})"
    if all(against_chance(figures.get(name, "auroc")) in ("open", "below") for name in single):
        answer = f"{_nobody(single)} shown to be better than chance by AUROC; {answer}"
    headline = [f"{answer}."]
    for further_key in comparison.primary[1:]:
        title_of = f"{METRICS[further_key[0]].inside} for {inside_sentence(truth.finding_title)}"
        of_figure = by_figure[further_key]
        said = state_answer(
            figures, single, title_of, of_figure, key=further_key, corrected=corrected
        )
        headline[0] += f" {begun(said, single)}."
    margin = margin_record(comparison, of_answer)
    if margin:
        headline.append(margin_sentence(margin))
    if of_joint:
        sentences = (
            _joint_sentence(of_joint, title, corrected=n_findings > 1),
            _joint_errors(figures, (comparison.joint, *comparison.members), comparison.main_policy),
        )
        headline.append(" ".join(filter(None, sentences)))
    findings = tuple(_image_blind_sentence(claim) for claim in pointing)
    by_claim = zip(pointing, findings, strict=True)
    limits = [text for claim, text in by_claim if claim.higher != claim.first]
    decided = [claim for claim in (*of_answer, *of_joint) if claim.tested or claim.equal]
    if not all(claim.higher for claim in decided):
        limits.append(NOT_EQUAL)
    count = max(figures.count(name, *key) for name in single)
    drawn = "synthetic " if 0 < truth.n_synthetic == len(truth.ids) else ""
    opening = f"On these {count:,} {drawn}test {comparison.units}, "
    first = begun(headline[0], list(comparison.systems))
    if n_findings > 1:
        one_of = f"One of {n_findings} findings: "
        opening = f"{one_of}on{opening[2:]}"
        first = f"{one_of}{headline[0]}"
    return Verdict(
        opening + " ".join(headline),
        (first, *headline[1:]),
        _kind(single, known, by_figure.values()),
        (*findings, *_figures_that_disagree(figures, comparison)),
        (*of_answer, *of_joint, *pointing, *places, *further),
        margin,
        rank_ranges(claims, known),
        tuple(limits),
    )


def rank_ranges(claims: Sequence[Claim], systems: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the range of ranks of each of three systems or more; empty for fewer.

    A rank is at least 1 plus the number of systems that were shown to be higher, and at most the
    number of systems minus those shown to be lower. If no difference is shown falsely, all ranges
    hold.

    Source:
        Al Mohamad, Goeman and van Zwet 2022, "Simultaneous confidence intervals for ranks".
    """
    if len(systems) < 3:
        return {}
    shown = [claim for claim in claims if {claim.first, claim.second} <= set(systems)]
    ranges = {}
    for name in systems:
        own = [each for each in shown if each.higher and name in (each.first, each.second)]
        below = sum(each.higher == name for each in own)
        ranges[name] = (1 + len(own) - below, len(systems) - below)
    return ranges


def begun(sentence: str, systems: Sequence[str]) -> str:
    """Return a sentence with a capital letter, unless it begins with the name of a system."""
    named = sentence.startswith(tuple(systems))
    return sentence if named else sentence[:1].upper() + sentence[1:]


def _kind(
    systems: Sequence[str], known: Sequence[str], by_figure: Collection[Sequence[Claim]]
) -> Literal["decided", "open", "single", "unknown"]:
    """Return ``decided`` if one system was shown to exceed every other one in a primary figure."""
    if len(known) < 2:
        return "single" if len(systems) == 1 and known else "unknown"
    if not any(claim.tested or claim.equal for claims in by_figure for claim in claims):
        return "unknown"
    wins = [Counter(claim.higher for claim in claims if claim.higher) for claims in by_figure]
    return "decided" if any(len(systems) - 1 in each.values() for each in wins) else "open"


def _gap(claim: Claim, *, corrected: bool) -> str:
    """Return a difference with its interval, or with the reason why there is none.

    `corrected` adds its p-value, which is corrected for several tests.
    """
    difference = claim.difference
    text = f"difference {number(difference.estimate)}"
    if not claim.tested:
        return f"{text}; {difference.note or 'no interval'}"
    text += f", 95 % interval {range_text(difference.ci_low, difference.ci_high)}"
    return f"{text}, corrected {p_equation(claim.p_holm)}" if corrected else text


def _nobody(systems: Sequence[str]) -> str:
    return f"{systems[0]} was not" if len(systems) == 1 else "no system was"


def state_answer(
    figures: Lookup,
    known: Sequence[str],
    title: str,
    claims: Sequence[Claim],
    *,
    key: Key,
    corrected: bool,
) -> str:
    """State the primary figure of the only system, of two, or of the highest of several."""
    if not known:
        return f"nothing can be compared by {title}"
    if len(known) == 1:
        figure = figures.get(known[0], *key)
        ends = range_text(figure.ci_low, figure.ci_high)
        interval = f" (95 % interval {ends})" if figure.bounded else ""
        return f"the {title} of {known[0]} was {number(figure.estimate)}{interval}"
    among = [claim for claim in claims if claim.first in known and claim.second in known]
    if len(known) == 2:
        return _pair(among[0].falling, title, corrected=corrected)
    top = max(known, key=lambda name: figures.get(name, *key).estimate)
    shown: list[str] = []
    open_: list[str] = []
    untested: list[str] = []
    for claim in (each for each in among if top in (each.first, each.second)):
        other = claim.second if claim.first == top else claim.first
        is_open = claim.tested or claim.equal
        (shown if claim.higher else open_ if is_open else untested).append(other)
    text = f"{top} had the highest {title} of {len(known)} systems"
    text += f" ({number(figures.get(top, *key).estimate)})"
    if shown:
        only = " only" if open_ or untested else ""
        text += f", shown to be higher than {listing(shown)}{only}"
    elif open_:
        text += ", not shown to be higher than any other"
    return f"{text}; not tested against {listing(untested)}" if untested else text


def _pair(claim: Claim, title: str, *, corrected: bool) -> str:
    """State what the difference of two systems shows; the higher figure stands first."""
    gap = _gap(claim, corrected=corrected)
    values = f"{number(claim.values[0])} and {number(claim.values[1])}, {gap}"
    if claim.higher:
        return f"{claim.first} had a higher {title} than {claim.second}: {values}"
    if claim.tested or claim.equal:
        both = f"{claim.first} and {claim.second}"
        return f"{both} were not shown to differ in {title}: {values}{_excluded(claim.difference)}"
    return f"nothing can be claimed of {claim.first} and {claim.second} in {title}: {values}"


def _excluded(difference: Interval) -> str:
    """Return which differences, of either sign, an interval excludes, as a clause."""
    farthest = max(abs(difference.ci_low), abs(difference.ci_high))
    if not farthest < 1:  # nor without an interval
        return ""
    return f"; the interval excludes a difference of more than {number(farthest)} either way"


def _joint_sentence(claims: Sequence[Claim], title: str, *, corrected: bool) -> str:
    """State if a joint system was shown to exceed each of its members."""
    joint = claims[0].first
    shown = all(claim.higher == joint for claim in claims)
    rows = [
        f"{number(claim.values[0])} against {number(claim.values[1])} of {claim.second} "
        f"({_gap(claim, corrected=corrected)})"
        for claim in claims
    ]
    verb = "was" if shown else "was not"
    members = listing([claim.second for claim in claims])
    return (
        f"{joint} {verb} shown to have a higher {title} than each of {members}: {'; '.join(rows)}."
    )


def _joint_errors(figures: Lookup, names: Sequence[str], policy: str) -> str:
    """State how many errors a joint system and its members make at the threshold."""
    errors = [
        sum(figures.get(name, metric, policy).estimate for metric in ("fp", "fn")) for name in names
    ]
    if not policy or any(count != count for count in errors):
        return ""
    counts = [f"{name} {count:,.4g}" for name, count in zip(names, errors, strict=True)]
    return f"Errors at the threshold for {policy_text(policy)}: {listing(counts)}."


def _between_boxes(figures: Lookup, comparison: Comparison) -> list[Claim]:
    """Return the claims of AP50, AP and FROC between systems with own boxes, but of the answer."""
    claims = [
        figures.claim("places", *pair, metric)
        for metric in claimed(of_boxes=True)
        if (metric, "") not in comparison.primary
        for pair in combinations(comparison.single, 2)
    ]
    return [claim for claim in claims if claim.tested]


def _figures_that_disagree(figures: Lookup, comparison: Comparison) -> Iterator[str]:
    """Yield pairs of detectors of which AP50 shows one to be higher, and the mean FROC the other.

    Each of both figures is corrected over its pairs. Of two systems, what the answer says of one of
    both figures is not said again.
    """
    said = [metric for metric, _ in comparison.primary if len(comparison.single) == 2]
    for pair in combinations(comparison.single, 2):
        ap50, froc = (
            figures.claim("places", *pair, metric).falling for metric in ("ap50", "froc_mean")
        )
        if not (ap50.higher and froc.higher and ap50.higher != froc.higher):
            continue
        of_ap50, of_froc = (_gap(claim, corrected=False) for claim in (ap50, froc))
        if "ap50" in said:
            yield (
                f"{froc.first} had a higher mean FROC than {froc.second}, in which boxes need not "
                f"fit as well (IoU of 0.2, not 0.5): {of_froc}."
            )
        elif "froc_mean" in said:
            yield (
                f"{ap50.first} had a higher AP50 than {ap50.second}, in which boxes must fit "
                f"better (IoU of 0.5, not 0.2): {of_ap50}."
            )
        else:
            yield (
                f"{ap50.first} had the higher AP50 ({of_ap50}), and {froc.first} the higher mean "
                f"FROC ({of_froc}), in which boxes need not fit as well (IoU of 0.2, not 0.5)."
            )


def _further(figures: Lookup, systems: Sequence[str], key: Key, policy: str) -> list[Claim]:
    """Return the claims of the reference system against each other one in further figures."""
    reference, *others = systems
    names = claimed(of_boxes=False)
    keys = [(name, policy if METRICS[name].at_threshold else "") for name in names]
    claims = [
        figures.claim("further", reference, other, *each)
        for each in keys
        if each != key and (policy or not METRICS[each[0]].at_threshold)
        for other in others
    ]
    return [claim for claim in claims if claim.tested]


def _image_blind_sentence(claim: Claim) -> str:
    """State whether a system points at lesions more often than one place for all images does."""
    own, blind = (f"{100 * value:.0f} %" for value in claim.values)
    than = " always guessing the same place"
    if claim.higher != claim.first:
        than = f" {'less often' if claim.higher else 'not shown to be more often'} than{than}"
    return (
        f"Highest-scored place of {claim.first}, at any score: on the lesion in {own} of positive "
        f"images;{than}: {blind}."
    )
