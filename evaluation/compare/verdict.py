"""The answer in plain words, never more than the paired intervals support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

from cxr_compare.evaluation.compare.claims import (
    Claim,
    Conclusion,
    ConclusionKind,
    GoalResult,
    HeadlineKind,
    Setting,
    Verdict,
    against_margin,
    decide_together,
    margin_words,
    same,
)
from cxr_compare.evaluation.compare.estimates import FIXED_CHOICE, Estimates, PairTests
from cxr_compare.evaluation.compare.protocol import EXPLORATORY, Protocol
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import (
    inside_sentence,
    listing,
)
from cxr_compare.evaluation.metrics.registry import METRICS, highlighted, metric_title
from cxr_compare.evaluation.statistics.figure_text import (
    interval_text,
    number,
)

CHANCE = 0.5  # as AUROC


def state_verdict(
    figures: Estimates,
    systems: list[str],
    finding: str,
    *,
    protocol: Protocol = EXPLORATORY,
    tests: PairTests | None = None,
    setting: Setting | None = None,
) -> Verdict:
    """Say which system has more of the primary figure, as far as the intervals say so.

    Two systems differ only where the interval of their paired difference excludes 0; else they
    are "not shown to differ", which is not the same as equal. All pairs on the primary figure are
    one family, all conclusions another: `decide_together`.
    """
    setting = setting or Setting()
    claims = decide_together(
        [
            Claim.from_estimates(figures, *pair, *key)
            for pair in combinations(systems, 2)
            for key in protocol.keys
        ]
    )
    asked = _Question(figures, systems, protocol, inside_sentence(finding))
    where = _opening(asked, setting)
    text, kind = _headline(asked, claims)
    if protocol.goals:
        text, kind = _of_goals(asked, setting.goals)
    conclusions = _secondary(asked)
    if len(systems) > 2:
        conclusions = [*_primary_conclusions(asked, claims), *conclusions]
    conclusions = [*_against_margin(figures, systems, protocol), *conclusions]
    return Verdict(
        where=where,
        answer=text,
        scope=_scope(tests or PairTests(), systems, protocol, setting, claims, conclusions),
        conclusions=conclusions,
        kind=kind,
        claims=tuple(claims),
        cautions=setting.cautions,
        chance=_by_chance(figures, systems),
    )


def _by_chance(figures: Estimates, systems: Sequence[str]) -> str:
    """That no system was shown to be better than chance; nothing where one was, or is unknown."""
    if not all(figures.get(name, "auroc").low <= CHANCE for name in systems):
        return ""
    one = {1: systems[0], 2: "neither system"}.get(len(systems), "no system")
    return f"{one} was {'not ' * (len(systems) == 1)}shown to be better than chance by AUROC"


class _Question(NamedTuple):
    """What is told: the figures of which systems, and the finding inside a sentence."""

    figures: Estimates
    systems: list[str]
    protocol: Protocol
    finding: str

    @property
    def title(self) -> str:
        """The primary figure, and how many positive validation images chose its threshold."""
        return self.protocol.title + _chosen_on(self.figures, self.systems, self.protocol.keys[0])


def _opening(asked: _Question, setting: Setting) -> str:
    """What was evaluated, and over which training runs."""
    figures, keys = asked.figures, asked.protocol.keys
    counts = [figures.get(name, *key).counts for name in asked.systems for key in keys]
    count, things = max(each.n_images for each in counts), figures.things
    where = f"On these {count:,} test {things}" if count else "On this test set"
    if setting.synthetic:
        whole = setting.synthetic >= count or things != "images"
        of_them = "" if whole else f", {setting.synthetic:,} of them synthetic"
        where = f"On {count:,} {'synthetic ' if whole else ''}test {things}{of_them}"
    several = {name: n for name in asked.systems if (n := (setting.seeds or {}).get(name, 0)) > 1}
    if not several:
        return where
    if len(several) == len(asked.systems) and len(set(several.values())) == 1:
        each = " each" if len(asked.systems) > 1 else ""
        return f"{where}, over {several[asked.systems[0]]} training seeds{each}"
    return f"{where}, over " + listing([f"{n} training seeds of {s}" for s, n in several.items()])


def _headline(asked: _Question, claims: list[Claim]) -> tuple[str, HeadlineKind]:
    """The answer without its opening words, and what kind of answer it is."""
    figures, systems, protocol, _ = asked
    lacking = [
        name for name in systems if not all(figures.get(name, *k).known for k in protocol.keys)
    ]
    if lacking:
        are = "are" if protocol.partner else "is"
        text = f"the {protocol.title} of {listing(lacking)} {are} undefined"
        return f"no comparison is possible: {text}", "unknown"
    if len(systems) == 1:
        return _of_one(asked), "single"
    if protocol.partner:
        return _of_both_halves(asked, claims)
    if len(systems) == 2:
        return _of_two(asked, claims[0])
    return _of_many(asked, claims)


def _of_goals(asked: _Question, results: Sequence[GoalResult]) -> tuple[str, HeadlineKind]:
    name, policy = asked.systems[0], asked.protocol.policy
    at = _at_threshold(policy) + _chosen_on(asked.figures, [name], (results[0].metric, policy))
    text = f"{name} {GoalResult.together(results, f'{at} for {asked.finding}')}"
    return text, "open" if any(each.standing == "open" for each in results) else "decided"


def _of_one(asked: _Question) -> str:
    name, protocol = asked.systems[0], asked.protocol
    scores = [asked.figures.get(name, *key) for key in protocol.keys]
    values = [
        number(score.estimate)
        + (f" (95 % interval {interval_text(score)})" if score.bounded else "")
        for score in scores
    ]
    was = "were" if protocol.partner else "was"
    return f"the {asked.title} of {name} for {asked.finding} {was} {listing(values)}"


def _of_two(asked: _Question, claim: Claim) -> tuple[str, HeadlineKind]:
    first, second = claim.first, claim.second
    one, other = map(number, claim.values)
    both, of = f"{first} and {second}", f"{asked.title} for {asked.finding}"
    match claim.standing:
        case "first":
            said = f"{first} had the higher {of}: {one}, {second} {other}"
            return f"{said}, {claim.gap_words}", "decided"
        case "second":
            gap = claim.gap_words.replace("difference", f"{first} − {second}", 1)
            return f"{second} had the higher {of}: {other}, {first} {one}, {gap}", "decided"
        case "same":
            return f"{both} had the same {of}: {one} ({claim.gap_words})", "open"
        case "open":
            said = f"{both} were not shown to differ in {of}"
            return f"{said}: {one} and {other}, {claim.gap_words}", "open"
        case "unknown":
            reason = claim.difference.note or "the paired difference has no interval"
            return f"nothing can be claimed of {both}: {of} {one} and {other}; {reason}", "unknown"


def _of_many(asked: _Question, claims: list[Claim]) -> tuple[str, HeadlineKind]:
    """Say of the highest, one or several alike, which others they were shown to exceed."""
    figures, systems, protocol, finding = asked
    scores = {name: figures.get(name, *protocol.keys[0]).estimate for name in systems}
    ranked = sorted(systems, key=lambda name: -scores[name])
    best = scores[ranked[0]]
    tops = [name for name in ranked if same(best, scores[name])]
    if len(tops) == len(systems):
        said = f"{listing(tops)} had the same {asked.title} for {finding}"
        return f"{said}: {number(best)}", "open"
    between = {frozenset((claim.first, claim.second)): claim.falling for claim in claims}
    parts, undecided = [], len(tops) > 1
    for top in tops:
        against = [between[frozenset((top, name))] for name in ranked if name not in tops]
        shown = [claim for claim in against if claim.decided]
        rest = [claim for claim in against if not claim.decided]
        undecided |= bool(rest)
        it = "it" if len(tops) == 1 else top
        parts += [f"{it} was shown to exceed {_listed(shown)}"] if shown else []
        parts += [f"{it} was not shown to differ from {_listed(rest)}"] if rest else []
    had = "had the highest" if len(tops) == 1 else "had the same, highest"
    start = f"{listing(tops)} {had} {asked.title} of {len(systems)} systems for {finding}"
    text = f"{start} ({number(best)}); {listing(parts)}"
    return text, "open" if undecided else "decided"


def _of_both_halves(asked: _Question, claims: list[Claim]) -> tuple[str, HeadlineKind]:
    """A system is better only where it was shown to have more of both halves."""
    protocol, systems = asked.protocol, asked.systems
    titles = [METRICS[metric].inside for metric in protocol.metrics]
    at = _at_threshold(protocol.policy)
    at += _chosen_on(asked.figures, systems, protocol.keys[0]) + f" for {asked.finding}"
    both = listing([f"the higher {title}" for title in titles]) + at
    ahead: dict[str, list[str]] = {}
    for one, other in zip(claims[::2], claims[1::2], strict=True):
        if one.decided and one.leader == other.leader:
            loser = one.second if one.leader == one.first else one.first
            ahead.setdefault(one.leader, []).append(loser)
    if len(systems) == 2:
        first, second = systems
        detail = f" ({first} and {second}): {_group_words(claims, titles)}"
        if ahead:
            return f"{next(iter(ahead))} had both {both}{detail}", "decided"
        return f"neither {first} nor {second} was shown to have both {both}{detail}", "open"
    if not ahead:
        return f"no system was shown to have both {both} than another", "open"
    parts = [f"{name} than {listing(losers)}" for name, losers in ahead.items()]
    n_pairs = len(systems) * (len(systems) - 1) // 2
    open_ = n_pairs > sum(map(len, ahead.values()))
    text = f"shown to have both {both}: {listing(parts)}" + ("; no other pair was" if open_ else "")
    return text, "open" if open_ else "decided"


_SECONDARY = "Secondary, explains but does not confirm: "
"""Before every claim of a confirmatory report that is not of its primary figure."""


def _secondary(asked: _Question) -> list[Conclusion]:
    """The figures that a verdict tells of beside the primary one, as one family."""
    figures, systems, protocol, _ = asked
    keys = [(name, "max_f1" if "threshold" in METRICS[name].needs else "")
            for name in highlighted("verdict")]  # fmt: skip
    claims = decide_together(
        [
            Claim.from_estimates(figures, systems[0], other, *key)
            for key in keys
            for other in systems[1:]
            if key not in protocol.keys and figures.difference(systems[0], other, *key).known
        ]
    )
    # Halves of one operating point stand in one sentence: each alone would praise a threshold.
    groups: dict[tuple[str, str, str], list[Claim]] = {}
    for claim in claims:
        alone = "" if METRICS[claim.metric].partners else claim.metric
        groups.setdefault((claim.second, claim.policy, alone), []).append(claim)
    return [
        _tell(figures, group, "pair" if metric else "operating_point", protocol.declared)
        for (_, _, metric), group in groups.items()
    ]


def _tell(
    figures: Estimates, group: Sequence[Claim], kind: ConclusionKind, secondary: bool = False
) -> Conclusion:
    """One or several figures of a pair in one sentence."""
    claim = group[0]
    pair, key = [claim.first, claim.second], (claim.metric, claim.policy)
    at = _at_threshold(claim.policy) + _chosen_on(figures, pair, key)
    if kind == "operating_point" or len(group) > 1:
        titles = [METRICS[one.metric].inside for one in group]
        text = f"{claim.first} and {claim.second}{at}: {_group_words(group, titles)}."
    else:
        text = _pair_words(claim.falling, at) + _of_map_boxes(figures, claim)
    start = _SECONDARY if secondary else ""
    decided = any(one.decided for one in group)
    return Conclusion(start + text, kind, tuple(group), decided, secondary)


def _at_threshold(policy: str) -> str:
    return f" at the threshold for {policy_text(policy)}" if policy else ""


def _chosen_on(figures: Estimates, systems: Sequence[str], key: tuple[str, str]) -> str:
    """How many positive validation images chose the thresholds; nothing where none was chosen."""
    counts = {figures.get(name, *key).n_chosen_on for name in systems} - {None}
    if not counts:
        return ""
    numbers = listing([f"{count:,}" for count in sorted(count for count in counts if count)])
    return f" (chosen on {numbers} positive validation {figures.things})"


def _pair_words(claim: Claim, at: str) -> str:
    title, (one, other) = metric_title(claim.metric), map(number, claim.values)
    first, second, gap = claim.first, claim.second, claim.gap_words
    match claim.standing:
        case "first" | "second":
            return (
                f"{title}{at} was higher for {first} than for {second}: {one} and {other}, {gap}."
            )
        case "same":
            return (
                f"{title}{at} was {one} for {first} and for {second}, not shown to differ ({gap})."
            )
        case "open":
            return f"{title}{at} was not shown to differ: {first} {one}, {second} {other}, {gap}."
        case "unknown":
            return f"{title}{at}: {first} {one}, {second} {other}, {gap}; no claim."


def _of_map_boxes(figures: Estimates, claim: Claim) -> str:
    """Which system's boxes are parts of its maps; nothing where none are."""
    boxed, key = METRICS[claim.metric].boxed, (claim.metric, claim.policy)
    pair = [claim.first, claim.second] if boxed else []
    words = listing([name for name in pair if figures.get(name, *key).fixed_choices])
    return (
        words and f" Boxes of {words} are parts of a map, no finer than its cells ({FIXED_CHOICE})."
    )


