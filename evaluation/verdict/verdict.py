"""Verdict of a comparison: what its figures and intervals show, and how far that reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from cxr_compare.evaluation.box_choice import MAP_CUT
from cxr_compare.evaluation.figures import Figures, family_level, image_blind_name
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.metrics.registry import METRICS, highlighted, metric_title
from cxr_compare.evaluation.paired_tests import PairTests
from cxr_compare.evaluation.protocol import EXPLORATORY, Protocol
from cxr_compare.evaluation.statistics.holm import step_down
from cxr_compare.evaluation.verdict.claims import Claim, decide_together, same
from cxr_compare.evaluation.verdict.margin import against_margin, margin_statement
from cxr_compare.evaluation.verdict.verdict_parts import (
    AnswerContext,
    Conclusion,
    ConclusionKind,
    HeadlineKind,
    JointSystem,
    ScopePart,
    Statement,
    Verdict,
)

CHANCE = 0.5
"""AUROC of a system whose scores are random."""
_ERROR = 0.05


def state_verdict(
    figures: Figures,
    systems: list[str],
    finding: str,
    *,
    protocol: Protocol = EXPLORATORY,
    tests: PairTests | None = None,
    context: AnswerContext | None = None,
    joint: JointSystem | None = None,
) -> Verdict:
    """State which system has the higher primary figure, as far as the intervals show it.

    Two systems are said to differ only if the interval of their paired difference excludes 0.
    Otherwise they are "not shown to differ", which does not mean that they are equal. The intervals
    are widened for the number of comparisons by `decide_together`: all pairs of systems in the
    primary figure are corrected together, and all other figures that the verdict mentions are
    corrected together.

    Args:
        figures: Figures of all systems and paired differences, with intervals.
        systems: Display names of the systems, the reference system first.
        finding: Name of the finding as reports show it, such as "lung opacity".
        protocol: Question of the comparison: primary figure, rule for its threshold, margin,
            reference system and subgroups.
        tests: Paired tests of the systems, from which the verdict takes how large a difference a
            further study of this size would show; `None` leaves this out.
        context: Further facts that the verdict mentions, such as the number of training seeds;
            `None` without such facts.
        joint: System that joins others of the comparison. The verdict then says whether it is
            better than each of them, and compares the others as without it.

    Returns:
        The verdict: which system is better if that is shown, its limits, further comparisons and
        cautions.

    Example:
        >>> from cxr_compare.evaluation.figures import Figure
        >>> from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
        >>> auroc = MetricKey(ALL, "", "auroc")
        >>> figures = Figures("opacity", "image",
        ...     systems={
        ...         "A": {auroc: Figure(0.9, 0.86, 0.94)}, "B": {auroc: Figure(0.8, 0.75, 0.85)}
        ...     },
        ...     differences={
        ...         ("A", "B"): {auroc: Figure(0.1, 0.04, 0.16)}
        ...     })
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
        opening=_opening(question, context),
        main=headline.statement,
        kind=headline.kind,
        scope_parts=_scope(question, tests or PairTests(), context, claims, conclusions),
        conclusions=conclusions,
        claims=tuple(claims),
        cautions=context.cautions,
        better_than_chance=_chance_statement(figures, systems),
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

    def threshold(self, systems: Sequence[str], key: tuple[str, str]) -> dict[str, Any]:
        """Return the policy of a figure, and how many validation positives chose its threshold."""
        counts = {self.figures.get(name, *key).n_chosen_on for name in systems}
        known = sorted(count for count in counts if count)
        return {
            "policy": key[1],
            "chosen_on": [f"{count:,}" for count in known],
            "unit": self.figures.plural_unit,
        }

    @property
    def figure_values(self) -> dict[str, Any]:
        """Values by which a headline names the primary figure and the finding."""
        return {
            "figures": self.figure_names,
            "threshold": self.threshold(self.systems, self.protocol.keys[0]),
            "finding": self.finding,
        }


@dataclass(frozen=True)
class _Headline:
    statement: Statement
    kind: HeadlineKind


