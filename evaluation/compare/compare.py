"""Compare systems on the same test images: every figure, its interval, and every difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from data_prep.contracts.errors import InputError
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.compare.baselines import failures_as_wrong
from evaluation.compare.compare_units import compare_units
from evaluation.compare.comparison import Comparison
from evaluation.compare.failure_analysis import check_analysis, failure_table
from evaluation.compare.judged_model import (
    ComparisonTask,
    comparison_provenance,
    decisions_table,
    judge_models,
    scorecards,
    system_result,
)
from evaluation.compare.metrics_table import resampled_figures
from evaluation.compare.paired_tests import clustered_auroc, paired_tests, with_clustered_auroc
from evaluation.compare.protocol import EXPLORATORY, Protocol, require_primary_metric
from evaluation.compare.seeds import name_models, seed_notes
from evaluation.decisions.thresholds import POLICIES
from evaluation.decisions.units import Unit
from evaluation.statistics.bootstrap import Resamples
from evaluation.systems.eligibility import Images, common_test_images


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
    check_analysis(dataset.images, protocol.subgroups, prevalence)
    named = name_models(systems)
    predictions = {label: each for models in named.values() for label, each in models.items()}
    judged, notes = common_test_images(predictions, dataset, target, split=split, images=images)
    task = ComparisonTask(dataset, target, split, protocol)
    models, of_models = judge_models(named, judged, task, policies, extra_policies)
    cards = scorecards(models)
    require_primary_metric(
        protocol, {model.name: model.card for each in models.values() for model in each}
    )
    resamples = Resamples(judged.n_patients, replicates, seed)
    drawn = resampled_figures(target.name, cards, resamples, advance=advance)
    by_unit = compare_units(models, judged, task, unit, resamples)
    clustered = clustered_auroc(cards)
    figures = with_clustered_auroc(drawn.figures, clustered, cards)
    return Comparison(
        target=target,
        systems={name: system_result(each, task) for name, each in models.items()},
        figures=figures.merged(failures_as_wrong(figures, models, task, resamples)),
        decisions=decisions_table(models, dataset),
        tests=paired_tests(drawn.figures, cards, clustered, drawn.differences, by_unit.tests),
        failures=failure_table(models, judged, task, prevalence, resamples),
        notes=[*notes, *of_models, *by_unit.notes, *seed_notes(models)],
        provenance=comparison_provenance(models, task, resamples),
        protocol=protocol,
        by_unit=by_unit.figures,
    )
