"""Verdict of a comparison: what its figures and intervals show, and how far that reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from cxr_compare.evaluation.box_choice import MAP_CUT
from cxr_compare.evaluation.figures import Figures, family_level, image_blind_name
from cxr_compare.evaluation.groups.image_blind import FEW_BOXES
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.prose import inside_sentence, listing
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.protocol import EXPLORATORY, Protocol
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.verdict import sentences
from cxr_compare.evaluation.verdict.claims import (
    Claim,
    against_chance,
    decide_groups,
    decide_together,
    same,
)
from cxr_compare.evaluation.verdict.margin import against_margin, margin_text
from cxr_compare.evaluation.verdict.unequal_recipes import is_boxes_against_labels
from cxr_compare.evaluation.verdict.verdict_parts import (
    AnswerContext,
    Conclusion,
    ConclusionKind,
    HeadlineKind,
    JointSystem,
    Verdict,
)

_ERROR = 0.05
_FURTHER_FIGURES = (
    ("auroc", ""),
    ("average_precision", ""),
    ("recall", "max_f1"),
    ("specificity", "max_f1"),
    ("localised_sensitivity", "max_f1"),
    ("ap50_decided", ""),
)
"""Metrics and rules for their thresholds on which the verdict concludes beside the primary one."""


def state_verdict(
    figures: Figures,
    systems: list[str],
    finding: str,
    *,
    protocol: Protocol = EXPLORATORY,
    context: AnswerContext | None = None,
    joint: JointSystem | None = None,
) -> Verdict:
    """State which system has the higher primary figure, as far as the intervals show it.

    Two systems are said to differ only if the interval of their paired difference excludes 0.
    Otherwise they are "not shown to differ", which does not mean that they are equal. The intervals
    are widened for the number of comparisons by `decide_together`: all pairs of systems in the
    primary figure are corrected together, and all other figures that the verdict mentions are
    corrected together.

    The reference system is the first of `systems`; `finding` is its name as reports show it. With a
    `joint` system, the verdict says whether it is better than each of its members, and compares the
    others as without it.

    Example:
        >>> from cxr_compare.evaluation.figures import Figure
        >>> from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
        >>> auroc = MetricKey(ALL, "", "auroc")
        >>> figures = Figures("opacity", "image", ("A", "B"), {
        ...     ("A", ""): {auroc: Figure(0.9, 0.86, 0.94)},
        ...     ("B", ""): {auroc: Figure(0.8, 0.75, 0.85)},
        ...     ("A", "B"): {auroc: Figure(0.1, 0.04, 0.16)},
        ... })
        >>> verdict = state_verdict(figures, ["A", "B"], "opacity")
        >>> verdict.kind, verdict.claims[0].leader
        ('decided', 'A')
    """
    context = context or AnswerContext()
    if joint is not None:
        systems = [name for name in systems if name != joint.name]
    question = _Question(figures, systems, protocol, inside_sentence(finding))
    claims = decide_together(
        [
            Claim.from_estimates(figures, *pair, *key)
            for pair in combinations(systems, 2)
            for key in protocol.keys
        ]
    )
    headline = _headline(question, claims)
    conclusions = _margin_conclusions(question)
    if joint is not None:
        conclusions += _joint_conclusions(question, joint)
    if len(systems) > 2:
        conclusions += _primary_conclusions(question, claims)
    conclusions += _further_conclusions(question)
    return Verdict(
        where=_opening(question, context),
        answer=headline.text,
        kind=headline.kind,
        ranking=headline.ranking,
        scope=_scope(question, context, claims, conclusions),
        conclusions=conclusions,
        claims=tuple(claims),
        cautions=context.cautions,
        chance=_chance(figures, systems),
        joint_errors="" if joint is None else _joint_errors(question, joint),
    )


@dataclass(frozen=True)
class _Question:
    """Figures, systems, protocol and finding of a verdict."""

    figures: Figures
    systems: list[str]
    protocol: Protocol
    finding: str  # as it is written inside a sentence

    @property
    def figure_names(self) -> list[str]:
        """Names of the primary figures as they are written inside a sentence."""
        return [METRICS[metric].title_in_sentence for metric in self.protocol.metrics]

    def at_threshold(self, systems: Sequence[str], key: tuple[str, str]) -> str:
        """Return the words on a figure's threshold and the validation positives that chose it."""
        counts = {self.figures.get(name, *key).n_chosen_on for name in systems}
        chosen_on = sorted(count for count in counts if count)
        return sentences.at_threshold(key[1], chosen_on, self.figures.plural_unit)

    @property
    def at_primary(self) -> str:
        """Words on the threshold of the primary figures, which follow their names."""
        return self.at_threshold(self.systems, self.protocol.keys[0])

    @property
    def primary(self) -> str:
        """Name of the primary figure with its threshold, inside a sentence."""
        return f"{listing(self.figure_names)}{self.at_primary}"

    @property
    def further_keys(self) -> list[tuple[str, str]]:
        """Metrics and rules of the figures that are not the primary ones."""
        return [key for key in _FURTHER_FIGURES if key not in self.protocol.keys]


