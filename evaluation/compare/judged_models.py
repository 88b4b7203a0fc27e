"""Trained models on the judged images: as they are, by study or patient, and failures as wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.compare.estimates import AGAINST, FOR, Estimate, Estimates
from cxr_compare.evaluation.compare.intervals import resampled_figures
from cxr_compare.evaluation.compare.paired_tests import resampled_tests, with_clustered_auroc
from cxr_compare.evaluation.compare.protocol import Protocol
from cxr_compare.evaluation.compare.scorecard import Cards, Scorecard, judged_of
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.test_set import (
    EvaluationSet,
    SystemOutput,
    TestSet,
    Unit,
    Units,
    judged_units,
)
from cxr_compare.evaluation.decisions.tuning import PromiseResult, checked_decision, tune
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey, Note, inside_sentence, number
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.systems.eligibility import (
    describe_images,
    describe_training_data,
    learned_validation,
)

_RECORDED = (
    "system", "seed", "kind", "inference_id", "training_id", "exported_from", "maps", "command",
    "created", "revision", "versions", "backend", "precision", "tta", "recipe", "members",
)  # fmt: skip


_FIRST = ("auroc", "average_precision", "ap50", "ap", "froc_mean", "wafroc", "pointing_accuracy")


@dataclass(frozen=True)
class JudgedModel:
    """A trained model on the judged images: what validation chose, its output, its figures."""

    name: str  # that of its system, with the number of the seed where there are several
    predictions: Predictions
    decision: Decision
    output: SystemOutput
    card: Scorecard

    @property
    def first_line(self) -> str:
        """Figures that rest on no threshold, without intervals."""
        once = {key.metric: figure for key, figure in self.card.once.items() if key.subgroup == ALL}
        titles = {metric: METRICS[metric].title for metric in _FIRST if metric in once}
        told = (f"{inside_sentence(t)} {number(float(once[m][0]))}" for m, t in titles.items())
        return f"{self.name}: {', '.join(told)}"

    def facts(self) -> dict[str, Any]:
        """What a report's provenance holds of it."""
        return {
            "folder": self.predictions.folder.name,
            **{key: self.predictions.info.get(key) for key in _RECORDED},
            "trained_on": describe_training_data(self.predictions),
            "decision": self.decision.to_dict(),
        }

    def promises(self, test_set: TestSet) -> list[PromiseResult]:
        """What was promised of its thresholds on validation, and what came true."""
        return PromiseResult.of(self.name, self.decision, self.output, test_set, self.card.judged)

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
        if self.decision.triage is not None:
            frame["triage"] = self.decision.triage.standings(card.scores)
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
) -> tuple[Estimates | None, Cards, list[Note], pd.DataFrame | None]:
    """Figures by study or patient, their scorecards, notes, and the bootstrap's paired tests."""
    if unit == "image":
        return None, {}, [], None
    units, whole = judged_units(judged, test_set.images, test_set.labels_of("test"), unit)
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
    note = _unit_note(units, whole, len(judged.image_ids), estimates)
    return _with_thresholds(estimates, cards), cards, [note], tests


def _unit_card(
    model: JudgedModel, units: Units, whole: EvaluationSet, test_set: TestSet, unit: Unit
) -> Scorecard:
    rule, output = _decision_by(unit, model, test_set), model.output
    scores = pd.Series(units.highest(output.scores(model.decision.reduction)), units.names)
    return Scorecard(
        whole,
        scores,
        rule.thresholds,
        validation=rule.chosen_scores,
        probability=rule.probability(scores),
        triage=rule.triage,
    )


def _decision_by(unit: Unit, model: JudgedModel, test_set: TestSet) -> Decision:
    """What validation chose, for a unit of its own chosen again."""
    chosen = model.decision
    if unit == "image":
        return chosen
    policies = list(chosen.thresholds)
    return tune(model.predictions, test_set, policies=policies, options=chosen.options, unit=unit)


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


def _unit_note(units: Units, whole: EvaluationSet, n_images: int, figures: Estimates) -> Note:
    plural = figures.things
    text = (
        f"By {figures.unit}: {len(units.names):,} {plural} of {n_images:,} images, "
        f"{int(whole.y_true.sum()):,} positive (where any image is); the score is the highest of "
        f"its images, and thresholds are chosen again on validation {plural}."
    )
    if units.n_left_out:
        text += f" {units.n_left_out:,} {plural} with an image of unknown label are left out."
    return Note("unit", text)


