"""Trained models on the judged images: as they are, by study or patient, and failures as wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.store.predictions import Predictions
from data_prep.work.object_store import shown
from evaluation.compare.estimates import FAILURES_WRONG, Estimate, Estimates
from evaluation.compare.intervals import resampled_figures
from evaluation.compare.paired_tests import resampled_tests, with_clustered_auroc
from evaluation.compare.scorecard import Cards, Scorecard
from evaluation.decisions.decision import Decision
from evaluation.decisions.test_set import (
    EvaluationSet,
    SystemOutput,
    TestSet,
    Unit,
    Units,
    group_images,
    judged_units,
)
from evaluation.decisions.tuning import checked_decision, tune
from evaluation.metrics.metric import ALL, MetricKey, Note
from evaluation.metrics.registry import METRICS
from evaluation.statistics.bootstrap import Resamples
from evaluation.systems.eligibility import (
    attempted_images,
    describe_images,
    describe_training_data,
    learned_validation,
)

_RECORDED = (
    "system", "seed", "kind", "inference_id", "training_id", "exported_from", "maps", "command",
    "created", "revision", "versions",
)  # fmt: skip


@dataclass(frozen=True)
class JudgedModel:
    """A trained model on the judged images: what validation chose, its output, its figures."""

    name: str  # that of its system, with the number of the seed where there are several
    predictions: Predictions
    decision: Decision
    output: SystemOutput
    card: Scorecard

    def facts(self) -> dict[str, Any]:
        """What a report's provenance holds of it."""
        return {
            "folder": shown(str(self.predictions.folder)),
            **{key: self.predictions.info.get(key) for key in _RECORDED},
            "trained_on": describe_training_data(self.predictions),
            "decision": self.decision.to_dict(),
        }

    def decisions(self, system: str) -> pd.DataFrame:
        """A row an image, see `Comparison.decisions`."""
        card, judged, platt = self.card, self.card.judged, self.decision.calibration
        frame = pd.DataFrame({"image_id": judged.image_ids.to_numpy(), "system": system})
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
        frame["localised"] = _on_lesion(judged, card.localised)
        frame["localised_tolerant"] = _on_lesion(judged, card.localised_tolerant)
        if judged.x_class is not None:
            frame["x_class"] = judged.x_class.to_numpy()
        return frame


Models = Mapping[str, Sequence[JudgedModel]]
"""By system, one a training seed."""


def _on_lesion(judged: EvaluationSet, hit: npt.NDArray[np.bool_] | None) -> pd.Series:
    """Right place or not, known only for positive images whose boxes are trusted."""
    column = pd.Series(pd.array([pd.NA] * len(judged.image_ids), dtype="boolean"))
    if hit is not None:
        boxed = judged.y_true & judged.boxes_trusted
        column[boxed] = hit[boxed]
    return column


def judge_models(
    systems: Mapping[str, Mapping[str, Predictions]],
    judged: EvaluationSet,
    test_set: TestSet,
    policies: Sequence[str],
    extra_policies: Sequence[str] = (),
) -> tuple[Models, list[Note]]:
    """Derive every model's decision and score it on the judged images.

    A figure of places with the tolerance of one cell has the same tolerance for all models: that
    of the coarsest map on each image.
    """
    notes: list[Note] = []
    chosen: dict[str, tuple[SystemOutput, Decision]] = {}
    for models in systems.values():
        for name, predictions in models.items():
            decision, of_model = checked_decision(
                name, predictions, test_set, policies, extra_policies
            )
            output = SystemOutput(predictions, test_set.target, judged.image_ids)
            chosen[name] = output, decision
            notes += [*of_model, *learned_validation(name, predictions, test_set)]
    cells = [size for output, _ in chosen.values() if (size := output.cells()) is not None]
    judged = replace(judged, tolerance=np.max(cells, axis=0) if cells else None)

    def model(name: str, predictions: Predictions) -> JudgedModel:
        output, decision = chosen[name]
        card = Scorecard.of(output, decision, judged)
        return JudgedModel(name, predictions, decision, output, card)

    return {system: [model(*item) for item in of.items()] for system, of in systems.items()}, notes


def cards_of(models: Models) -> Cards:
    """The scorecards of each system, one a training seed."""
    return {name: [model.card for model in members] for name, members in models.items()}


