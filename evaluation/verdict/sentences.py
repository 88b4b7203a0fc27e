"""Sentences of a verdict: functions of claims and figures that return text.

`evaluation.verdict.verdict` decides what may be said; the functions here only word it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.figures import Figure
from cxr_compare.evaluation.metrics.missing_sentences import boxed_positives
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS, metric_title
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.evaluation.verdict.claims import Claim

Analysis = Literal["protocol_given", "exploratory", "untested"]
"""``protocol_given``: a file fixed the question; ``untested``: the figures have no tests."""

EXPLORATORY_ANALYSIS = "Exploratory: no protocol fixed the question beforehand."
THRESHOLD_UNCERTAINTY = (
    "Intervals of differences at a threshold include the uncertainty of choosing that threshold."
)
SECONDARY_FINDINGS = (
    "Findings marked as secondary explain the answer. The protocol did not fix them, so they "
    "confirm nothing."
)
MOST_NAMED = 4
"""Largest number of systems that the headline names one by one."""
SECONDARY_START = "Secondary finding, which explains but does not confirm:"

_EXCEEDS, _SIMILAR, _UNTESTED = "shown to exceed", "not shown to differ from", "not tested against"
_ANALYSES: Mapping[Analysis, str] = {
    "protocol_given": "protocol given",
    "exploratory": "exploratory",
    "untested": "how intervals were made",
}


# Parts of several sentences


def at_threshold(policy: str, chosen_on: Sequence[int] = (), unit: str = "") -> str:
    """Return the words on a threshold that follow a figure's name; empty without a policy.

    ``chosen_on`` holds the numbers of positive validation images, or other units, behind it.
    """
    text = f" at the threshold for {policy_text(policy)}" if policy else ""
    if chosen_on:
        counts = listing([f"{count:,}" for count in chosen_on])
        text += f" (chosen on {counts} positive validation {unit})"
    return text


def title_inside(claim: Claim) -> str:
    """Return the name of a claim's figure as it is written inside a sentence."""
    return METRICS[claim.metric].title_in_sentence


def gap(claim: Claim, label: str = "difference") -> str:
    """Return a difference with its interval, or with the reason why there is none."""
    difference = claim.difference
    text = f"{label} {number(difference.estimate)}"
    if difference.bounded:
        ends = range_text(difference.ci_low, difference.ci_high)
        return f"{text}, {_level(claim.level)} interval {ends}"
    if difference.note:
        return f"{text}; {difference.note}"
    if claim.comparisons == 1:
        return f"{text}; no interval"
    return f"{text}; no interval for one of {claim.comparisons} comparisons"


def _level(share: float) -> str:
    return f"{100 * share:.3g} %"


def _figures_and_gaps(claims: Sequence[Claim]) -> str:
    """Return both values and the difference of each figure of one pair of systems.

    If all intervals have one level, it is named once, at the end.
    """
    levels = {claim.level for claim in claims if claim.difference.bounded}
    common_level = levels.pop() if len(levels) == 1 else None
    parts = []
    for claim in claims:
        first, second = map(number, claim.values)
        difference = gap(claim)
        if common_level is not None and claim.difference.bounded:
            ends = range_text(claim.difference.ci_low, claim.difference.ci_high)
            difference = f"difference {number(claim.difference.estimate)}, {ends}"
        result = {"same": "equal here, not shown to differ", "open": "not shown to differ"}.get(
            claim.standing, "no claim"
        )
        if claim.leader:
            result = f"higher for {claim.leader}"
        parts.append(f"{title_inside(claim)} {first} and {second} ({difference}), {result}")
    level = "" if common_level is None else f" ({_level(common_level)} intervals)"
    return "; ".join(parts) + level


# The headline


def opening(
    n_evaluated: int,
    unit: str,
    *,
    n_synthetic: int,
    all_synthetic: bool,
    seeds: Mapping[str, int],
    n_systems: int,
) -> str:
    """Return the phrase on the evaluated images and training seeds that begins the headline.

    ``seeds`` holds the number of training seeds of each system with several.
    """
    if all_synthetic:
        text = f"On {n_evaluated:,} synthetic test {unit}"
    elif n_synthetic:
        of_them = "of them" if unit == "images" else "of their images"
        text = f"On {n_evaluated:,} test {unit}, {n_synthetic:,} {of_them} synthetic"
    elif n_evaluated:
        text = f"On these {n_evaluated:,} test {unit}"
    else:
        text = "On this test set"
    if not seeds:
        return text
    counts = set(seeds.values())
    if len(seeds) == n_systems and len(counts) == 1:
        text = f"{text}, over {counts.pop()} training seeds"
        return f"{text} each" if n_systems > 1 else text
    return f"{text}, over " + listing(
        [f"{count} training seeds of {name}" for name, count in seeds.items()]
    )


