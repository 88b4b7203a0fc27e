"""Compare systems on the same test images: every figure, its interval, and every difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.compare.background import Background
from cxr_compare.evaluation.compare.cautions import few_patients
from cxr_compare.evaluation.compare.common_images import Images, common_test_images
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.evaluated_models import (
    Models,
    evaluate_by_unit,
    evaluate_models,
    scorecards_of,
    with_uncounted_images,
)
from cxr_compare.evaluation.compare.failure_analysis import failure_table
from cxr_compare.evaluation.compare.goals import GoalResult
from cxr_compare.evaluation.compare.intervals import resampled_figures
from cxr_compare.evaluation.compare.paired_tests import (
    paired_tests,
    seed_parts,
    with_clustered_auroc,
)
from cxr_compare.evaluation.compare.prevalence import Prevalence
from cxr_compare.evaluation.compare.protocol import EXPLORATORY, Protocol
from cxr_compare.evaluation.compare.reference_check import (
    LabelledScores,
    with_corrected_figures,
)
from cxr_compare.evaluation.compare.sentences import note
from cxr_compare.evaluation.compare.system_result import SystemResult
from cxr_compare.evaluation.decisions.box_choice import BOXES_BY, choosing_figures
from cxr_compare.evaluation.decisions.ground_truth import GroundTruth
from cxr_compare.evaluation.decisions.subgroups import image_groups
from cxr_compare.evaluation.decisions.system_output import System
from cxr_compare.evaluation.decisions.thresholds import POLICIES
from cxr_compare.evaluation.decisions.units import Unit
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.clustered_auroc import AurocParts
from cxr_compare.evaluation.statistics.reference_error import ReferenceAccuracy


def compare_systems(  # noqa: PLR0913 - options of cxr compare
    systems: Mapping[str, System | Sequence[System]],
    truth: GroundTruth,
    *,
    images: Images = "all",
    policies: Sequence[str] = POLICIES,
    replicates: int = 2000,
    seed: int = 0,
    protocol: Protocol = EXPLORATORY,
    prevalence: str | float | None = None,
    reference_error: str | float | None = None,
    unit: Unit = "image",
    extra_policies: Sequence[str] = (),
    advance: Callable[[int], None] | None = None,
    first: Callable[[str], None] | None = None,
) -> Comparison:
    """Score systems on the same test images, with paired patient-cluster bootstrap intervals.

    Each system's decision is derived again from its validation images; one that `cxr tune` has
    stored must agree with it.

    Args:
        systems: Systems by display name, in the order to show them, the reference system first;
            several training seeds of one system as a sequence.
        truth: Ground truth of the images; figures are of its ``test`` images.
        images: ``all`` refuses systems that ran on different test images; ``common`` takes the
            images that all ran on.
        policies: Policies for systems that are not tuned yet.
        replicates: Bootstrap resamples.
        seed: Random seed of the bootstrap.
        protocol: The question: primary figure, margin, reference system, subgroups.
        prevalence: Prevalence at the place of use, for PPV and NPV there; see `Prevalence` for its
            forms with an interval.
        reference_error: Error of the labels, for figures that are corrected for it; see
            `ReferenceAccuracy.from_text` for its forms.
        unit: ``study`` or ``patient`` to add the image-level figures by these.
        extra_policies: Policies in addition to those that systems are tuned for.
        advance: Called with the number of replicates done in each step.
        first: Called before the resamples with the first figures, a line for each model.

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
    of_use = None if prevalence is None else Prevalence.parse(prevalence)
    labels = None if reference_error is None else ReferenceAccuracy.from_text(str(reference_error))
    image_groups(truth.images, protocol.subgroups)  # refuses what cannot be analysed
    named = name_models(systems)
    for name, members in named.items():
        _check_seeds(name, list(members.values()))
    evaluated, notes = common_test_images(models_by_label(named), truth, images=images)
    boxes_by = protocol.metric if protocol.metric in choosing_figures() else BOXES_BY
    models, of_models = evaluate_models(
        named, evaluated, truth, policies, extra_policies, boxes_by=boxes_by
    )
    check_protocol(protocol, models)
    scorecards = scorecards_of(models)
    if first is not None:
        first("\n".join(model.first_line for members in models.values() for model in members))
    resamples = Resamples(evaluated.n_patients, replicates, seed)
    drawn = resampled_figures(truth.finding, scorecards, resamples, advance=advance)
    by_unit = evaluate_by_unit(models, evaluated, truth, unit, resamples)
    estimates = with_clustered_auroc(drawn.estimates, scorecards)
    estimates, uncounted = with_uncounted_images(estimates, models, truth, protocol, resamples)
    if labels is not None:
        estimates = with_corrected_figures(estimates, scorecards, labels)
    grouped = unit != "image" and protocol.unit == unit
    tests = paired_tests(drawn.estimates, scorecards, drawn.differences, by_unit.tests)
    return Comparison(
        finding=truth.finding,
        display_name=truth.display_name,
        findings=truth.findings or (truth.finding,),
        estimates=estimates,
        tests=tests,
        failures=failure_table(models, truth, protocol, of_use, resamples),
        systems={name: SystemResult.from_models(seeds) for name, seeds in models.items()},
        decisions=_decisions_table(models, truth.images),
        provenance=_record(models, protocol, resamples),
        notes=[*notes, *of_models, *few_patients(evaluated), *by_unit.notes, *_seed_notes(models)],
        protocol=protocol,
        by_unit=by_unit.estimates,
        goals=[
            GoalResult.from_scorecard(next(iter(of_case.values()))[0], metric, protocol, case)
            for case, of_case in {
                "": by_unit.scorecards if grouped else scorecards,
                **uncounted,
            }.items()
            for metric in protocol.goals
        ],
        guarantees=[
            result
            for members in models.values()
            for model in members
            for result in model.guarantees(truth)
        ],
        labelled=LabelledScores.from_scorecards(by_unit.scorecards if grouped else scorecards),
        reference=labels,
        background=Background.from_truth(truth, evaluated.image_ids, models),
        patients_known=truth.knows_patients(evaluated.image_ids),
        split=truth.split,
        replicates=resamples.n_replicates,
    )


