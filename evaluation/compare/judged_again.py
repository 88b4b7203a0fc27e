"""The same systems judged again: by study or patient, and with failures counted as wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluation.compare.estimates import FAILURES_WRONG, Estimate, Estimates
from evaluation.compare.intervals import resampled_figures
from evaluation.compare.paired_tests import clustered_auroc, resampled_tests, with_clustered_auroc
from evaluation.compare.scorecard import Cards, JudgedModel, Models, Scorecard
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.test_set import TestSet
from evaluation.decisions.tuning import tune
from evaluation.decisions.units import Unit, Units, group_images, judged_units
from evaluation.metrics.evaluation_set import ALL, EvaluationSet, MetricKey, Note
from evaluation.metrics.registry import METRICS
from evaluation.statistics.bootstrap import Resamples
from evaluation.systems.eligibility import attempted_images, describe_images

_KEPT = ("auroc", "accuracy", "recall", "specificity", "f1")
NONE_FAILED = "no image failed"


class UnitComparison(NamedTuple):
    """Figures by study or patient, notes on them, and the bootstrap's tests of the differences."""

    estimates: Estimates | None
    notes: list[Note]
    tests: pd.DataFrame | None


def compare_units(
    models: Models,
    judged: EvaluationSet,
    test_set: TestSet,
    unit: Unit,
    resamples: Resamples,
) -> UnitComparison:
    """Every image-level figure by study or patient."""
    if unit == "image":
        return UnitComparison(None, [], None)
    units = group_images(test_set.images, test_set.labels_of("test"), judged.image_ids, unit)
    whole = judged_units(judged, units)
    note = _note(units, whole, judged, unit)
    cards = {
        name: [_unit_card(model, units, whole, test_set, unit) for model in members]
        for name, members in models.items()
    }
    drawn = resampled_figures(test_set.target.name, cards, resamples, unit=unit)
    estimates = _of_units(drawn.estimates, cards)
    tests = resampled_tests(estimates, drawn.differences)
    return UnitComparison(_with_thresholds(estimates, cards), [note], tests)


def _unit_card(
    model: JudgedModel, units: Units, whole: EvaluationSet, test_set: TestSet, unit: Unit
) -> Scorecard:
    chosen, output = model.decision, model.output
    rule = tune(
        model.predictions,
        test_set,
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
        validation=rule.chosen_scores,
        probability=rule.probability(scores),
        referrals=rule.referral,
        spread=None if spread is None else units.highest(spread),
    )


def _of_units(estimates: Estimates, cards: Cards) -> Estimates:
    """Without figures that need a place: they have no row by unit, not even one that says why."""
    all_cards = [card for members in cards.values() for card in members]
    kept = {key.metric for card in all_cards for key in card.estimates()}
    kept |= {
        key.metric
        for card in all_cards
        for key in card.missing()
        if key.policy and not METRICS[key.metric].boxed
    }
    return estimates.changed(lambda _, key, estimate: estimate if key.metric in kept else None)


def _with_thresholds(figures: Estimates, cards: Cards) -> Estimates:
    """With the thresholds, which are not those by image; of several seeds the first's."""
    counts = next(iter(next(iter(figures.systems.values())).values())).counts
    thresholds = {
        name: {
            MetricKey(ALL, policy, "threshold"): Estimate(choice.threshold, counts=counts)
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


def failures_as_wrong(
    estimates: Estimates, models: Models, test_set: TestSet, resamples: Resamples
) -> Estimates:
    """Add the systems' figures on every image that any of them should have run on.

    An image that a model has no result for counts as wrong: a positive one is ranked below every
    image and called negative, a negative one above every image and called positive.
    """
    predictions = {m.name: m.predictions for members in models.values() for m in members}
    expected = attempted_images(predictions, test_set)
    missing = {
        name: [len(expected.difference(model.predictions.images_run)) for model in members]
        for name, members in models.items()
    }
    if any(count for counts in missing.values() for count in counts):
        again = _with_failures(models, test_set, expected, resamples)
    else:
        again = estimates

    def noted(names: tuple[str, ...], key: MetricKey, estimate: Estimate) -> Estimate | None:
        if not _judged_with_failures(key):
            return None
        if again is not estimates:
            words = _words({name: missing[name] for name in names})
            return replace(estimate, note=f"{estimate.note}; {words}" if estimate.note else words)
        # A note on an estimate without a value says why, and stays.
        return estimate if estimate.note else replace(estimate, note=NONE_FAILED, of_all=True)

    return estimates.merged(again.changed(noted), FAILURES_WRONG)


def _judged_with_failures(key: MetricKey) -> bool:
    return key.metric in _KEPT and key.subgroup == ALL


def _with_failures(
    models: Models, test_set: TestSet, expected: pd.Index, resamples: Resamples
) -> Estimates:
    judged = describe_images(test_set, expected, test_set.labels)
    cards = {
        name: [_failure_card(model, judged, test_set) for model in members]
        for name, members in models.items()
    }
    of_patients = replace(resamples, n_clusters=judged.n_patients)
    drawn = resampled_figures(test_set.target.name, cards, of_patients, kept=_judged_with_failures)
    return with_clustered_auroc(drawn.estimates, clustered_auroc(cards), cards)


def _failure_card(model: JudgedModel, judged: EvaluationSet, test_set: TestSet) -> Scorecard:
    system, decision = model.predictions, model.decision
    ran = judged.image_ids[judged.image_ids.isin(system.images_run)]
    output = SystemOutput.of(system, test_set, ran, decision.boxes)
    scored = output.scores(decision.reduction)
    scores = scored.reindex(judged.image_ids)
    failed = scores.isna().to_numpy()
    lowest, highest = (scored.min(), scored.max()) if len(scored) else (0.0, 1.0)
    thresholds = [c.threshold for c in decision.thresholds.values() if c.threshold is not None]
    if decision.chosen_scores is not None:  # between these every refitted threshold lies
        thresholds += decision.chosen_scores.scores.tolist()
    wrong = np.where(
        judged.y_true, min([lowest, *thresholds]) - 1.0, max([highest, *thresholds]) + 1.0
    )
    scores = scores.where(~failed, pd.Series(wrong, index=scores.index))
    return Scorecard(judged, scores, decision.thresholds, validation=decision.chosen_scores)


def _words(missing: Mapping[str, Sequence[int]]) -> str:
    """How many images count as wrong, of a system or of both in a difference."""
    counts = [
        f"{name}: {' and '.join(map(str, of_seeds))} images without a result"
        for name, of_seeds in missing.items()
    ]
    return ", ".join(counts) + ", counted as wrong"