def no_better_than_chance(systems: Sequence[str]) -> str:
    """Say that none of the systems was shown to be better than chance."""
    who = {1: f"{systems[0]} was not", 2: "neither system was"}.get(len(systems), "no system was")
    return f"{who} shown to be better than chance by AUROC"


def undefined_sentence(
    systems: Sequence[str], figures: Sequence[str], at: str, reasons: Sequence[str]
) -> str:
    """Say which systems have no value of a primary figure, and why."""
    verb = "are" if len(figures) > 1 else "is"
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return f"the {listing(figures)}{at} of {listing(systems)} {verb} undefined{why}"


def single_sentence(system: str, figures: Mapping[str, Figure], at: str, finding: str) -> str:
    """Give the primary figures of the only system, by their names inside a sentence."""
    scores = []
    for figure in figures.values():
        ends = range_text(figure.ci_low, figure.ci_high)
        interval = f" (95 % interval {ends})" if figure.bounded else ""
        scores.append(f"{number(figure.estimate)}{interval}")
    verb = "were" if len(figures) > 1 else "was"
    return (
        f"the {listing(list(figures))}{at} of {system} for {finding} {verb} {' and '.join(scores)}"
    )


def pair_sentence(claim: Claim, figure: str, finding: str) -> str:
    """Say what the difference of the only two systems shows, and no more.

    The difference is not turned round, so it has the same sign as in the tables.
    """
    first, second = claim.first, claim.second
    value, other = map(number, claim.values)
    match claim.standing:
        case "first":
            return (
                f"{first} had the higher {figure} for {finding}: {value}, {second} {other}, "
                f"{gap(claim)}"
            )
        case "second":
            difference = gap(claim, f"{first} − {second}")
            return (
                f"{second} had the higher {figure} for {finding}: {other}, {first} {value}, "
                f"{difference}"
            )
        case "same":
            return (
                f"{first} and {second} had the same {figure} for {finding}: {value} ({gap(claim)})"
            )
        case "open":
            return (
                f"{first} and {second} were not shown to differ in {figure} for {finding}: "
                f"{value} and {other}, {gap(claim)}"
            )
        case "unknown":
            return (
                f"nothing can be claimed of {first} and {second}: {figure} for {finding} {value} "
                f"and {other}; {claim.no_interval}"
            )


def all_equal_sentence(systems: Sequence[str], figure: str, finding: str, value: float) -> str:
    """Say that more than two systems have the same value of the primary figure."""
    return f"{listing(systems)} had the same {figure} for {finding}: {number(value)}"


def ranked_sentence(
    tops: Mapping[str, Sequence[Claim]], n_systems: int, figure: str, finding: str, value: float
) -> str:
    """Name the system or systems with the highest figure, and say which others they exceed.

    ``tops`` holds their claims against the other systems, each with the top system first. The
    others of more than four systems are counted; `ranking_sentence` names them. If differences have
    no interval, the sentence says that they were not tested, and why.
    """
    results = []
    for name, claims in tops.items():
        who = "it was" if len(tops) == 1 else f"{name} was"
        groups = _by_result(claims)
        if n_systems > MOST_NAMED:
            results.append(f"{who} {_counted_results(groups)}")
        else:
            results += [f"{who} {words} {_with_values(of)}" for words, of in groups.items()]
    same = "same, " if len(tops) > 1 else ""
    return (
        f"{listing(list(tops))} had the {same}highest {figure} of {n_systems} systems for "
        f"{finding} ({number(value)}); {listing(results)}"
        f"{_reasons([claim for claims in tops.values() for claim in claims])}"
    )


