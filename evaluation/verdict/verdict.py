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
from cxr_compare.evaluation.policies import threshold_text
from cxr_compare.evaluation.statistics.figure_text import number, p_equation
from cxr_compare.evaluation.statistics.intervals import interval_text
from cxr_compare.evaluation.verdict.claims import (
    NOT_EQUAL,
    Claim,
    Lookup,
    against_chance,
)
from cxr_compare.evaluation.verdict.margin import margin_record, margin_sentence
from cxr_compare.evaluation.verdict.prose import inside_sentence, listing, was

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


@dataclass(frozen=True)
class _Part:
    """Answer to one question of a verdict: its claims, and the sentences that they add."""

    claims: Sequence[Claim] = ()
    headline: Sequence[str] = ()
    findings: Sequence[str] = ()
    limits: Sequence[str] = ()


def state_verdict(comparison: Comparison) -> Verdict:
    """State which system has the higher primary figure, as far as the table of figures shows it."""
    figures = Lookup(comparison.figures)
    key, single = comparison.protocol.key, comparison.single
    compared = [name for name in single if figures.get(name, *key).known]
    by_figure = {
        primary: [figures.claim("answer", *pair, *primary) for pair in combinations(single, 2)]
        for primary in comparison.primary
    }
    answer = _answer_part(figures, comparison, compared, by_figure)
    joint = _joint_part(figures, comparison)
    margin = margin_record(comparison, answer.claims)
    parts = [
        answer,
        _Part(headline=[margin_sentence(margin)] if margin else []),
        joint,
        _pointing_part(figures, comparison),
        _Part(
            _between_boxes(figures, comparison),
            findings=list(_figures_that_disagree(figures, comparison)),
        ),
        _Part(_further(figures, single, key, comparison.main_policy)),
        _equality_part([*answer.claims, *joint.claims]),
    ]
    headline = [sentence for part in parts for sentence in part.headline]
    first = begun(headline[0], list(comparison.systems))
    opening = _opening(figures, comparison)
    if comparison.n_findings > 1:
        one_of = f"One of {comparison.n_findings} findings: "
        opening = f"{one_of}on{opening[2:]}"
        first = f"{one_of}{headline[0]}"
    return Verdict(
        opening + " ".join(headline),
        (first, *headline[1:]),
        _kind(single, compared, by_figure.values()),
        tuple(sentence for part in parts for sentence in part.findings),
        tuple(claim for part in parts for claim in part.claims),
        margin,
        rank_ranges(by_figure[key], compared),
        tuple(sentence for part in parts for sentence in part.limits),
    )


def _answer_part(
    figures: Lookup,
    comparison: Comparison,
    compared: Sequence[str],
    by_figure: Mapping[Key, Sequence[Claim]],
) -> _Part:
    """Say which system is higher in each primary figure, and which of them have none."""
    single, key = comparison.single, comparison.protocol.key
    claims = [claim for of_figure in by_figure.values() for claim in of_figure]
    # One test alone needs no correction, and its p-value is then not printed as a corrected one.
    corrected = comparison.n_findings * sum(claim.tested for claim in claims) > 1
    title = _title_for(comparison, comparison.primary_title)
    has_margin = comparison.protocol.margin is not None
    answer = state_answer(
        figures,
        compared,
        title,
        by_figure[key],
        key=key,
        corrected=corrected,
        has_margin=has_margin,
    )
    if undefined := [name for name in single if name not in compared]:
        reasons = "; ".join(dict.fromkeys(figures.get(name, *key).note for name in undefined))
        answer += f"; it is undefined for {listing(undefined)} ({reasons})"
    if all(against_chance(figures.get(name, "auroc")) in ("open", "below") for name in single):
        answer = f"{_nobody(single)} shown to be better than chance by AUROC; {answer}"
    headline = f"{answer}."
    for primary in comparison.primary[1:]:
        title = _title_for(comparison, METRICS[primary[0]].inside)
        answer = state_answer(
            figures, single, title, by_figure[primary], key=primary, corrected=corrected
        )
        headline += f" {begun(answer, single)}."
    return _Part(claims, [headline])


def _title_for(comparison: Comparison, figure: str) -> str:
    return f"{figure} for {inside_sentence(comparison.truth.finding_title)}"