@dataclass(frozen=True)
class _Headline:
    text: str
    kind: HeadlineKind
    ranking: str = ""


def _chance(figures: Figures, systems: Sequence[str]) -> str:
    """Say that no system was shown to be better than chance by AUROC.

    The result is empty if a system was shown to be better, or if a system was not tested.
    """
    if all(against_chance(figures.get(name, "auroc")) in ("open", "below") for name in systems):
        return sentences.no_better_than_chance(systems)
    return ""


def _opening(question: _Question, context: AnswerContext) -> str:
    counts = [
        question.figures.get(name, *key).n_images
        for name in question.systems
        for key in question.protocol.keys
    ]
    seeds = {
        name: context.seeds[name] for name in question.systems if context.seeds.get(name, 0) > 1
    }
    return sentences.opening(
        max(counts),
        question.figures.plural_unit,
        n_synthetic=context.n_synthetic,
        all_synthetic=context.all_synthetic,
        seeds=seeds,
        n_systems=len(question.systems),
    )


def _headline(question: _Question, claims: list[Claim]) -> _Headline:
    undefined = [
        name
        for name in question.systems
        if not all(question.figures.get(name, *key).known for key in question.protocol.keys)
    ]
    if undefined:
        at = sentences.at_threshold(question.protocol.keys[0][1])
        figures = [
            question.figures.get(name, *key) for name in undefined for key in question.protocol.keys
        ]
        reasons = list(dict.fromkeys(each.note for each in figures if not each.known and each.note))
        text = sentences.undefined_sentence(undefined, question.figure_names, at, reasons)
        defined = [name for name in question.systems if name not in undefined]
        if len(defined) < 2:
            return _Headline(f"no comparison is possible: {text}", "unknown")
        among = [claim for claim in claims if {claim.first, claim.second} <= set(defined)]
        headline = _headline(replace(question, systems=defined), among)
        kind: HeadlineKind = "open" if headline.kind == "decided" else headline.kind
        return replace(headline, text=f"{headline.text}; {text}", kind=kind)
    if len(question.systems) == 1:
        return _Headline(_single_answer(question), "single")
    if question.protocol.partner:
        return _halves_headline(question, claims)
    if len(question.systems) == 2:
        return _pair_headline(question, claims[0])
    return _ranked_headline(question, claims)


def _single_answer(question: _Question) -> str:
    name = question.systems[0]
    scores = [question.figures.get(name, *key) for key in question.protocol.keys]
    figures = dict(zip(question.figure_names, scores, strict=True))
    return sentences.single_sentence(name, figures, question.at_primary, question.finding)


def _pair_headline(question: _Question, claim: Claim) -> _Headline:
    kind = _kind([claim], is_open=not claim.decided)
    return _Headline(sentences.pair_sentence(claim, question.primary, question.finding), kind)