def _primary_conclusions(asked: _Question, claims: list[Claim]) -> list[Conclusion]:
    """Every pair on the primary figure, both halves of an operating point in one sentence."""
    size = len(asked.protocol.metrics)
    groups = [claims[start : start + size] for start in range(0, len(claims), size)]
    return [_tell(asked.figures, group, "primary") for group in groups]


def _against_margin(figures: Estimates, systems: list[str], protocol: Protocol) -> list[Conclusion]:
    """Each other system against the first, on each primary figure, all at once in 95 %."""
    if protocol.margin is None:
        return []
    contrasts = (len(systems) - 1) * len(protocol.metrics)
    conclusions = []
    for other in systems[1:]:
        for metric, policy in protocol.keys:
            claim = Claim.from_estimates(figures, other, systems[0], metric, policy)
            gap = claim.difference.within(contrasts)
            claim = replace(claim, difference=gap, comparisons=contrasts)
            title = METRICS[metric].inside + _at_threshold(policy)
            text = margin_words(systems[0], other, title, gap, protocol.margin, contrasts)
            decided = against_margin(gap, protocol.margin) not in ("open", "unknown")
            conclusions.append(Conclusion(text, "margin", (claim,), decided))
    return conclusions


def _scope(
    tests: PairTests,
    systems: list[str],
    protocol: Protocol,
    setting: Setting,
    claims: Sequence[Claim],
    conclusions: Sequence[Conclusion],
) -> dict[str, str]:
    """How far the answer reaches, and how its intervals were widened; by a few words on each."""
    same = {name: first for name, first in setting.same_training.items() if name in systems}
    trained, seeds = [name for name in systems if name not in same], setting.seeds or {}
    runs = [_what_is_random(trained, seeds)]
    runs += [
        f"{name} and {first} are one training run: their difference is of the export alone."
        for name, first in same.items()
    ]
    told = [
        claim
        for conclusion in conclusions
        if conclusion.kind != "margin"
        for claim in conclusion.claims
    ]
    below = [claim for claim in told if claim not in claims]
    families = [("answer", claims), ("findings below", below)]
    widened = [
        f"of the {name} for {size} comparisons"
        for name, family in families
        if (size := sum(claim.difference.bounded for claim in family)) > 1
    ]
    parts = []
    if tests.known or protocol.declared:
        parts.append(_standing_words(protocol, setting.uses_before))
    if widened:
        parts.append(
            f"What is said {listing(widened)} rests on intervals widened by Holm's method; tables "
            "have those of each difference alone."
        )
    if protocol.goals:
        parts.append(setting.goals[0].rule)
    if any(claim.difference.refitted for claim in told):
        parts.append(
            "At a chosen threshold they include that other validation patients would have given "
            "another threshold, as of boxes from a chosen score another score; the full table also "
            "has those with the choice held."
        )
    if any(conclusion.secondary for conclusion in conclusions):
        parts.append(
            "Findings marked as secondary explain the answer; the protocol did not fix them, so "
            "they confirm nothing."
        )
    reach, power = _detectable(tests, systems, protocol, claims)
    standing = "exploratory" if tests.known else "how intervals were made"
    told_of = {
        _runs_in_brief(trained, seeds): runs,
        "confirmatory" if protocol.declared else standing: parts,
        f"could show differences of {reach} or more": power,
    }
    return {brief: " ".join(sentences) for brief, sentences in told_of.items() if sentences}