_WITH_UNCOUNTED = ("auroc", "accuracy", "recall", "specificity", "f1")


def with_uncounted(
    estimates: Estimates,
    models: Models,
    test_set: TestSet,
    protocol: Protocol,
    resamples: Resamples,
) -> tuple[Estimates, dict[str, Cards]]:
    """Add the main figures on every test image that any model should have run on.

    Returns them with the scorecards that goals are held against, by the unit of the protocol.

    An image that is not counted otherwise, without a result of a model or without a known label,
    counts against each system, or for it: two subgroups, none where there is no such image. One
    without a result is called the wrong (right) way and ranked so; one of unknown label is taken as
    the opposite of what the system calls it at the main threshold (as what it calls it); one
    without either as positive. A study or patient with such an image likewise.
    """
    systems = [model.predictions for members in models.values() for model in members]
    tried = pd.Index(np.concatenate([system.images["image_id"] for system in systems]))
    labels = test_set.labels_of("test")
    labels = labels[labels.index.isin(tried)]
    if labels.notna().all() and all(labels.index.isin(s.images_run).all() for s in systems):
        return estimates, {}
    policy = protocol.main_policy(list(next(iter(models.values()))[0].card.thresholds))

    def cards_by(unit: Unit) -> dict[str, Cards]:
        return {
            subgroup: {
                name: [
                    _uncounted_card(model, labels, test_set, policy, against, unit)
                    for model in members
                ]
                for name, members in models.items()
            }
            for subgroup, against in ((AGAINST, True), (FOR, False))
        }

    cards = cards_by("image")

    def kept(key: MetricKey) -> bool:
        return key.metric in _WITH_UNCOUNTED and key.subgroup == ALL

    # Unknown labels are each system's own: a difference would compare other labels.
    most_names = 2 if labels.notna().all() else 1
    for subgroup, of_case in cards.items():
        of_patients = replace(resamples, n_clusters=judged_of(of_case).n_patients)
        drawn = resampled_figures(test_set.target.name, of_case, of_patients, kept=kept)
        again = with_clustered_auroc(drawn.estimates, of_case).changed(
            lambda names, key, each: each if kept(key) and len(names) <= most_names else None
        )
        estimates = estimates.merged(again, subgroup)
    if protocol.goals and protocol.unit not in (None, "image"):
        cards = cards_by(protocol.unit)
    return estimates, cards


def _uncounted_card(
    model: JudgedModel,
    labels: pd.Series,
    test_set: TestSet,
    policy: str,
    against: bool,
    unit: Unit,
) -> Scorecard:
    system, decision = model.predictions, _decision_by(unit, model, test_set)
    ran = labels.index[labels.index.isin(system.images_run)]
    output = SystemOutput(system, test_set.target, ran)
    scored = output.scores(model.decision.reduction)
    thresholds = [c.threshold for c in decision.thresholds.values() if c.threshold is not None]
    chosen = decision.thresholds.get(policy)
    at = np.inf if chosen is None or chosen.threshold is None else chosen.threshold
    if decision.chosen_scores is not None:  # between these every refitted threshold lies
        thresholds += decision.chosen_scores.scores.tolist()
    lowest, highest = min([*scored, *thresholds, 0.0]) - 1.0, max([*scored, *thresholds, 1.0]) + 1.0
    judged = describe_images(test_set, labels.index, labels)
    units, judged = judged_units(judged, test_set.images, labels.fillna(0.0), unit)
    failed = units.highest(~labels.index.isin(ran)) > 0
    scores = units.highest(scored.reindex(labels.index, fill_value=-np.inf))
    positive = units.highest(labels == 1) > 0
    unknown = ~positive & (units.highest(labels.isna()) > 0)
    positive |= unknown & (((scores >= at) ^ against) | np.isneginf(scores))
    extremes = np.where(positive == against, lowest, highest)
    scores = np.where(failed, np.maximum(scores, extremes), scores)
    return Scorecard(
        replace(judged, y_true=positive),
        pd.Series(scores, units.names),
        decision.thresholds,
        validation=decision.chosen_scores,
    )
