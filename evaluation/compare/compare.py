"""Compare systems on the same test images: every figure, its interval, and every difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import provenance
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.compare.baselines import failures_as_wrong, shortcut_rows
from evaluation.compare.comparison import Comparison, SystemResult
from evaluation.compare.failure_analysis import main_policy, where_each_fails
from evaluation.compare.metrics_table import resampled_table
from evaluation.compare.paired_tests import paired_tests, resampled_tests, with_clustered_auroc
from evaluation.compare.protocol import EXPLORATORY, Protocol, require_primary
from evaluation.compare.scorecard import JudgedModel, Scorecard
from evaluation.compare.seeds import by_system, members_of
from evaluation.compare.shares import check_prevalence
from evaluation.compare.subgroups import image_groups
from evaluation.decisions.search import Search
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.thresholds import POLICIES
from evaluation.decisions.tuning import Decision, checked_decision, tune, validation_scores
from evaluation.decisions.units import Unit, Units, gather, judged_units
from evaluation.metrics.evaluation_set import ALL, JudgedImages, Note
from evaluation.statistics.bootstrap import Resamples
from evaluation.statistics.ranking import Floats, curves
from evaluation.systems.eligibility import Images, judged_images, learned_validation, trained_on


@dataclass(frozen=True)
class Judges:
    """What an image comparison has at hand of each trained model.

    Attributes:
        systems: Predictions by the model's name.
        teams: The models of each system, one per training seed.
        decisions: What validation chose for each model, on images.
        evidence: What each model says of the judged images.
    """

    systems: Mapping[str, Predictions]
    teams: Mapping[str, list[str]]
    decisions: Mapping[str, Decision]
    evidence: Mapping[str, SystemOutput]


def unit_metrics(
    judges: Judges,
    judged: JudgedImages,
    dataset: DataSet,
    target: Target,
    *,
    split: str,
    unit: Unit,
    resamples: Resamples,
    advance: Callable[[int], None] | None = None,
) -> tuple[pd.DataFrame, list[Note], pd.DataFrame]:
    """Every image-level figure by study or patient, on the same resamples of patients.

    Args:
        judges: The models.
        judged: The images that they were compared on.
        dataset: Labels, split, and whose image is whose.
        target: What is judged.
        split: Name of the split.
        unit: ``study`` or ``patient``.
        resamples: Those of the comparison by image.
        advance: Called with the number of replicates done in each step.

    Returns:
        A table as `metrics_table` gives it, its ``n_images`` counting units,
        notes, and the bootstrap's tests of its differences.

    Raises:
        InputError: Studies are asked for and an image has none.
    """
    labels = dataset.labels(target).reindex(dataset.image_ids("test", split))
    units = gather(dataset.images, labels, judged.image_ids, unit)
    whole = judged_units(judged, units)
    cards = {
        name: _card(name, judges, units, whole, dataset, target, split, unit)
        for name in judges.systems
    }
    table, drawn = resampled_table(target.name, cards, judges.teams, resamples, advance=advance)
    grouped = by_system(cards, judges.teams)
    # What needs a place has no row by unit, not even one that says why.
    told = {figure.metric for card in cards.values() for figure in card.estimates()}
    table = table[table["metric"].isin(told | _asked(cards))].assign(unit=unit)
    tests = resampled_tests(table, list(judges.teams), drawn)
    table = pd.concat([table, _thresholds(table, grouped)], ignore_index=True)
    return table, _notes(units, whole, judged, unit), tests


def _thresholds(table: pd.DataFrame, grouped: Mapping[str, list[Scorecard]]) -> pd.DataFrame:
    """Rows that tell the thresholds, which are not those by image; of several seeds the first's."""
    row = table.iloc[0].to_dict() | {
        "subgroup": ALL, "metric": "threshold", "ci_low": np.nan, "ci_high": np.nan,
        "ci_method": "", "note": "",
    }  # fmt: skip
    rows = [
        row | {"system": name, "policy": policy, "estimate": choice.threshold}
        for name, cards in grouped.items()
        for policy, choice in cards[0].thresholds.items()
        if choice.threshold is not None
    ]
    return pd.DataFrame(rows, columns=table.columns)