def _runs_in_brief(systems: list[str], seeds: Mapping[str, int]) -> str:
    counts, each = {seeds.get(name) for name in systems}, " each" if len(systems) > 1 else ""
    if None in counts or len(counts) > 1:
        return "training runs"
    return f"one training run{each}" if counts == {1} else f"{counts.pop()} training seeds{each}"


def _what_is_random(systems: list[str], seeds: Mapping[str, int]) -> str:
    """Of which training runs the answer speaks: one each, a recipe over its seeds, or unknown."""
    single = [name for name in systems if seeds.get(name) == 1]
    several = [
        f"{name} ({seeds[name]} training seeds)" for name in systems if seeds.get(name, 0) > 1
    ]
    unknown = [name for name in systems if name not in seeds]
    parts = []
    if len(single) == len(systems):
        counts = {1: "this trained model", 2: "these two trained models"}
        count = counts.get(len(systems), f"these {len(systems)} trained models")
        each = " each" if len(systems) > 1 else ""
        parts.append(
            f"The answer is about {count}, one training run (seed){each}: another run of the same "
            "recipe may differ."
        )
    elif single:
        parts.append(
            f"Of {listing(single)} there is one training run (seed): the answer is about that "
            "trained model, and another run may differ."
        )
    if several:
        parts.append(
            f"Of {listing(several)} the answer is about the recipe: the intervals cover the "
            "choice of seeds and patients."
        )
    if unknown:
        parts.append(
            f"How many training runs are behind {listing(unknown)} is unknown; another run may "
            "differ."
        )
    return " ".join(parts)