def _kind(claims: Sequence[Claim], *, is_open: bool) -> HeadlineKind:
    """Return the kind of a headline about several systems: unknown if no pair was tested."""
    standings = {claim.standing for claim in claims}
    if "unknown" in standings and standings <= {"unknown", "same"}:
        return "unknown"
    return "open" if is_open else "decided"


def _ranked_headline(question: _Question, claims: list[Claim]) -> _Headline:
    """Name the system or systems with the highest figure, and the others that they exceed."""
    key = question.protocol.keys[0]
    scores = {name: question.figures.get(name, *key).estimate for name in question.systems}
    ranked = sorted(question.systems, key=lambda name: -scores[name])
    best = scores[ranked[0]]
    tops = [name for name in ranked if same(best, scores[name])]
    figure, finding = question.primary, question.finding
    if len(tops) == len(ranked):
        return _Headline(sentences.all_equal_sentence(tops, figure, finding, best), "open")
    between = {frozenset((claim.first, claim.second)): claim.falling for claim in claims}
    against = {
        top: [between[frozenset((top, name))] for name in ranked if name not in tops]
        for top in tops
    }
    is_open = len(tops) > 1 or not all(claim.decided for claim in against[tops[0]])
    text = sentences.ranked_sentence(against, len(ranked), figure, finding, best)
    ranking = sentences.ranking_sentence(against) if len(ranked) > sentences.MOST_NAMED else ""
    return _Headline(text, _kind(claims, is_open=is_open), ranking)


def _halves_headline(question: _Question, claims: list[Claim]) -> _Headline:
    """Call a system better only if both of its primary figures were shown to be higher."""
    ahead: dict[str, list[str]] = {}
    for one, other in zip(claims[::2], claims[1::2], strict=True):
        if one.decided and one.leader == other.leader:
            loser = one.second if one.leader == one.first else one.first
            ahead.setdefault(one.leader, []).append(loser)
    at, finding = question.at_primary, question.finding
    n_pairs = len(question.systems) * (len(question.systems) - 1) // 2
    is_open = n_pairs > sum(map(len, ahead.values()))
    kind = _kind(claims, is_open=is_open)
    if len(question.systems) == 2:
        leader = next(iter(ahead), "")
        return _Headline(sentences.both_halves_sentence(leader, claims, at, finding), kind)
    text = sentences.halves_of_several_sentence(
        ahead,
        question.figure_names,
        at,
        finding,
        others_open=is_open,
        untested=claims if kind == "unknown" else (),
    )
    return _Headline(text, kind)


def _further_conclusions(question: _Question) -> list[Conclusion]:
    """Conclude about figures other than the primary one, with intervals that Holm widens."""
    reference = question.systems[0]
    claims: list[Claim] = []
    for key in question.further_keys:
        claims += [
            Claim.from_estimates(question.figures, reference, other, *key)
            for other in question.systems[1:]
            if question.figures.difference(reference, other, *key).known
        ]
    image_blind = _image_blind_claims(question)
    decided = decide_together([*claims, *image_blind])
    # Both halves of an operating point, such as sensitivity and specificity, get one sentence: one
    # half alone is higher merely because of another threshold.
    groups: dict[tuple[str, str, str], list[Claim]] = {}
    for claim in decided[: len(claims)]:
        alone = "" if METRICS[claim.metric].partners else claim.metric
        groups.setdefault((claim.second, claim.policy, alone), []).append(claim)
    secondary = question.protocol.declared
    conclusions = [
        _conclusion(question, group, "pair" if alone else "operating_point", secondary=secondary)
        for (_, _, alone), group in groups.items()
    ]
    return conclusions + [_localises(question, claim) for claim in decided[len(claims) :]]


