"""Compare systems on the same test images: every figure, its interval, and every difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.tables import InputError
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.compare.baselines import shortcut_rows
from evaluation.compare.by_unit import Judges, unit_metrics
from evaluation.compare.comparison import Comparison
from evaluation.compare.decisions_table import decisions_table
from evaluation.compare.failure_analysis import main_policy, where_each_fails
from evaluation.compare.failures import failures_as_wrong
from evaluation.compare.judged_model import JudgedModel
from evaluation.compare.lesion_contrast import lesion_contrast, open_largest_store
from evaluation.compare.metrics_table import resampled_table
from evaluation.compare.origins import comparison_provenance
from evaluation.compare.paired_tests import paired_tests, with_clustered_auroc
from evaluation.compare.primary import require_primary
from evaluation.compare.protocol import EXPLORATORY, Protocol
from evaluation.compare.scorecard import Scorecard
from evaluation.compare.seeds import by_system, members_of
from evaluation.compare.subgroups import image_groups
from evaluation.compare.usefulness import check_prevalence
from evaluation.decisions.system_output import Evidence
from evaluation.decisions.thresholds import POLICIES
from evaluation.decisions.tuning import Decision, checked_decision
from evaluation.decisions.tuning_record import validation_scores
from evaluation.decisions.units import Unit
from evaluation.metrics.evaluation_set import JudgedImages
from evaluation.statistics.bootstrap import Resamples
from evaluation.statistics.ranking import Floats, curves
from evaluation.systems.eligibility import Images, judged_images
from evaluation.systems.exposure import learned_validation

__all__ = ["Comparison", "checked_decision", "compare_systems"]


def compare_systems(
    systems: Mapping[str, Predictions | Sequence[Predictions]],
    dataset: DataSet,
    target: Target,
    *,
    split: str = "default",
    images: Images = "all",
    policies: Sequence[str] = POLICIES,
    replicates: int = 2000,
    seed: int = 0,
    protocol: Protocol = EXPLORATORY,
    prevalence: float | None = None,
    unit: Unit = "image",
    extra_policies: Sequence[str] = (),
    advance: Callable[[int], None] | None = None,
) -> Comparison:
    """Score systems on the same test images, with paired patient-cluster bootstrap intervals.

    Each system's decision is derived again from its validation images; one that `cxr tune` has
    stored must agree with it.

    Args:
        systems: Predictions by display name, in the order to show them, the reference system
            first; several training seeds of one system as a sequence.
        dataset: Labels, boxes and split.
        target: What is judged.
        split: Name of the split.
        images: ``all`` refuses systems that ran on different test images; ``common`` takes the
            images that all ran on.
        policies: Policies for systems that are not tuned yet.
        replicates: Bootstrap resamples.
        seed: Of the resamples.
        protocol: The question: primary figure, margin, reference system, subgroups.
        prevalence: Of positives where the systems will be used, for PPV and NPV there.
        unit: ``study`` or ``patient``: the image-level figures by these, too.
        extra_policies: Policies beside those that systems are tuned for.
        advance: Called with the number of replicates done in each step.

    Returns:
        The comparison.

    Raises:
        InputError: The systems' images differ, a decision was chosen on other rows than the
            validation rows at hand, a system has seen test patients, or one lacks the figure that
            a protocol named.
    """
    if not systems:
        raise InputError("compare needs at least one system")
    systems = {name: systems[name] for name in protocol.in_order(systems)}
    policies = tuple(dict.fromkeys((*policies, *filter(None, [protocol.policy]))))
    unit = protocol.unit_of(unit)
    check_prevalence(prevalence)
    image_groups(dataset.images, protocol.subgroups)  # refuses what is no column, before the work
    members, teams = members_of(systems)
    judged, notes = judged_images(members, dataset, target, split=split, images=images)
    wanted = _Wanted(dataset, target, split, policies, tuple(extra_policies), protocol)
    judges, cards, told = _judge(members, teams, judged, wanted)
    require_primary(protocol, cards)
    resamples = Resamples(judged.n_patients, replicates, seed, protocol.interval)
    metrics, drawn = resampled_table(target.name, cards, teams, resamples, advance=advance)
    of_units, told_of_units, tests_of_units = _by_unit(judges, judged, wanted, unit, resamples)
    where = _where(judges, cards, judged, wanted, prevalence, resamples)
    grouped = by_system(cards, teams)
    tests = paired_tests(target.name, grouped, metrics, drawn, tests_of_units)
    metrics = with_clustered_auroc(metrics, tests, teams)
    failed = failures_as_wrong(
        metrics, members, teams, judges.decisions, dataset, target, split, resamples
    )
    provenance = comparison_provenance(members, teams, dataset, judges.decisions, split, resamples)
    return Comparison(
        target=target,
        systems=list(systems),
        metrics=pd.concat([metrics, failed], ignore_index=True),
        tests=tests,
        where=where,
        notes=[*notes, *told, *told_of_units, *_seed_notes(teams)],
        provenance=provenance | {"protocol": protocol.to_json()},
        protocol=protocol,
        by_unit=of_units,
        **_pictures(judges, cards, wanted),
    )


@dataclass(frozen=True)
class _Wanted:
    """What every system is judged on, and how."""

    dataset: DataSet
    target: Target
    split: str
    policies: tuple[str, ...]
    extra_policies: tuple[str, ...]
    protocol: Protocol


def _judge(
    members: Mapping[str, Predictions],
    teams: Mapping[str, list[str]],
    judged: JudgedImages,
    wanted: _Wanted,
) -> tuple[Judges, dict[str, Scorecard], list[str]]:
    """Every trained model's decision, evidence and scorecard, and notes."""
    decisions: dict[str, Decision] = {}
    evidence: dict[str, Evidence] = {}
    cards: dict[str, Scorecard] = {}
    notes: list[str] = []
    dataset, target, policy = wanted.dataset, wanted.target, wanted.protocol.policy
    for name, system in members.items():
        decision, told = checked_decision(
            name, system, dataset, target, wanted.split, wanted.policies, wanted.extra_policies
        )
        notes += told
        notes += learned_validation(name, system, dataset, target, wanted.split)
        if policy and policy not in decision.thresholds:
            raise InputError(
                f"{system.folder}: the protocol asks for policy '{policy}', {name} is "
                f"tuned for {', '.join(decision.thresholds)}; run cxr tune again with it"
            )
        decisions[name] = decision
        evidence[name] = Evidence(system, target, judged.image_ids, decision.boxes, dataset.images)
        cards[name] = _scorecard(evidence[name], decision, judged)
    return Judges(members, teams, decisions, evidence), cards, notes