def _detectable(
    tests: PairTests, systems: list[str], protocol: Protocol, claims: Sequence[Claim]
) -> tuple[str, list[str]]:
    """The smallest differences that the test set could have shown, and a sentence a metric.

    Of several comparisons at the level of the first step of Holm's method, at which all are held.
    """
    parts, least = list[str](), list[float]()
    size = max(1, sum(claim.difference.bounded for claim in claims))
    wider = {
        (c.first, c.second, c.metric): c.difference.family[size - 1][1] - c.difference.family[0][1]
        for c in claims
        if len(c.difference.family) >= size
    }
    for metric, policy in protocol.keys:
        reaches = {
            other: reach + wider.get((systems[0], other, metric), 0.0)
            for other in systems[1:]
            if (reach := tests.detectable(systems[0], other, (metric, policy))) is not None
        }
        if not reaches:
            continue
        least += reaches.values()
        sizes = [
            number(reach) + (f" between {systems[0]} and {other}" if len(systems) > 2 else "")
            for other, reach in reaches.items()
        ]
        parts.append(
            "This test set has 80 % power to detect a true difference in "
            f"{METRICS[metric].inside}{_at_threshold(policy)} of {listing(sizes)} (two-sided "
            f"{5 / size:.3g} %, by patient); smaller differences would usually be missed."
        )
    return number(min(least, default=None)), parts