def _by_result(claims: Sequence[Claim]) -> dict[str, list[Claim]]:
    """Group the claims of a top system by their result, in words; without empty groups."""
    groups: dict[str, list[Claim]] = {_EXCEEDS: [], _SIMILAR: [], _UNTESTED: []}
    for claim in claims:
        words = _UNTESTED if claim.standing == "unknown" else _SIMILAR
        groups[_EXCEEDS if claim.decided else words].append(claim)
    return {words: of_group for words, of_group in groups.items() if of_group}


def _counted_results(groups: Mapping[str, Sequence[Claim]]) -> str:
    if len(groups) == 1:
        (words,) = groups
        return f"{words} {'all others' if words == _EXCEEDS else 'any of the others'}"
    first, *others = [f"{words} {len(claims)}" for words, claims in groups.items()]
    return ", and was ".join([f"{first} of the others", *others])


def _reasons(claims: Sequence[Claim]) -> str:
    """Say why some differences have no interval; empty where all have one."""
    reasons = [claim.no_interval for claim in claims if claim.standing == "unknown"]
    return "".join(f"; {reason}" for reason in dict.fromkeys(reasons))


def ranking_sentence(tops: Mapping[str, Sequence[Claim]]) -> str:
    """Name the systems which the top systems were shown to exceed, and the others.

    ``tops`` holds the claims of each top system against the other systems.
    """
    texts = []
    for name, claims in tops.items():
        parts = [f"{words} {_with_values(of)}" for words, of in _by_result(claims).items()]
        texts.append(f"{name} was {'; '.join(parts)}.")
    return " ".join(texts)


def _with_values(claims: Sequence[Claim]) -> str:
    return listing([f"{claim.second} ({number(claim.values[1])})" for claim in claims])


def both_halves_sentence(leader: str, claims: Sequence[Claim], at: str, finding: str) -> str:
    """Say if one of two systems was shown to have both primary figures higher.

    ``leader`` is empty if none was.
    """
    first, second = claims[0].first, claims[0].second
    higher = f"{_both_higher([title_inside(claim) for claim in claims], at, finding)}"
    who = f"{leader} had both"
    if not leader:
        who = f"neither {first} nor {second} was shown to have both"
    return f"{who} {higher} ({first} and {second}): {_figures_and_gaps(claims)}"


def halves_of_several_sentence(
    ahead: Mapping[str, Sequence[str]],
    figures: Sequence[str],
    at: str,
    finding: str,
    *,
    others_open: bool,
    untested: Sequence[Claim] = (),
) -> str:
    """Say which of several systems was shown to have both primary figures higher than which.

    ``untested`` holds all claims if none of them has an interval.
    """
    higher = _both_higher(figures, at, finding)
    if untested:
        return f"no two systems could be tested for both {higher}{_reasons(untested)}"
    if not ahead:
        return f"no system was shown to have both {higher} than another"
    pairs = listing([f"{name} than {listing(losers)}" for name, losers in ahead.items()])
    others = "; no other pair was" if others_open else ""
    return f"shown to have both {higher}: {pairs}{others}"


def _both_higher(figures: Sequence[str], at: str, finding: str) -> str:
    return f"{' and '.join(f'the higher {name}' for name in figures)}{at} for {finding}"


# Further conclusions


def pair_figure_sentence(claim: Claim, at: str, map_boxes: Sequence[str]) -> str:
    """Say what is shown of two systems in one figure; ``map_boxes`` are cut out of maps."""
    claim = claim.falling
    figure = f"{metric_title(claim.metric)}{at}"
    first, second = claim.first, claim.second
    value, other = map(number, claim.values)
    match claim.standing:
        case "first" | "second":
            text = (
                f"{figure} was higher for {first} than for {second}: {value} and {other}, "
                f"{gap(claim)}."
            )
        case "same":
            text = (
                f"{figure} was {value} for {first} and for {second}, not shown to differ "
                f"({gap(claim)})."
            )
        case "open":
            text = (
                f"{figure} was not shown to differ: {first} {value}, {second} {other}, "
                f"{gap(claim)}."
            )
        case "unknown":
            text = f"{figure}: {first} {value}, {second} {other}, {gap(claim)}; no claim."
    if map_boxes:
        text += (
            f" The boxes of {listing(map_boxes)} are cut out of a map, so they are no finer than "
            "its cells."
        )
    return text


def pair_figures_sentence(claims: Sequence[Claim], at: str) -> str:
    """Say what is shown of two systems in several figures at one threshold."""
    return f"{claims[0].first} and {claims[0].second}{at}: {_figures_and_gaps(claims)}."