def _card(
    name: str,
    judges: Judges,
    units: Units,
    whole: JudgedImages,
    dataset: DataSet,
    target: Target,
    split: str,
    unit: Unit,
) -> Scorecard:
    chosen, evidence = judges.decisions[name], judges.evidence[name]
    rule = tune(
        judges.systems[name],
        dataset,
        target,
        split=split,
        policies=list(chosen.thresholds),
        search=Search.from_json(chosen.search),
        options=chosen.options,
        unit=unit,
    )
    scores = pd.Series(units.highest(evidence.scores(chosen.reduction)), units.names)
    spread = evidence.spread() if rule.referral else None
    return Scorecard(
        whole,
        scores,
        rule.thresholds,
        None,
        None,
        probability=rule.probability(scores),
        referrals=rule.referral,
        spread=None if spread is None else units.highest(spread),
    )


def _asked(cards: Mapping[str, Scorecard]) -> set[str]:
    """Figures that some system lacks for want of a threshold or a cut."""
    return {
        figure.metric
        for card in cards.values()
        for figure in card.missing()
        if figure.policy and figure.metric != "localised_sensitivity"
    }


def _notes(units: Units, whole: JudgedImages, judged: JudgedImages, unit: Unit) -> list[Note]:
    plural = {"study": "studies", "patient": "patients"}[unit]
    note = (
        f"By {unit}: {len(units.names):,} {plural} of {len(judged.image_ids):,} images, "
        f"{int(whole.y_true.sum()):,} positive (where any image is); the score is the highest of "
        f"its images, and thresholds are chosen again on validation {plural}."
    )
    left = f" {units.n_left_out:,} {plural} with an image of unknown label are left out."
    return [Note("unit", note + left if units.n_left_out else note)]


def decisions_table(
    cards: Mapping[str, Scorecard], decisions: Mapping[str, Decision], dataset: DataSet
) -> pd.DataFrame:
    """One row per image and system, systems in order, images sorted.

    Args:
        cards: Scorecard per system.
        decisions: What each was judged by.
        dataset: Names each image's patient.

    Returns:
        As `Comparison.decisions`.
    """
    frames = []
    for name, card in cards.items():
        judged, platt = card.judged, decisions[name].calibration
        frame = pd.DataFrame({"image_id": judged.image_ids.to_numpy(), "system": name})
        frame["label"] = judged.y_true.astype(np.float64)
        frame["score"] = card.scores
        frame["probability"] = np.nan if platt is None else platt.probability(card.scores)
        for policy in card.thresholds:
            called = card.called(policy)
            column = pd.array([pd.NA] * len(frame) if called is None else called, dtype="boolean")
            frame[f"decision_{policy}"] = column
            left = card.referred.get(policy)
            if left is not None and left.referred is not None:
                frame[f"referred_{policy}"] = pd.array(left.referred, dtype="boolean")
        points = np.full((len(frame), 2), np.nan) if card.points is None else card.points
        frame[["point_x", "point_y"]] = np.asarray(points, dtype=np.float64)
        frame["localised"] = _localised_column(card)
        if judged.x_class is not None:
            frame["x_class"] = judged.x_class.to_numpy()
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    return table.merge(dataset.images[["image_id", "patient_id"]], on="image_id", how="left")


def _localised_column(card: Scorecard) -> pd.Series:
    """Right place or not, known only for positive images whose boxes are trusted."""
    judged = card.judged
    column = pd.Series(pd.array([pd.NA] * len(judged.image_ids), dtype="boolean"))
    if card.localised is not None:
        asked = judged.y_true & judged.boxes_trusted
        column[asked] = card.localised[asked]
    return column


_RECORDED = (
    "system", "seed", "kind", "inference_id", "maps", "command", "created", "revision", "versions",
)  # fmt: skip