def _chance_statement(figures: Figures, systems: Sequence[str]) -> Statement | None:
    """State that no system was shown to be better than chance by AUROC.

    The result is None if a system was shown to be better, or if a system has no interval.
    """
    if all(figures.get(name, "auroc").ci_low <= CHANCE for name in systems):
        return Statement("chance", {"systems": list(systems)})
    return None


def _opening(question: _Question, context: AnswerContext) -> Statement:
    counts = [
        question.figures.get(name, *key).counts.n_images
        for name in question.systems
        for key in question.protocol.keys
    ]
    n_images = max(counts)
    unit = question.figures.plural_unit
    seeds = {
        name: context.seeds[name] for name in question.systems if context.seeds.get(name, 0) > 1
    }
    same_seeds = None
    if len(seeds) == len(question.systems) and len(set(seeds.values())) == 1:
        count = next(iter(seeds.values()))
        same_seeds = {"count": count, "several": len(question.systems) > 1}
    return Statement(
        "opening",
        {
            "n_images": n_images,
            "unit": unit,
            "n_synthetic": context.n_synthetic,
            "all_synthetic": context.n_synthetic >= n_images or unit != "images",
            "seeds": seeds,
            "same_seeds": same_seeds,
        },
    )


def _headline(question: _Question, claims: list[Claim]) -> _Headline:
    undefined = [
        name
        for name in question.systems
        if not all(question.figures.get(name, *key).known for key in question.protocol.keys)
    ]
    if undefined:
        values = {
            "systems": undefined,
            "figures": question.figure_names,
            "threshold": {"policy": question.protocol.keys[0][1], "chosen_on": [], "unit": ""},
        }
        return _Headline(Statement("undefined", values), "unknown")
    if len(question.systems) == 1:
        return _single_headline(question)
    if question.protocol.partner:
        return _halves_headline(question, claims)
    if len(question.systems) == 2:
        return _pair_headline(question, claims[0])
    return _ranked_headline(question, claims)


def _single_headline(question: _Question) -> _Headline:
    name = question.systems[0]
    scores = [question.figures.get(name, *key) for key in question.protocol.keys]
    values = {
        **question.figure_values,
        "system": name,
        "scores": [
            {
                "estimate": score.estimate,
                "ci_low": score.ci_low,
                "ci_high": score.ci_high,
                "bounded": score.bounded,
            }
            for score in scores
        ],
    }
    return _Headline(Statement("single", values), "single")


def _pair_headline(question: _Question, claim: Claim) -> _Headline:
    values = {
        **question.figure_values,
        "values": claim.values,
        "difference": claim.difference_values,
    }
    systems = [claim.first, claim.second]
    if claim.standing == "first":
        values |= {"leader": claim.first, "other": claim.second, "label": "difference"}
        return _Headline(Statement("pair_higher", values), "decided")
    if claim.standing == "second":
        # The difference is not turned round, so it has the same sign as in the tables.
        values |= {
            "leader": claim.second,
            "other": claim.first,
            "values": claim.values[::-1],
            "label": f"{claim.first} − {claim.second}",
        }
        return _Headline(Statement("pair_higher", values), "decided")
    kind: HeadlineKind = "unknown" if claim.standing == "unknown" else "open"
    template = {"same": "pair_equal", "open": "pair_open", "unknown": "pair_unknown"}
    return _Headline(Statement(template[claim.standing], values | {"systems": systems}), kind)


def _ranked_headline(question: _Question, claims: list[Claim]) -> _Headline:
    """Name the system or systems with the highest figure, and the others that they exceed."""
    key = question.protocol.keys[0]
    scores = {name: question.figures.get(name, *key).estimate for name in question.systems}
    ranked = sorted(question.systems, key=lambda name: -scores[name])
    best = scores[ranked[0]]
    tops = [name for name in ranked if same(best, scores[name])]
    if len(tops) == len(ranked):
        values = {**question.figure_values, "systems": tops, "value": best}
        return _Headline(Statement("all_equal", values), "open")
    between = {frozenset((claim.first, claim.second)): claim.falling for claim in claims}
    comparisons = []
    for top in tops:
        against = [between[frozenset((top, name))] for name in ranked if name not in tops]
        comparisons.append(
            {
                "system": top,
                "exceeds": [(claim.second, claim.values[1]) for claim in against if claim.decided],
                "open": [(claim.second, claim.values[1]) for claim in against if not claim.decided],
            }
        )
    is_open = len(tops) > 1 or any(row["open"] for row in comparisons)
    values = {
        **question.figure_values,
        "tops": tops,
        "n_systems": len(ranked),
        "value": best,
        "comparisons": comparisons,
    }
    return _Headline(Statement("ranked", values), "open" if is_open else "decided")


