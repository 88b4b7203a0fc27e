"""Compare systems on the same test images: every figure, its interval, and every difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from data_prep.dataset import DataSet, Target
from data_prep.predictions import Predictions
from data_prep.tables import InputError
from evaluation.bootstrap import Resamples
from evaluation.by_unit import Judges, unit_metrics
from evaluation.comparison import Comparison
from evaluation.contrasts import paired_tests, with_clustered_auroc
from evaluation.decision import CHOSEN_ON, Decision, decision_ids, tune
from evaluation.decisions_table import decisions_table
from evaluation.evidence import Evidence
from evaluation.failures import failures_as_wrong
from evaluation.groups import image_groups
from evaluation.lesion_contrast import lesion_contrast, open_largest_store
from evaluation.lineup import Images, judged_images
from evaluation.origins import comparison_provenance
from evaluation.protocol import EXPLORATORY, Protocol
from evaluation.ranking import Floats, curves
from evaluation.scorecard import JudgedImages, Scorecard
from evaluation.search_space import Search
from evaluation.seeds import by_system, members_of
from evaluation.shortcut import shortcut_rows
from evaluation.summary import resampled_table
from evaluation.thresholds import POLICIES
from evaluation.units import Unit
from evaluation.usefulness import check_prevalence
from evaluation.where import Judged, main_policy, where_each_fails

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
            validation rows at hand, or a system has seen test patients.
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
    decisions: dict[str, Decision] = {}
    evidence: dict[str, Evidence] = {}
    cards: dict[str, Scorecard] = {}
    for name, system in members.items():
        decisions[name], new_notes = checked_decision(
            name, system, dataset, target, split, policies, extra_policies
        )
        notes += new_notes
        boxes = decisions[name].boxes
        evidence[name] = Evidence(system, target, judged.image_ids, boxes, dataset.images)
        if protocol.policy and protocol.policy not in decisions[name].thresholds:
            raise InputError(
                f"{system.folder}: the protocol asks for policy '{protocol.policy}', {name} is "
                f"tuned for {', '.join(decisions[name].thresholds)}; run cxr tune again with it"
            )
        cards[name] = _scorecard(evidence[name], decisions[name], judged)
    resamples = Resamples(judged.n_patients, replicates, seed, protocol.interval)
    metrics = resampled_table(target.name, cards, teams, resamples, advance=advance)
    grouped = by_system(cards, teams)
    of_units = None
    if unit != "image":
        judges = Judges(members, teams, decisions, evidence)
        of_units, new_notes = unit_metrics(
            judges, judged, dataset, target, split=split, unit=unit, resamples=resamples
        )
        notes += new_notes
    store = open_largest_store(dataset)
    where = where_each_fails(
        {name: [Judged.of(cards[m], decisions[m]) for m in teams[name]] for name in teams},
        dataset.images,
        resamples,
        policy=main_policy(list(next(iter(cards.values())).thresholds), protocol.policy),
        subgroups=protocol.subgroups,
        prevalence=prevalence,
        contrast=None if store is None else lesion_contrast(judged.truth, store),
    )
    tests = paired_tests(target.name, grouped, metrics)
    metrics = with_clustered_auroc(metrics, tests, teams)
    failed = failures_as_wrong(
        metrics, members, teams, decisions, dataset, target, split, resamples
    )
    shown = {name: models[0] for name, models in teams.items()}
    notes += [
        f"Figures of {name} are means over {len(models)} training seeds; its curves, confusion "
        "matrices and pictures are those of the first."
        for name, models in teams.items()
        if len(models) > 1
    ]
    of_first = {name: cards[model] for name, model in shown.items()}
    first_decisions = {name: decisions[model] for name, model in shown.items()}
    return Comparison(
        target=target,
        systems=list(systems),
        metrics=pd.concat([metrics, failed], ignore_index=True),
        tests=tests,
        where=pd.concat([where, shortcut_rows(dataset, target, judged)], ignore_index=True),
        decisions=decisions_table(of_first, first_decisions, dataset),
        thresholds={
            name: {policy: choice.threshold for policy, choice in card.thresholds.items()}
            for name, card in of_first.items()
        },
        curves={name: curves(judged.y_true, card.scores) for name, card in of_first.items()},
        confusion=_confusion(of_first),
        boxes={name: card.boxes for name, card in of_first.items() if card.boxes is not None},
        maps={
            name: None if (e := evidence[model]).gives_boxes else e.maps
            for name, model in shown.items()
        },
        map_scale={n: d.map_scale for n, d in first_decisions.items() if d.map_scale is not None},
        costs={name: dict(members[model].info.get("cost") or {}) for name, model in shown.items()},
        notes=notes,
        provenance=comparison_provenance(members, teams, dataset, decisions, split, resamples)
        | {"protocol": protocol.to_json()},
        protocol=protocol,
        by_unit=of_units,
        coverage={
            name: {policy: left.curve() for policy, left in card.referred.items()}
            for name, card in of_first.items()
        },
    )


def checked_decision(
    name: str,
    system: Predictions,
    dataset: DataSet,
    target: Target,
    split: str,
    policies: Sequence[str],
    extra_policies: Sequence[str] = (),
) -> tuple[Decision, list[str]]:
    """A system's decision, derived from its validation rows and held against the stored one.

    Args:
        name: Display name, for messages.
        system: Its predictions.
        dataset: Labels and split.
        target: What is judged.
        split: Name of the split.
        policies: Used where no decision is stored.
        extra_policies: Used in any case.

    Returns:
        The decision and notes on it.

    Raises:
        InputError: The stored decision was chosen on something else, or differs.
    """
    payload = system.decision(target.name)
    if payload is None:
        wanted = list(dict.fromkeys((*policies, *extra_policies)))
        derived = tune(system, dataset, target, split=split, policies=wanted)
        if not derived.chosen_on["n_images"]:
            given = any(choice.threshold is not None for choice in derived.thresholds.values())
            kind = (
                "threshold-free figures, and declared thresholds,"
                if given
                else ("threshold-free figures")
            )
            return derived, [f"{name} has no validation images: {kind} only."]
        return derived, [f"{name} was not tuned before: its decision is derived here."]
    stored = Decision.from_json(payload)
    here = decision_ids(system, dataset, split)
    for key in CHOSEN_ON:
        if stored.chosen_on.get(key) != here[key]:
            raise InputError(
                f"{system.folder}: the decision of {name} was chosen with {key} "
                f"{stored.chosen_on.get(key)}, here it is {here[key]}; run cxr tune again"
            )
    derived = tune(
        system,
        dataset,
        target,
        split=split,
        policies=list(dict.fromkeys((*stored.thresholds, *extra_policies))),
        search=Search.from_json(stored.search),
        asked=stored.asked,
    )
    changed = stored.difference(derived)
    if changed:
        raise InputError(
            f"{system.folder}: the decision of {name} is not what its validation images give "
            f"({changed}); run cxr tune again"
        )
    return derived, []  # it agrees, and tells what an older program did not tell yet


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