def _joint_part(figures: Lookup, comparison: Comparison) -> _Part:
    """Say if a joint system exceeds each of its members, and how many errors it makes.

    It must exceed all of them (intersection-union test: Berger 1982), and is in no other claim.
    """
    names, key = (comparison.joint, *comparison.members), comparison.protocol.key
    claims = [figures.claim("joint", comparison.joint, name, *key) for name in comparison.members]
    if not claims:
        return _Part()
    title = _title_for(comparison, comparison.primary_title)
    sentences = (
        _joint_sentence(figures, claims, title, corrected=comparison.n_findings > 1),
        _joint_errors(figures, names, comparison.main_policy),
    )
    return _Part(claims, [" ".join(filter(None, sentences))])


def _pointing_part(figures: Lookup, comparison: Comparison) -> _Part:
    """Say whether each system points at lesions more often than one place for all images does."""
    pairs = [(name, image_blind_name(name)) for name in comparison.single]
    claims = [figures.claim("places", *pair, _POINTING) for pair in pairs]
    claims = [claim for claim in claims if claim.tested]
    by_place: dict[str, list[Claim]] = {}
    for claim in claims:
        by_place.setdefault(_percent(figures.values(claim)[1]), []).append(claim)
    sentences = {_pointing_sentence(figures, each): each for each in by_place.values()}
    limits = [
        sentence
        for sentence, of_place in sentences.items()
        if any(claim.higher != claim.first for claim in of_place)
    ]
    return _Part(claims, findings=list(sentences), limits=limits)


def _equality_part(claims: Sequence[Claim]) -> _Part:
    """Warn that a difference which was not shown does not show equality."""
    decided = [claim for claim in claims if claim.tested or claim.equal]
    return _Part(limits=[] if all(claim.higher for claim in decided) else [NOT_EQUAL])


def _opening(figures: Lookup, comparison: Comparison) -> str:
    """Return on how many images of which kind the primary figure rests."""
    truth, key = comparison.truth, comparison.protocol.key
    count = max(figures.count(name, *key) for name in comparison.single)
    drawn = "synthetic " if 0 < truth.n_synthetic == len(truth.ids) else ""
    return f"On these {count:,} {drawn}test {comparison.units}, "


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
    claims_shown = [claim for claim in claims if {claim.first, claim.second} <= set(systems)]
    ranges = {}
    for name in systems:
        decided = [
            claim for claim in claims_shown if claim.higher and name in (claim.first, claim.second)
        ]
        below = sum(claim.higher == name for claim in decided)
        ranges[name] = (1 + len(decided) - below, len(systems) - below)
    return ranges


def begun(sentence: str, systems: Sequence[str]) -> str:
    """Return a sentence with a capital letter, unless it begins with the name of a system."""
    begins_with_name = sentence.startswith(tuple(systems))
    return sentence if begins_with_name else sentence[:1].upper() + sentence[1:]


def _kind(
    systems: Sequence[str], compared: Sequence[str], by_figure: Collection[Sequence[Claim]]
) -> Literal["decided", "open", "single", "unknown"]:
    """Return ``decided`` if one system was shown to exceed every other one in a primary figure."""
    if len(compared) < 2:
        return "single" if len(systems) == 1 and compared else "unknown"
    if not any(claim.tested or claim.equal for claims in by_figure for claim in claims):
        return "unknown"
    wins = [Counter(claim.higher for claim in claims if claim.higher) for claims in by_figure]
    return "decided" if any(len(systems) - 1 in count.values() for count in wins) else "open"


def _gap(claim: Claim, *, corrected: bool, has_margin: bool = False) -> str:
    """Return a difference with its interval, or with the reason why there is none.

    With a margin, its sentence has the one interval, which decides. `corrected` adds its p-value,
    which is corrected for several tests. An uncorrected one is added where it alone says that
    nothing is shown.
    """
    text = f"difference {number(claim.estimate)}"
    if not claim.tested:
        return f"{text}; {claim.note or 'no interval'}"
    if has_margin:
        return text
    text += f", 95 % interval {interval_text(claim)}"
    if corrected:
        return f"{text}, corrected {p_equation(claim.p_holm)}"
    by_p_alone = claim.excludes_zero and not claim.higher
    return f"{text}, {p_equation(claim.p_value)}" if by_p_alone else text


def _nobody(systems: Sequence[str]) -> str:
    return f"{systems[0]} was not" if len(systems) == 1 else "no system was"