def _image_blind_claims(question: _Question) -> list[Claim]:
    """Compare each system with its image-blind baseline in one localisation figure.

    It is the primary figure if this is about localisation, else the FROC mean, or the pointing
    accuracy of a system without boxes. A baseline that was learned from few boxes gives no claim.
    """
    primary = [key for key in question.protocol.keys if METRICS[key[0]].boxed]
    claims = []
    for name in question.systems:
        for key in (*primary, ("froc_mean", ""), ("pointing_accuracy", "")):
            baseline = image_blind_name(name)
            difference = question.figures.difference(name, baseline, *key)
            if difference.known and difference.no_claim != FEW_BOXES:
                claims.append(Claim.from_estimates(question.figures, name, baseline, *key))
                break
    return claims


def _localises(question: _Question, claim: Claim) -> Conclusion:
    """Conclude whether a system localises lesions better than its image-blind baseline."""
    is_primary = claim.key in question.protocol.keys
    secondary = question.protocol.declared and not is_primary
    at = question.at_threshold([claim.first], claim.key)
    return Conclusion(
        _marked(sentences.image_blind_sentence(claim, at), secondary),
        "image_blind",
        (claim,),
        claim.decided,
        secondary=secondary,
        in_headline=is_primary,
    )


def _primary_conclusions(question: _Question, claims: list[Claim]) -> list[Conclusion]:
    """Conclude about the primary figure of every pair, with both halves in one sentence."""
    size = len(question.protocol.metrics)
    groups = [claims[start : start + size] for start in range(0, len(claims), size)]
    return [_conclusion(question, group, "primary") for group in groups]


def _joint_conclusions(question: _Question, joint: JointSystem) -> list[Conclusion]:
    """Conclude whether a joint system has a higher figure than each of its members.

    It must exceed all of them, each at the level of a single comparison (intersection-union test:
    Berger 1982), so no member is singled out as the better one by its figure on test images, and no
    interval is widened for the number of members. The primary figures are one question; the further
    figures are corrected for their number by Holm's method.
    """
    groups = [
        _joint_claims(question, joint, [key])
        for key in question.further_keys
        if not METRICS[key[0]].partners  # one half alone is higher because of another threshold
    ]
    groups = [group for group in groups if all(claim.difference.known for claim in group)]
    decided = decide_groups(groups, lambda group: _exceeds_all(group, joint))
    primary = _joint_claims(question, joint, question.protocol.keys)
    return [
        _joint_conclusion(question, joint, primary, secondary=False),
        *(
            _joint_conclusion(question, joint, group, secondary=question.protocol.declared)
            for group in decided
        ),
    ]


def _joint_claims(
    question: _Question, joint: JointSystem, keys: Sequence[tuple[str, str]]
) -> list[Claim]:
    return [
        Claim.from_estimates(question.figures, joint.name, member, *key)
        for key in keys
        for member in joint.members
    ]


def _exceeds_all(claims: Sequence[Claim], joint: JointSystem) -> bool:
    return all(claim.leader == joint.name for claim in claims)


def _is_tested(claims: Sequence[Claim]) -> bool:
    """Return True if a joint system and all of its members can be compared by an interval."""
    return all(claim.difference.bounded for claim in claims)


def _joint_errors(question: _Question, joint: JointSystem) -> str:
    """Say how many errors a joint system and its members make at the threshold, if there is one."""
    policies = [key.policy for key in question.figures.of(joint.name) if key.policy]
    policy = question.protocol.main_policy(list(dict.fromkeys(policies)))
    errors = {}
    for name in (joint.name, *joint.members):
        of_system = [question.figures.get(name, metric, policy) for metric in ("fp", "fn")]
        if not all(figure.known for figure in of_system):
            return ""
        errors[name] = sum(figure.estimate for figure in of_system)
    return sentences.joint_errors_sentence(errors, sentences.at_threshold(policy))