def _halves_headline(question: _Question, claims: list[Claim]) -> _Headline:
    """Call a system better only if both of its primary figures were shown to be higher."""
    ahead: dict[str, list[str]] = {}
    for one, other in zip(claims[::2], claims[1::2], strict=True):
        if one.decided and one.leader == other.leader:
            loser = one.second if one.leader == one.first else one.first
            ahead.setdefault(one.leader, []).append(loser)
    values: dict[str, Any] = dict(question.figure_values)
    if len(question.systems) == 2:
        values |= {"systems": question.systems, **_group_values(claims)}
        if ahead:
            values["leader"] = next(iter(ahead))
            return _Headline(Statement("both_halves_shown", values), "decided")
        return _Headline(Statement("both_halves_open", values), "open")
    n_pairs = len(question.systems) * (len(question.systems) - 1) // 2
    is_open = n_pairs > sum(map(len, ahead.values()))
    values |= {"ahead": ahead, "others_open": is_open}
    return _Headline(Statement("halves_of_several", values), "open" if is_open else "decided")


def _group_values(claims: Sequence[Claim]) -> dict[str, Any]:
    """Return values for a sentence about several figures of one pair of systems.

    ``common_level`` is the coverage of the intervals if all have the same, and otherwise None.
    """
    levels = {claim.level for claim in claims if claim.difference.bounded}
    rows = [
        {
            "figure": METRICS[claim.metric].title_in_sentence,
            "pair": claim.values,
            "difference": claim.difference_values,
            "standing": claim.standing,
            "leader": claim.leader,
        }
        for claim in claims
    ]
    return {"rows": rows, "common_level": levels.pop() if len(levels) == 1 else None}