def pilot_parts(
    systems: Mapping[str, System | Sequence[System]],
    truth: GroundTruth,
) -> dict[str, list[AurocParts]]:
    """Return what each test patient adds to the AUROC of each system, for planning a study.

    Args:
        systems: Systems by display name; several training seeds of one as a sequence.
        truth: Ground truth; its ``test`` images are used.

    Returns:
        Contributions to the AUROC for each training seed of each system.

    Raises:
        InputError: As `compare_systems`, or all images are of one class.
    """
    named = name_models(systems)
    for name, members in named.items():
        _check_seeds(name, list(members.values()))
    evaluated, _ = common_test_images(models_by_label(named), truth)
    models, _ = evaluate_models(named, evaluated, truth, POLICIES)
    everything = np.ones(len(evaluated.y_true), dtype=bool)
    parts = {
        name: part
        for name, members in scorecards_of(models).items()
        if (part := seed_parts(members, everything)) is not None
    }
    if len(parts) < len(named):
        raise InputError(f"{truth.source}: the test images of {truth.finding} are of one class")
    return parts


_Model = TypeVar("_Model")


def name_models(
    systems: Mapping[str, _Model | Sequence[_Model]],
) -> dict[str, dict[str, _Model]]:
    """Name every model of every system; of several training seeds ``NAME #1`` and so on.

    Args:
        systems: Models by the display name of their system; several training seeds as a sequence.

    Returns:
        Models by their own name, by the name of their system.

    Raises:
        InputError: A system has no model, or is called as a seed of another.

    Example:
        >>> name_models({"A": ["first", "second"]})
        {'A': {'A #1': 'first', 'A #2': 'second'}}
    """
    named: dict[str, dict[str, _Model]] = {}
    for name, model_or_models in systems.items():
        if isinstance(model_or_models, Sequence):
            models = list(model_or_models)
        else:
            models = [model_or_models]
        if not models:
            raise InputError(f"compare: system {name} has no predictions")
        several = len(models) > 1
        named[name] = {
            f"{name} #{number}" if several else name: model
            for number, model in enumerate(models, start=1)
        }
    if len(models_by_label(named)) < sum(map(len, named.values())):
        raise InputError("compare: a system is called as a seed of another; rename it")
    return named