def compare_units(
    models: Models,
    judged: EvaluationSet,
    test_set: TestSet,
    unit: Unit,
    resamples: Resamples,
) -> tuple[Estimates | None, list[Note], pd.DataFrame | None]:
    """Figures by study or patient, notes on them, and the bootstrap's tests of the differences."""
    if unit == "image":
        return None, [], None
    units = group_images(test_set.images, test_set.labels_of("test"), judged.image_ids, unit)
    whole = judged_units(judged, units)
    cards = {
        name: [_unit_card(model, units, whole, test_set, unit) for model in members]
        for name, members in models.items()
    }
    drawn = resampled_figures(test_set.target.name, cards, resamples, unit=unit)
    # Figures that need a place have no row by unit, not even one that says why.
    all_cards = [card for members in cards.values() for card in members]
    kept = {key.metric for card in all_cards for key in card.estimates()}
    kept |= {
        key.metric
        for card in all_cards
        for key in card.missing()
        if key.policy and not METRICS[key.metric].boxed
    }
    estimates = drawn.estimates.changed(
        lambda _, key, estimate: estimate if key.metric in kept else None
    )
    tests = resampled_tests(estimates, drawn.differences)
    note = _unit_note(units, whole, len(judged.image_ids), unit)
    return _with_thresholds(estimates, cards), [note], tests


def _unit_card(
    model: JudgedModel, units: Units, whole: EvaluationSet, test_set: TestSet, unit: Unit
) -> Scorecard:
    chosen, output = model.decision, model.output
    rule = tune(
        model.predictions,
        test_set,
        policies=list(chosen.thresholds),
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


def _with_thresholds(figures: Estimates, cards: Cards) -> Estimates:
    """With the thresholds, which are not those by image; of several seeds the first's."""
    counts = next(iter(next(iter(figures.systems.values())).values())).counts
    systems = {
        name: {
            **of_system,
            **{
                MetricKey(ALL, policy, "threshold"): Estimate(choice.threshold, counts=counts)
                for policy, choice in cards[name][0].thresholds.items()
                if choice.threshold is not None
            },
        }
        for name, of_system in figures.systems.items()
    }
    return replace(figures, systems=systems)


def _unit_note(units: Units, whole: EvaluationSet, n_images: int, unit: Unit) -> Note:
    plural = {"study": "studies", "patient": "patients"}[unit]
    text = (
        f"By {unit}: {len(units.names):,} {plural} of {n_images:,} images, "
        f"{int(whole.y_true.sum()):,} positive (where any image is); the score is the highest of "
        f"its images, and thresholds are chosen again on validation {plural}."
    )
    if units.n_left_out:
        text += f" {units.n_left_out:,} {plural} with an image of unknown label are left out."
    return Note("unit", text)


_WITH_FAILURES = ("auroc", "accuracy", "recall", "specificity", "f1")


def with_failures(
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

    def kept(key: MetricKey) -> bool:
        return key.metric in _WITH_FAILURES and key.subgroup == ALL

    if not any(count for counts in missing.values() for count in counts):

        def repeated(_: tuple[str, ...], key: MetricKey, estimate: Estimate) -> Estimate | None:
            # A note on an estimate without a value says why, and stays.
            noted = estimate if estimate.note else replace(estimate, note=_NONE_FAILED, of_all=True)
            return noted if kept(key) else None

        return estimates.merged(estimates.changed(repeated), FAILURES_WRONG)
    judged = describe_images(test_set, expected, test_set.labels)
    cards = {
        name: [_failure_card(model, judged, test_set) for model in members]
        for name, members in models.items()
    }
    of_patients = replace(resamples, n_clusters=judged.n_patients)
    drawn = resampled_figures(test_set.target.name, cards, of_patients, kept=kept)
    again = with_clustered_auroc(drawn.estimates, cards)

    def counted(names: tuple[str, ...], key: MetricKey, estimate: Estimate) -> Estimate | None:
        of_systems = [
            f"{name}: {' and '.join(map(str, missing[name]))} images without a result"
            for name in names
        ]
        words = ", ".join(of_systems) + ", counted as wrong"
        note = f"{estimate.note}; {words}" if estimate.note else words
        return replace(estimate, note=note) if kept(key) else None

    return estimates.merged(again.changed(counted), FAILURES_WRONG)


_NONE_FAILED = "no image failed"


def _failure_card(model: JudgedModel, judged: EvaluationSet, test_set: TestSet) -> Scorecard:
    system, decision = model.predictions, model.decision
    ran = judged.image_ids[judged.image_ids.isin(system.images_run)]
    output = SystemOutput(system, test_set.target, ran)
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