def _group_words(claims: Sequence[Claim], titles: Sequence[str]) -> str:
    """Both figures of each claim of one pair, and which system it is higher for."""
    said = {
        "same": "equal here, not shown to differ",
        "open": "not shown to differ",
        "unknown": "no claim",
    }
    levels = {claim.level_words for claim in claims if claim.difference.bounded}
    parts = []
    for claim, title in zip(claims, titles, strict=True):
        end = f"higher for {claim.leader}" if claim.decided else said[claim.standing]
        values = " and ".join(map(number, claim.values))
        short = len(levels) == 1 and claim.difference.bounded
        ends = interval_text(claim.difference)
        gap = (
            f"difference {number(claim.difference.estimate)}, {ends}" if short else claim.gap_words
        )
        parts.append(f"{title} {values} ({gap}), {end}")
    common = f" ({levels.pop()} intervals)" if len(levels) == 1 else ""
    return "; ".join(parts) + common


def _listed(claims: Sequence[Claim]) -> str:
    """The lower system of each claim, with its figure."""
    return listing([f"{claim.second} ({number(claim.values[1])})" for claim in claims])


def _standing_words(protocol: Protocol, uses_before: int | None) -> str:
    """Say whether a report confirms or explores."""
    if not protocol.declared:
        return "Exploratory: no protocol fixed the question beforehand."
    goals = [f"{METRICS[name].inside} above {goal:g}" for name, goal in protocol.goals.items()]
    parts = [listing(goals) if goals else f"primary figure {protocol.title}"]
    parts += [f"margin {number(protocol.margin)}"] if protocol.margin is not None else []
    parts += [f"subgroups {listing(list(protocol.subgroups))}"] if protocol.subgroups else []
    text = f"Confirmatory: a protocol fixed the question ({', '.join(parts)})"
    if uses_before is None:
        return f"{text}; how often this test split was looked at before is unknown."
    if uses_before:
        times = "once" if uses_before == 1 else f"{uses_before} times"
        return f"{text}, but this test split had been looked at {times} before it was first used."
    return f"{text}, before this test split was looked at."