def boxed_positives_sentence(claim: Claim, n_boxed: int, n_positive: int) -> str:
    """Say that a localisation figure rests on the positive images that have boxes."""
    title = title_inside(claim)
    rests = boxed_positives(n_boxed, n_positive)
    return f" {title[0].upper()}{title[1:]} rests {rests}."


def joint_sentence(
    members: Sequence[str], claims: Sequence[Claim], at: str, *, shown: bool, tested: bool
) -> str:
    """Say if a joint system, the first of each claim, was shown to exceed each of its members."""
    figures = list(dict.fromkeys(title_inside(claim) for claim in claims))
    named = f"{listing(figures)}{at}"
    rows = []
    for claim in claims:
        value, of_member = map(number, claim.values)
        title = f"{title_inside(claim)} " if len(figures) > 1 else ""
        rows.append(f"{title}{value} against {of_member} of {claim.second} ({gap(claim)})")
    name, than = claims[0].first, f"a higher {named} than each of {listing(members)}"
    result = f"{name} {'was shown' if shown else 'was not shown'} to have {than}"
    if not tested:
        result = f"Whether {name} has {than} could not be tested"
    return f"{result}: {'; '.join(rows)}."


def unchanged_boxes_sentence(member: str, claims: Sequence[Claim], at: str) -> str:
    """Say that the boxes of a joint system are those of a member, so that their figures are equal.

    The joint system is the first of each claim.
    """
    values = {title_inside(claim): number(claim.values[0]) for claim in claims}
    equal = listing([f"{title}{at} is {value} for both" for title, value in values.items()])
    return f"The boxes of {claims[0].first} are those of {member}, unchanged: {equal}."


def joint_errors_sentence(errors: Mapping[str, float], at: str) -> str:
    """Say how many errors a joint system, the first, and its members make at the threshold."""
    joint, *members = errors
    counts = listing([f"{name} {errors[name]:,.4g}" for name in members])
    start = at.strip()
    return f"{start[:1].upper()}{start[1:]}, {joint} makes {errors[joint]:,.4g} errors, {counts}."


# How far the answer reaches


def training_brief(n_runs: int | None, n_systems: int) -> str:
    """Name the training runs in a few words; ``n_runs`` is None if systems differ in it."""
    if n_runs is None:
        return "training runs"
    runs = "one training run" if n_runs == 1 else f"{n_runs} training seeds"
    return f"{runs} each" if n_systems > 1 else runs


def analysis_brief(analysis: Analysis) -> str:
    """Name the kind of the analysis in a few words."""
    return _ANALYSES[analysis]


def power_brief(reach: float | None) -> str:
    """Name the smallest difference of a next study in a few words."""
    return f"true difference that a study of this size shows with 80 % power: {number(reach)}"


def one_run_each(n_systems: int) -> str:
    """Say that the answer is about trained models, all with one training run."""
    models = {1: "this trained model", 2: "these two trained models"}.get(
        n_systems, f"these {n_systems} trained models"
    )
    each = " each" if n_systems > 1 else ""
    return (
        f"The answer is about {models}, one training run (seed){each}: another run of the same "
        "recipe may differ."
    )


def one_run_of(systems: Sequence[str]) -> str:
    """Say which systems were trained once."""
    verb, models = "were each", "those trained models"
    if len(systems) == 1:
        verb, models = "was", "that trained model"
    return (
        f"{listing(systems)} {verb} trained once: the answer is about {models}, and another run "
        "may differ."
    )


def several_runs(seeds: Mapping[str, int]) -> str:
    """Say which systems were trained several times."""
    names = listing([f"{name} ({count} training seeds)" for name, count in seeds.items()])
    return (
        f"For {names} the answer is about the recipe: intervals include the choice of seeds and of "
        "patients."
    )


def unknown_runs(systems: Sequence[str]) -> str:
    """Say of which systems the number of training runs is unknown."""
    return (
        f"The number of training runs behind {listing(systems)} is unknown; another run may differ."
    )


def same_training(system: str, original: str) -> str:
    """Say that two systems are one training run."""
    return (
        f"{system} and {original} come from one training run: they differ only in how it predicts, "
        "such as by an export or with test-time views."
    )


