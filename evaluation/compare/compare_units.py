"""The image-level figures once more by study or by patient, on the same resamples of patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from evaluation.compare.figures import Figure, Figures
from evaluation.compare.judged_model import ComparisonTask, JudgedModel
from evaluation.compare.metrics_table import resampled_figures
from evaluation.compare.paired_tests import resampled_tests
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.tuning import tune
from evaluation.decisions.units import Unit, Units, group_images, judged_units
from evaluation.metrics.evaluation_set import ALL, EvaluationSet, MetricKey, Note
from evaluation.metrics.registry import METRICS
from evaluation.statistics.bootstrap import Resamples


class UnitComparison(NamedTuple):
    """Figures by study or patient, notes on them, and the bootstrap's tests of the differences."""

    figures: Figures | None
    notes: list[Note]
    tests: pd.DataFrame | None


def compare_units(
    models: Mapping[str, Sequence[JudgedModel]],
    judged: EvaluationSet,
    task: ComparisonTask,
    unit: Unit,
    resamples: Resamples,
) -> UnitComparison:
    """Every image-level figure by study or patient."""
    if unit == "image":
        return UnitComparison(None, [], None)
    dataset = task.dataset
    labels = dataset.labels(task.target).reindex(dataset.image_ids("test", task.split))
    units = group_images(dataset.images, labels, judged.image_ids, unit)
    whole = judged_units(judged, units)
    cards = {
        name: [_card(model, units, whole, task, unit) for model in each]
        for name, each in models.items()
    }
    drawn = resampled_figures(task.target.name, cards, resamples, unit=unit)
    figures = _of_units(drawn.figures, cards)
    tests = resampled_tests(figures, drawn.differences)
    return UnitComparison(
        _with_thresholds(figures, cards), [_note(units, whole, judged, unit)], tests
    )


def _card(
    model: JudgedModel, units: Units, whole: EvaluationSet, task: ComparisonTask, unit: Unit
) -> Scorecard:
    chosen, output = model.decision, model.output
    rule = tune(
        model.predictions,
        task.dataset,
        task.target,
        split=task.split,
        policies=list(chosen.thresholds),
        search=chosen.searched,
        options=chosen.options,
        unit=unit,
    )
    scores = pd.Series(units.highest(output.scores(chosen.reduction)), units.names)
    spread = output.spread() if rule.referral else None
    return Scorecard(
        whole,
        scores,
        rule.thresholds,
        probability=rule.probability(scores),
        referrals=rule.referral,
        spread=None if spread is None else units.highest(spread),
    )


def _of_units(figures: Figures, cards: Mapping[str, Sequence[Scorecard]]) -> Figures:
    """Without figures that need a place: they have no row by unit, not even one that says why."""
    each = [card for members in cards.values() for card in members]
    kept = {key.metric for card in each for key in card.estimates()}
    kept |= {
        key.metric
        for card in each
        for key in card.missing()
        if key.policy and not METRICS[key.metric].boxed
    }

    def chosen(held: Mapping[MetricKey, Figure]) -> dict[MetricKey, Figure]:
        return {key: figure for key, figure in held.items() if key.metric in kept}

    return replace(
        figures,
        systems={name: chosen(held) for name, held in figures.systems.items()},
        differences={pair: chosen(held) for pair, held in figures.differences.items()},
    )


def _with_thresholds(figures: Figures, cards: Mapping[str, Sequence[Scorecard]]) -> Figures:
    """With the thresholds, which are not those by image; of several seeds the first's."""
    counts = next(iter(next(iter(figures.systems.values())).values())).counts
    thresholds = {
        name: {
            MetricKey(ALL, policy, "threshold"): Figure(choice.threshold, counts=counts)
            for policy, choice in members[0].thresholds.items()
            if choice.threshold is not None
        }
        for name, members in cards.items()
    }
    systems = {name: {**held, **thresholds[name]} for name, held in figures.systems.items()}
    return replace(figures, systems=systems)


def _note(units: Units, whole: EvaluationSet, judged: EvaluationSet, unit: Unit) -> Note:
    plural = {"study": "studies", "patient": "patients"}[unit]
    text = (
        f"By {unit}: {len(units.names):,} {plural} of {len(judged.image_ids):,} images, "
        f"{int(whole.y_true.sum()):,} positive (where any image is); the score is the highest of "
        f"its images, and thresholds are chosen again on validation {plural}."
    )
    if units.n_left_out:
        text += f" {units.n_left_out:,} {plural} with an image of unknown label are left out."
    return Note("unit", text)