def comparison_provenance(
    members: Mapping[str, Predictions],
    teams: Mapping[str, list[str]],
    dataset: DataSet,
    decisions: Mapping[str, Decision],
    split: str,
    resamples: Resamples,
) -> dict[str, Any]:
    """Ids, seeds, versions and what each system was trained on.

    Args:
        members: Predictions by model.
        teams: The models of each system.
        dataset: The data set judged on.
        decisions: By model.
        split: Name of the split.
        resamples: Of the bootstrap.

    Returns:
        As `Comparison.provenance`.
    """
    facts = {
        name: {
            "folder": str(system.folder),
            **{key: system.info.get(key) for key in _RECORDED},
            "trained_on": trained_on(system),
            "decision": decisions[name].to_json(),
        }
        for name, system in members.items()
    }
    seeds = {
        name: facts[models[0]]["seed"] if len(models) == 1 else [facts[m]["seed"] for m in models]
        for name, models in teams.items()
    }
    return provenance() | {
        "data_set": {"name": dataset.name, **dataset.ids, "split": split},
        "bootstrap": {
            "replicates": resamples.n_replicates,
            "seed": resamples.seed,
            "interval": "percentile",
        },
        "seeds": seeds,
        "systems": {
            name: facts[models[0]]
            | {"seed": seeds[name]}
            | ({"models": [facts[m] for m in models]} if len(models) > 1 else {})
            for name, models in teams.items()
        },
    }


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
    resamples = Resamples(judged.n_patients, replicates, seed)
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
        systems=_results(judges, cards, wanted),
        decisions=_shown_decisions(judges, cards, dataset),
        metrics=pd.concat([metrics, failed], ignore_index=True),
        tests=tests,
        where=where,
        notes=[*notes, *told, *told_of_units, *_seed_notes(teams)],
        provenance=provenance | {"protocol": protocol.to_json()},
        protocol=protocol,
        by_unit=of_units,
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
) -> tuple[Judges, dict[str, Scorecard], list[Note]]:
    """Every trained model's decision, evidence and scorecard, and notes."""
    decisions: dict[str, Decision] = {}
    evidence: dict[str, SystemOutput] = {}
    cards: dict[str, Scorecard] = {}
    notes: list[Note] = []
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
        evidence[name] = SystemOutput(
            system, target, judged.image_ids, decision.boxes, dataset.images
        )
        cards[name] = _scorecard(evidence[name], decision, judged)
    return Judges(members, teams, decisions, evidence), cards, notes


def _by_unit(
    judges: Judges, judged: JudgedImages, wanted: _Wanted, unit: Unit, resamples: Resamples
) -> tuple[pd.DataFrame | None, list[Note], pd.DataFrame | None]:
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
    )
    return pd.concat([table, shortcut_rows(dataset, wanted.target, judged)], ignore_index=True)


def _seed_notes(teams: Mapping[str, Sequence[str]]) -> list[Note]:
    return [
        Note(
            "seeds",
            f"Figures of {name} are means over {len(models)} training seeds; its curves, "
            "confusion matrices and pictures are those of the first.",
        )
        for name, models in teams.items()
        if len(models) > 1
    ]


def _shown_decisions(
    judges: Judges, cards: Mapping[str, Scorecard], dataset: DataSet
) -> pd.DataFrame:
    """The decisions table of each system's first seed."""
    first = {name: models[0] for name, models in judges.teams.items()}
    return decisions_table(
        {name: cards[model] for name, model in first.items()},
        {name: judges.decisions[model] for name, model in first.items()},
        dataset,
    )


def _results(
    judges: Judges, cards: Mapping[str, Scorecard], wanted: _Wanted
) -> dict[str, SystemResult]:
    """What is drawn or listed of each system, from its first seed."""
    return {
        name: _result(models[0], judges, cards, wanted) for name, models in judges.teams.items()
    }


def _result(
    model: str, judges: Judges, cards: Mapping[str, Scorecard], wanted: _Wanted
) -> SystemResult:
    card, decision, output = cards[model], judges.decisions[model], judges.evidence[model]
    system = judges.systems[model]
    return SystemResult(
        thresholds={policy: choice.threshold for policy, choice in card.thresholds.items()},
        curve=curves(card.judged.y_true, card.scores),
        confusion={
            policy: counts
            for policy in card.thresholds
            if (counts := card.confusion(policy)) is not None
        },
        boxes=card.boxes,
        maps=None if output.gives_boxes else output.maps,
        map_scale=decision.map_scale,
        cost=dict(system.info.get("cost") or {}),
        froc=card.froc(),
        coverage={policy: left.curve() for policy, left in card.referred.items()},
        validation=validation_scores(system, decision, wanted.dataset, wanted.target, wanted.split),
    )


def _scorecard(evidence: SystemOutput, decision: Decision, judged: JudgedImages) -> Scorecard:
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


def _spread(evidence: SystemOutput) -> Floats | None:
    spread = evidence.spread()
    return None if spread is None else spread.to_numpy(dtype=np.float64)