def unequal_training(
    conditions: Mapping[str, Mapping[str, str]], *, boxes_against_labels: bool
) -> str:
    """Name the training conditions, and their values by system, in which systems differ."""
    parts = []
    for condition, values in conditions.items():
        texts = ", ".join(f"{name}: {value}" for name, value in values.items())
        parts.append(f"{condition} ({texts})")
    count = counted(len(parts), "condition")
    meaning = (
        "This compares recipe against recipe: a difference between these systems is one of their "
        "whole recipes, not of detector against classifier alone."
    )
    if boxes_against_labels:
        meaning = (
            "All other recorded conditions were equal, so this compares boxes against labels: "
            "learning boxes, with the head and loss that this needs, against learning labels."
        )
    figures = conditions.get("figure that chose the epoch", {}).values()
    if {"AP50", "AP"} & set(figures):
        meaning += (
            " A detector's epoch was chosen by its boxes, which a classifier does not have; "
            "training.monitor=auroc, or epoch for the last one, is the same figure for both."
        )
    return f"Trainings differed in {count}: {'; '.join(parts)}. {meaning}"


def protocol_sentence(
    figures: Sequence[str], policy: str, margin: float | None, subgroups: Sequence[str]
) -> str:
    """Say what a protocol fixed."""
    text = f"Protocol given: primary figure {listing(figures)}{at_threshold(policy)}"
    if margin is not None:
        text += f", margin {number(margin)}"
    if subgroups:
        text += f", subgroups {listing(subgroups)}"
    return f"{text}."


def widened_sentence(n_answer: int, n_findings: int) -> str:
    """Say which intervals Holm's method widens; a family of fewer than two is not named."""
    families = []
    if n_answer > 1:
        families.append(f"answer ({n_answer} comparisons)")
    if n_findings > 1:
        families.append(f"findings below ({n_findings} comparisons)")
    verb = "use" if n_findings > 1 else "uses"
    return (
        f"The {' and the '.join(families)} {verb} intervals that Holm's method widens for several "
        "comparisons; tables give the interval of each difference alone."
    )


def power_sentence(figure: str, policy: str, reaches: Sequence[str], level: float) -> str:
    """Say how large a difference a next study would show, with ``level`` its error probability."""
    return (
        "For planning: by the variance observed here, a next study with such a test set would show "
        f"a true difference in {figure}{at_threshold(policy)} with 80 % power if it is at least "
        f"{listing(reaches)} (two-sided {_level(level)}, by patient). This does not make the "
        "answer above more or less certain, which its intervals say."
    )


def image_blind_sentence(claim: Claim, at: str) -> str:
    """Say whether a system localises lesions better than constant positions with its scores.

    The second system of the claim is the image-blind baseline of the first; `at` are the words on
    the threshold.
    """
    places = _constant_places(claim)
    value, other = map(number, claim.values)
    compared = f"{title_inside(claim)}{at} {value}, {places} {other}, {gap(claim)}."
    match claim.standing:
        case "first":
            return f"{claim.first} localises lesions: {compared}"
        case "second":
            return (
                f"{places[0].upper()}{places[1:]} did better than {claim.first}: "
                f"{title_inside(claim)}{at} {other} against {value}, {gap(claim)}."
            )
        case "unknown":
            return f"Whether {claim.first} localises lesions is not known: {compared}"
    return f"{claim.first} was not shown to localise lesions: {compared}"


def _constant_places(claim: Claim) -> str:
    """Name what an image-blind baseline uses: all but the positions is the system's own."""
    metric = METRICS[claim.metric]
    if "boxes" in metric.needs:
        return f"constant positions with {claim.first}'s own image scores"
    if "threshold" in metric.needs:
        return f"a constant position with {claim.first}'s own calls"
    return "a constant position"


def image_blind_summary(claims: Sequence[Claim]) -> str:
    """Say which systems localise lesions better than constant positions, without the figures.

    The second system of each claim is the image-blind baseline of the first.
    """
    words = {"first": "shown for", "second": "worse for", "unknown": "not tested for"}
    systems: dict[str, list[str]] = {}
    for claim in claims:
        systems.setdefault(words.get(claim.standing, "not shown for"), []).append(claim.first)
    parts = [f"{word} {listing(names)}" for word, names in systems.items()]
    return f"Lesions localised better than by constant positions: {'; '.join(parts)}."