def _joint_conclusion(
    question: _Question, joint: JointSystem, claims: list[Claim], *, secondary: bool
) -> Conclusion:
    tested = _is_tested(claims)
    shown = _exceeds_all(claims, joint)
    at = question.at_threshold(joint.members, claims[0].key)
    if joint.boxes_of and not tested and all(METRICS[claim.metric].boxed for claim in claims):
        text = sentences.unchanged_boxes_sentence(joint.boxes_of, claims, at)
    else:
        # A test against one member that did not show it higher settles the question.
        not_exceeded = {claim.standing for claim in claims if claim.leader != joint.name}
        text = sentences.joint_sentence(
            joint.members, claims, at, shown=shown, tested=not_exceeded != {"unknown"}
        )
    text = _marked(text, secondary)
    return Conclusion(text, "joint", tuple(claims), shown, secondary, tested=tested)


def _marked(text: str, secondary: bool) -> str:
    """Return a sentence that says, if it is secondary, that it confirms nothing."""
    return f"{sentences.SECONDARY_START} {text}" if secondary else text


def _conclusion(
    question: _Question, group: Sequence[Claim], kind: ConclusionKind, *, secondary: bool = False
) -> Conclusion:
    claim = group[0]
    at = question.at_threshold([claim.first, claim.second], claim.key)
    if kind == "operating_point" or len(group) > 1:
        text = sentences.pair_figures_sentence(group, at)
    else:
        map_boxes = _systems_with_map_boxes(question.figures, claim)
        text = sentences.pair_figure_sentence(claim, at, map_boxes)
    text += _boxed_positives(question.figures, group)
    decided = any(member.decided for member in group)
    return Conclusion(_marked(text, secondary), kind, tuple(group), decided, secondary)


def _boxed_positives(figures: Figures, group: Sequence[Claim]) -> str:
    """Say on how many positive images a localisation figure rests, if not on all of them."""
    for claim in group:
        key = MetricKey(ALL, claim.policy, claim.metric)
        counts = figures.boxed_positives(claim.first, key)
        if counts is not None:
            return sentences.boxed_positives_sentence(claim, *counts)
    return ""


def _systems_with_map_boxes(figures: Figures, claim: Claim) -> list[str]:
    """Return the systems whose boxes are cut out of activation maps, for a claim about boxes."""
    if not METRICS[claim.metric].boxed:
        return []
    systems = []
    for name in (claim.first, claim.second):
        figure = figures.get(name, *claim.key)
        if MAP_CUT in figure.choices:
            systems.append(name)
    return systems


def _margin_conclusions(question: _Question) -> list[Conclusion]:
    """Compare each other system with the reference system and the margin, in each primary figure.

    The intervals are widened so that all of them contain the true differences at once with 95 %
    probability.
    """
    margin = question.protocol.margin
    if margin is None:
        return []
    reference, *others = question.systems
    contrasts = len(others) * len(question.protocol.metrics)
    conclusions = []
    for other in others:
        for metric, policy in question.protocol.keys:
            claim = Claim.from_estimates(question.figures, other, reference, metric, policy)
            claim = claim.among(contrasts)
            figure = f"{METRICS[metric].title_in_sentence}{sentences.at_threshold(policy)}"
            text = margin_text(reference, other, figure, claim.difference, margin, contrasts)
            decided = against_margin(claim.difference, margin) not in ("open", "unknown")
            conclusions.append(Conclusion(text, "margin", (claim,), decided))
    return conclusions


def _scope(
    question: _Question,
    context: AnswerContext,
    claims: Sequence[Claim],
    conclusions: Sequence[Conclusion],
) -> dict[str, str]:
    """State the limits of the answer, and how its intervals were widened, by their short forms."""
    parts = [
        _training_scope(question.systems, context),
        _analysis_scope(question, claims, conclusions),
        _power_scope(question, claims),
    ]
    return {brief: " ".join(texts) for brief, texts in parts if texts}