def models_by_label(named: Mapping[str, Mapping[str, _Model]]) -> dict[str, _Model]:
    """Return all models of all systems by their names.

    Args:
        named: Result of `name_models`.

    Returns:
        Models by their own name, in the order of the systems.

    Example:
        >>> models_by_label({"A": {"A #1": "first", "A #2": "second"}, "B": {"B": "third"}})
        {'A #1': 'first', 'A #2': 'second', 'B': 'third'}
    """
    return {label: model for models in named.values() for label, model in models.items()}


def check_protocol(protocol: Protocol, models: Models) -> None:
    """Refuse models that lack the protocol's policy or, where it is declared, the primary figure.

    An exploratory comparison is not refused for a figure: its answer says that there is none.
    """
    if protocol.goals and (len(models) > 1 or len(next(iter(models.values()))) > 1):
        raise InputError(
            "protocol: goals are compared with one trained model; give one system of one training "
            "seed (cxr ensemble joins several), and compare systems by a protocol without goals"
        )
    for model in (model for members in models.values() for model in members):
        if protocol.policy and protocol.policy not in model.decision.thresholds:
            raise InputError(
                f"{model.system.source}: the protocol asks for policy '{protocol.policy}', "
                f"{model.name} is tuned for {', '.join(model.decision.thresholds)}; run cxr tune "
                "again with it"
            )
        if not protocol.declared:
            continue
        for metric, policy in protocol.keys:
            if why := model.scorecard.why_undefined(metric, policy):
                raise InputError(
                    f"protocol: the primary figure '{metric}' is undefined for {model.name}: "
                    f"{why}; compare systems that have it, or fix another metric; no figure was "
                    "shown, and no use of the test set was logged"
                )
            choices = model.scorecard.choices_of(MetricKey(ALL, policy, metric))
            fixed = [name for name, made_again in choices.items() if not made_again]
            if fixed:
                raise InputError(
                    f"protocol: the primary figure '{metric}' of {model.name} rests on a choice "
                    f"on validation whose sampling error is in no interval ({listing(fixed)}): "
                    "fix another metric, or compare without a protocol; no figure was shown, and "
                    "no use of the test set was logged"
                )


def _seed_notes(systems: Models) -> list[Note]:
    """Note the systems with several training seeds."""
    return [
        note("seeds", system=name, n_seeds=len(models))
        for name, models in systems.items()
        if len(models) > 1
    ]


def _check_seeds(name: str, members: Sequence[System]) -> None:
    """Refuse the same training twice, which would hide the variation between trainings."""
    first_of: dict[str, System] = {}
    for member in members:
        training = member.facts.training_id
        if training is not None and training in first_of:
            raise InputError(
                f"{member.source}: {name} has these predictions already "
                f"({first_of[training].source}), or an export of the same run; give each "
                "training seed once"
            )
        if training is not None:
            first_of[training] = member
    kinds = {member.kind for member in members}
    if len(kinds) > 1:
        raise InputError(
            f"{members[0].source}: the seeds of {name} are not of one kind "
            f"({' and '.join(sorted(kinds))}); compare them as two systems"
        )


def _decisions_table(models: Models, images: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each image and system, with the first seed of each system."""
    tables = [members[0].decisions(name) for name, members in models.items()]
    table = pd.concat(tables, ignore_index=True)
    return table.merge(images[["image_id", "patient_id"]], on="image_id", how="left")


def _record(models: Models, protocol: Protocol, resamples: Resamples) -> dict[str, Any]:
    """Return the settings of a comparison for its provenance."""
    seeds = {
        name: [model.system.facts.seed for model in members] for name, members in models.items()
    }
    return {
        "bootstrap": {
            "replicates": resamples.n_replicates,
            "seed": resamples.seed,
            "interval": "percentile",
        },
        "seeds": {name: values if len(values) > 1 else values[0] for name, values in seeds.items()},
        "protocol": protocol.to_dict(),
    }