def _further_conclusions(question: _Question) -> list[Conclusion]:
    """Conclude about figures other than the primary one, with intervals that Holm widens."""
    reference = question.systems[0]
    claims: list[Claim] = []
    for metric in highlighted("verdict"):
        key = (metric, "max_f1" if "threshold" in METRICS[metric].needs else "")
        if key in question.protocol.keys:
            continue
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
    accuracy of a system without boxes.
    """
    primary = [key for key in question.protocol.keys if METRICS[key[0]].boxed]
    claims = []
    for name in question.systems:
        for key in (*primary, ("froc_mean", ""), ("pointing_accuracy", "")):
            baseline = image_blind_name(name)
            if question.figures.difference(name, baseline, *key).known:
                claims.append(Claim.from_estimates(question.figures, name, baseline, *key))
                break
    return claims


def _localises(question: _Question, claim: Claim) -> Conclusion:
    """Conclude whether a system localises lesions better than its image-blind baseline."""
    metric = METRICS[claim.metric]
    values = {
        "system": claim.first,
        "places": "constant boxes" if "boxes" in metric.needs else "a constant point",
        "figure": metric.title_in_sentence,
        "threshold": question.threshold([claim.first], claim.key),
        "values": claim.values,
        "difference": claim.difference_values,
        "standing": claim.standing,
    }
    is_primary = claim.key in question.protocol.keys
    return Conclusion(
        Statement("image_blind", values),
        "image_blind",
        (claim,),
        claim.decided,
        secondary=question.protocol.declared and not is_primary,
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
    further = [
        (metric, "max_f1" if "threshold" in METRICS[metric].needs else "")
        for metric in highlighted("verdict")
        if not METRICS[metric].partners  # one half alone is higher because of another threshold
    ]
    groups = [
        _joint_claims(question, joint, [key])
        for key in further
        if key not in question.protocol.keys
    ]
    groups = [group for group in groups if all(claim.difference.known for claim in group)]

    def widened(group: list[Claim], comparisons: int) -> list[Claim]:
        return [
            replace(claim, difference=claim.difference.within(comparisons), comparisons=comparisons)
            for claim in group
        ]

    sizes = step_down(
        len(groups), lambda index, size: _exceeds_all(widened(groups[index], size), joint)
    )
    families = [
        _joint_claims(question, joint, question.protocol.keys),
        *(widened(group, size) for group, size in zip(groups, sizes, strict=True)),
    ]
    secondary = question.protocol.declared
    return [
        _joint_conclusion(question, joint, family, secondary=secondary and position > 0)
        for position, family in enumerate(families)
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


def _joint_conclusion(
    question: _Question, joint: JointSystem, claims: list[Claim], *, secondary: bool
) -> Conclusion:
    shown = _exceeds_all(claims, joint)
    rows = [
        {
            "figure": METRICS[claim.metric].title_in_sentence,
            "value": claim.values[0],
            "member": claim.second,
            "of_member": claim.values[1],
            "difference": claim.difference_values,
        }
        for claim in claims
    ]
    values = {
        "joint": joint.name,
        "members": list(joint.members),
        "figures": list(dict.fromkeys(row["figure"] for row in rows)),
        "threshold": question.threshold(joint.members, claims[0].key),
        "rows": rows,
        "shown": shown,
    }
    return Conclusion(Statement("joint", values), "joint", tuple(claims), shown, secondary)


def _conclusion(
    question: _Question, group: Sequence[Claim], kind: ConclusionKind, *, secondary: bool = False
) -> Conclusion:
    claim = group[0]
    threshold = question.threshold([claim.first, claim.second], claim.key)
    if kind == "operating_point" or len(group) > 1:
        systems = [claim.first, claim.second]
        values = {"systems": systems, "threshold": threshold, **_group_values(group)}
        statement = Statement("pair_figures", values)
    else:
        falling = claim.falling
        values = {
            "figure": metric_title(claim.metric),
            "threshold": threshold,
            "systems": [falling.first, falling.second],
            "values": falling.values,
            "difference": falling.difference_values,
            "standing": falling.standing,
            "map_boxes": _systems_with_map_boxes(question.figures, claim),
        }
        statement = Statement("pair_figure", values)
    decided = any(member.decided for member in group)
    return Conclusion(statement, kind, tuple(group), decided, secondary)


def _systems_with_map_boxes(figures: Figures, claim: Claim) -> list[str]:
    """Return the systems whose boxes are cut out of activation maps, for a claim about boxes."""
    if not METRICS[claim.metric].boxed:
        return []
    systems = []
    for name in (claim.first, claim.second):
        figure = figures.get(name, *claim.key)
        if MAP_CUT in (*figure.fixed_choices, *figure.refitted_choices):
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
            difference = claim.difference.within(contrasts)
            claim = replace(claim, difference=difference, comparisons=contrasts)
            figure = METRICS[metric].title_in_sentence
            if policy:
                figure += f" at the threshold for {policy_text(policy)}"
            statement = margin_statement(reference, other, figure, difference, margin, contrasts)
            decided = against_margin(difference, margin) not in ("open", "unknown")
            conclusions.append(Conclusion(statement, "margin", (claim,), decided))
    return conclusions


def _scope(
    question: _Question,
    tests: PairTests,
    context: AnswerContext,
    claims: Sequence[Claim],
    conclusions: Sequence[Conclusion],
) -> list[ScopePart]:
    """State the limits of the answer, and how its intervals were widened."""
    parts = [
        _training_scope(question.systems, context),
        _analysis_scope(question, tests, claims, conclusions),
        _power_scope(question, tests, claims),
    ]
    return [part for part in parts if part.statements]


def _training_scope(systems: Sequence[str], context: AnswerContext) -> ScopePart:
    """State which training runs the answer is about."""
    originals = {
        name: original for name, original in context.same_training.items() if name in systems
    }
    trained = [name for name in systems if name not in originals]
    counts = {context.seeds.get(name) for name in trained}
    n_runs = counts.pop() if len(counts) == 1 else None
    brief = Statement("brief_training", {"n_runs": n_runs, "n_systems": len(trained)})
    statements = [
        *_training_statements(trained, context),
        *(
            Statement("same_training", {"system": name, "original": original})
            for name, original in originals.items()
        ),
    ]
    if context.unequal:
        statements.append(Statement("unequal_conditions", {"conditions": context.unequal}))
    return ScopePart(brief, tuple(statements))


def _training_statements(systems: list[str], context: AnswerContext) -> Iterator[Statement]:
    once = [name for name in systems if context.seeds.get(name) == 1]
    several = {name: context.seeds[name] for name in systems if context.seeds.get(name, 0) > 1}
    unknown = [name for name in systems if name not in context.seeds]
    if len(once) == len(systems):
        yield Statement("one_run_each", {"n_systems": len(systems)})
    elif once:
        yield Statement("one_run_of", {"systems": once})
    if several:
        yield Statement("several_runs", {"seeds": several})
    if unknown:
        yield Statement("unknown_runs", {"systems": unknown})


def _analysis_scope(
    question: _Question,
    tests: PairTests,
    claims: Sequence[Claim],
    conclusions: Sequence[Conclusion],
) -> ScopePart:
    """State if a protocol was given, and how the intervals were computed."""
    protocol = question.protocol
    mentioned = [
        claim
        for conclusion in conclusions
        if conclusion.kind not in ("margin", "joint")
        for claim in conclusion.claims
    ]
    below = [claim for claim in mentioned if claim not in claims]
    kind = "exploratory" if tests.known else "untested"
    if protocol.declared:
        kind = "protocol_given"
    statements = []
    if kind == "protocol_given":
        statements.append(_protocol_statement(protocol))
    elif kind == "exploratory":
        statements.append(Statement("exploratory"))
    families = {"answer": _n_bounded(claims), "findings": _n_bounded(below)}
    families = {name: size for name, size in families.items() if size > 1}
    if families:
        statements.append(Statement("widened", {"families": families}))
    if any(claim.difference.refitted for claim in mentioned):
        statements.append(Statement("threshold_uncertainty"))
    if any(conclusion.secondary for conclusion in conclusions):
        statements.append(Statement("secondary_findings"))
    return ScopePart(Statement("brief_analysis", {"analysis": kind}), tuple(statements))


def _n_bounded(claims: Sequence[Claim]) -> int:
    return sum(claim.difference.bounded for claim in claims)


def _protocol_statement(protocol: Protocol) -> Statement:
    """State that a file fixed the question, and which question it is."""
    return Statement(
        "protocol_given",
        {
            "figures": [METRICS[metric].title_in_sentence for metric in protocol.metrics],
            "threshold": {"policy": protocol.keys[0][1], "chosen_on": [], "unit": ""},
            "margin": protocol.margin,
            "subgroups": list(protocol.subgroups),
        },
    )


def _power_scope(question: _Question, tests: PairTests, claims: Sequence[Claim]) -> ScopePart:
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
    statements = []
    differences: list[float] = []
    for metric, policy in question.protocol.keys:
        reaches = {}
        for other in others:
            reach = tests.detectable(reference, other, (metric, policy))
            if reach is None:
                continue
            value = reach + extra_widths.get((reference, other, metric), 0.0)
            pair = [reference, other] if len(question.systems) > 2 else []
            reaches[other] = {"value": value, "pair": pair}
            differences.append(value)
        if reaches:
            values = {
                "figure": METRICS[metric].title_in_sentence,
                "threshold": {"policy": policy, "chosen_on": [], "unit": ""},
                "reaches": reaches,
                "level": _ERROR / size,
            }
            statements.append(Statement("power", values))
    brief = Statement("brief_power", {"reach": max(differences, default=None)})
    return ScopePart(brief, tuple(statements))