def _training_scope(systems: Sequence[str], context: AnswerContext) -> tuple[str, list[str]]:
    """State which training runs the answer is about."""
    originals = {
        name: original for name, original in context.same_training.items() if name in systems
    }
    trained = [name for name in systems if name not in originals]
    counts = {context.seeds.get(name) for name in trained}
    n_runs = counts.pop() if len(counts) == 1 else None
    texts = [
        *_training_sentences(trained, context),
        *(sentences.same_training(name, original) for name, original in originals.items()),
    ]
    if context.unequal:
        matched = is_boxes_against_labels(context.unequal)
        texts.append(sentences.unequal_training(context.unequal, boxes_against_labels=matched))
    return sentences.training_brief(n_runs, len(trained)), texts


def _training_sentences(systems: list[str], context: AnswerContext) -> Iterator[str]:
    once = [name for name in systems if context.seeds.get(name) == 1]
    several = {name: context.seeds[name] for name in systems if context.seeds.get(name, 0) > 1}
    unknown = [name for name in systems if name not in context.seeds]
    if len(once) == len(systems):
        yield sentences.one_run_each(len(systems))
    elif once:
        yield sentences.one_run_of(once)
    if several:
        yield sentences.several_runs(several)
    if unknown:
        yield sentences.unknown_runs(unknown)


def _analysis_scope(
    question: _Question,
    claims: Sequence[Claim],
    conclusions: Sequence[Conclusion],
) -> tuple[str, list[str]]:
    """State if a protocol was given, and how the intervals were computed."""
    protocol = question.protocol
    mentioned = [
        claim
        for conclusion in conclusions
        if conclusion.kind not in ("margin", "joint")
        for claim in conclusion.claims
    ]
    below = [claim for claim in mentioned if claim not in claims]
    is_tested = any(figure.p_value is not None for *_, figure in question.figures)
    analysis: sentences.Analysis = "exploratory" if is_tested else "untested"
    texts = []
    if protocol.declared:
        analysis = "protocol_given"
        texts.append(
            sentences.protocol_sentence(
                question.figure_names, protocol.keys[0][1], protocol.margin, protocol.subgroups
            )
        )
    elif is_tested:
        texts.append(sentences.EXPLORATORY_ANALYSIS)
    sizes = _n_bounded(claims), _n_bounded(below)
    if max(sizes) > 1:
        texts.append(sentences.widened_sentence(*sizes))
    if any(claim.difference.refitted for claim in mentioned):
        texts.append(sentences.THRESHOLD_UNCERTAINTY)
    if any(conclusion.secondary for conclusion in conclusions):
        texts.append(sentences.SECONDARY_FINDINGS)
    return sentences.analysis_brief(analysis), texts


def _n_bounded(claims: Sequence[Claim]) -> int:
    return sum(claim.difference.bounded for claim in claims)


def _power_scope(question: _Question, claims: Sequence[Claim]) -> tuple[str, list[str]]:
    """State how large a difference a next study of this size would show, for each primary figure.

    The standard errors are those of this test set, so the statement serves planning and is no
    property of the result. The short form names the largest of the differences. If there are
    several comparisons, the intervals are those of the first step of Holm's method, in which all of
    them are tested.
    """
    reference, *others = question.systems
    size = max(1, _n_bounded(claims))
    extra_widths = {}
    for claim in claims:
        ends_at = claim.difference.interval_at
        if ends_at is not None:
            extra = ends_at(family_level(size))[1] - ends_at(family_level(1))[1]
            extra_widths[claim.first, claim.second, claim.metric] = extra
    texts = []
    differences: list[float] = []
    for metric, policy in question.protocol.keys:
        reaches = []
        for other in others:
            reach = question.figures.difference(reference, other, metric, policy).detectable
            if reach is None:
                continue
            value = reach + extra_widths.get((reference, other, metric), 0.0)
            pair = f" between {reference} and {other}" if len(question.systems) > 2 else ""
            reaches.append(f"{number(value)}{pair}")
            differences.append(value)
        if reaches:
            figure = METRICS[metric].title_in_sentence
            texts.append(sentences.power_sentence(figure, policy, reaches, _ERROR / size))
    return sentences.power_brief(max(differences, default=None)), texts