def state_answer(
    figures: Lookup,
    compared: Sequence[str],
    title: str,
    claims: Sequence[Claim],
    *,
    key: Key,
    corrected: bool,
    has_margin: bool = False,
) -> str:
    """State the primary figure of the only system, of two, or of the highest of several."""
    if not compared:
        return f"nothing can be compared by {title}"
    if len(compared) == 1:
        figure = figures.get(compared[0], *key)
        interval = f" (95 % interval {interval_text(figure)})" if figure.bounded else ""
        return f"the {title} of {compared[0]} was {number(figure.estimate)}{interval}"
    among = [claim for claim in claims if claim.first in compared and claim.second in compared]
    if len(compared) == 2:
        gap = _gap(among[0].falling, corrected=corrected, has_margin=has_margin)
        return _pair(figures, among[0].falling, title, gap)
    top = max(compared, key=lambda name: figures.get(name, *key).estimate)
    lower: list[str] = []
    open_: list[str] = []
    untested: list[str] = []
    for claim in (claim for claim in among if top in (claim.first, claim.second)):
        other = claim.second if claim.first == top else claim.first
        is_open = claim.tested or claim.equal
        (lower if claim.higher else open_ if is_open else untested).append(other)
    text = f"{top} had the highest {title} of {len(compared)} systems"
    text += f" ({number(figures.get(top, *key).estimate)})"
    if lower:
        only = " only" if open_ or untested else ""
        text += f", shown to be higher than {listing(lower)}{only}"
    elif open_:
        text += ", not shown to be higher than any other"
    return f"{text}; not tested against {listing(untested)}" if untested else text


def _pair(figures: Lookup, claim: Claim, title: str, gap: str) -> str:
    """State what the difference of two systems shows; the higher figure stands first."""
    first, second = map(number, figures.values(claim))
    values = f"{first} and {second}, {gap}"
    if claim.higher:
        return f"{claim.first} had a higher {title} than {claim.second}: {values}"
    if claim.tested or claim.equal:
        both = f"{claim.first} and {claim.second}"
        return f"{both} were not shown to differ in {title}: {values}"
    return f"nothing can be claimed of {claim.first} and {claim.second} in {title}: {values}"


def _joint_sentence(
    figures: Lookup, claims: Sequence[Claim], title: str, *, corrected: bool
) -> str:
    """State if a joint system was shown to exceed each of its members."""
    joint = claims[0].first
    is_highest = all(claim.higher == joint for claim in claims)
    rows = [
        f"{' against '.join(map(number, figures.values(claim)))} of {claim.second} "
        f"({_gap(claim, corrected=corrected)})"
        for claim in claims
    ]
    verb = "was" if is_highest else "was not"
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
    return f"Errors at {threshold_text(policy)}: {listing(counts)}."


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
    primary = [metric for metric, _ in comparison.primary if len(comparison.single) == 2]
    for pair in combinations(comparison.single, 2):
        ap50, froc = (
            figures.claim("places", *pair, metric).falling for metric in ("ap50", "froc_mean")
        )
        if not (ap50.higher and froc.higher and ap50.higher != froc.higher):
            continue
        of_ap50, of_froc = (_gap(claim, corrected=False) for claim in (ap50, froc))
        if "ap50" in primary:
            yield (
                f"{froc.first} had a higher mean FROC than {froc.second}, in which boxes need not "
                f"fit as well (IoU of 0.2, not 0.5): {of_froc}."
            )
        elif "froc_mean" in primary:
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
        figures.claim("further", reference, other, *key_of_figure)
        for key_of_figure in keys
        if key_of_figure != key and (policy or not METRICS[key_of_figure[0]].at_threshold)
        for other in others
    ]
    return [claim for claim in claims if claim.tested]


def _pointing_sentence(figures: Lookup, claims: Sequence[Claim]) -> str:
    """State how often systems point at lesions, beside one place for all images.

    `claims` are of systems that are compared with the same share of that place.
    """
    shares = listing([f"{claim.first} {_percent(figures.values(claim)[0])}" for claim in claims])
    parts = [
        f"Highest-scored place on the lesion, whatever the threshold: {shares} of positive images",
        f"always marking the same place: {_percent(figures.values(claims[0])[1])}.",
    ]
    text = "; ".join(parts)
    for title, names in (
        ("shown to be lower", [c.first for c in claims if c.higher == c.second]),
        ("not shown to differ from that", [c.first for c in claims if not c.higher]),
    ):
        if names:
            text += f" {listing(names)} {was(names)} {title}."
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