def _by_unit(
    judges: Judges, judged: JudgedImages, wanted: _Wanted, unit: Unit, resamples: Resamples
) -> tuple[pd.DataFrame | None, list[str], pd.DataFrame | None]:
    """The figures by study or patient, notes and tests; nothing where images are the unit."""
    if unit == "image":
        return None, [], None
    return unit_metrics(
        judges,
        judged,
        wanted.dataset,
        wanted.target,
        split=wanted.split,
        unit=unit,
        resamples=resamples,
    )


def _where(
    judges: Judges,
    cards: Mapping[str, Scorecard],
    judged: JudgedImages,
    wanted: _Wanted,
    prevalence: float | None,
    resamples: Resamples,
) -> pd.DataFrame:
    """Where each system fails, with the shortcut baseline beside."""
    dataset, protocol = wanted.dataset, wanted.protocol
    store = open_largest_store(dataset)
    thresholds = list(next(iter(cards.values())).thresholds)
    table = where_each_fails(
        {
            name: [JudgedModel.of(cards[model], judges.decisions[model]) for model in models]
            for name, models in judges.teams.items()
        },
        dataset.images,
        resamples,
        policy=main_policy(thresholds, protocol.policy),
        subgroups=protocol.subgroups,
        prevalence=prevalence,
        contrast=None if store is None else lesion_contrast(judged.truth, store),
    )
    return pd.concat([table, shortcut_rows(dataset, wanted.target, judged)], ignore_index=True)


def _seed_notes(teams: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"Figures of {name} are means over {len(models)} training seeds; its curves, confusion "
        "matrices and pictures are those of the first."
        for name, models in teams.items()
        if len(models) > 1
    ]


def _pictures(judges: Judges, cards: Mapping[str, Scorecard], wanted: _Wanted) -> dict[str, Any]:
    """What is drawn or listed by image, of each system's first seed, as `Comparison` has it."""
    shown = {name: models[0] for name, models in judges.teams.items()}
    card = {name: cards[model] for name, model in shown.items()}
    decision = {name: judges.decisions[model] for name, model in shown.items()}
    evidence = {name: judges.evidence[model] for name, model in shown.items()}
    info = {name: judges.systems[model].info for name, model in shown.items()}
    return {
        "decisions": decisions_table(card, decision, wanted.dataset),
        "thresholds": {
            name: {policy: choice.threshold for policy, choice in each.thresholds.items()}
            for name, each in card.items()
        },
        "curves": {name: curves(each.judged.y_true, each.scores) for name, each in card.items()},
        "confusion": _confusion(card),
        "boxes": {name: each.boxes for name, each in card.items() if each.boxes is not None},
        "maps": {n: None if each.gives_boxes else each.maps for n, each in evidence.items()},
        "map_scale": {n: d.map_scale for n, d in decision.items() if d.map_scale is not None},
        "costs": {name: dict(each.get("cost") or {}) for name, each in info.items()},
        "validation": {
            name: validation_scores(
                judges.systems[model], decision[name], wanted.dataset, wanted.target, wanted.split
            )
            for name, model in shown.items()
        },
        "froc": {name: each.froc() for name, each in card.items() if each.boxes is not None},
        "coverage": {
            name: {policy: left.curve() for policy, left in each.referred.items()}
            for name, each in card.items()
        },
    }


def _scorecard(evidence: Evidence, decision: Decision, judged: JudgedImages) -> Scorecard:
    scores = evidence.scores(decision.reduction)
    boxes = evidence.boxes(scores, decision.map_scale, decision.map_boxes)
    return Scorecard(
        judged,
        scores,
        decision.thresholds,
        evidence.points(),
        boxes,
        decision.box_cut,
        decision.probability(scores),
        decision.referral,
        _spread(evidence) if decision.referral else None,
    )


def _spread(evidence: Evidence) -> Floats | None:
    spread = evidence.spread()
    return None if spread is None else spread.to_numpy(dtype=np.float64)


def _confusion(cards: Mapping[str, Scorecard]) -> dict[tuple[str, str], dict[str, int]]:
    return {
        (name, policy): counts
        for name, card in cards.items()
        for policy in card.thresholds
        if (counts := card.confusion(policy)) is not None
    }
