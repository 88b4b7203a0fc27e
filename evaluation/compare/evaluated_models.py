"""Trained models on the test images: as they are, by study or patient, and failures as wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.compare.common_images import validation_learned_from
from cxr_compare.evaluation.compare.estimates import AGAINST, FOR, Estimate, Estimates
from cxr_compare.evaluation.compare.intervals import resampled_figures
from cxr_compare.evaluation.compare.paired_tests import resampled_tests, with_clustered_auroc
from cxr_compare.evaluation.compare.protocol import Protocol
from cxr_compare.evaluation.compare.scorecard import Scorecard, Scorecards, evaluation_set_of
from cxr_compare.evaluation.compare.sentences import note
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.ground_truth import (
    EvaluationSet,
    GroundTruth,
    describe_images,
)
from cxr_compare.evaluation.decisions.guarantee_results import GuaranteeResult, guarantee_results
from cxr_compare.evaluation.decisions.system_output import System, SystemOutput
from cxr_compare.evaluation.decisions.tuning import checked_decision, tune
from cxr_compare.evaluation.decisions.units import Unit, Units, evaluated_units
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.figure_text import number

_FIRST = ("auroc", "average_precision", "ap50", "ap", "froc_mean", "wafroc", "pointing_accuracy")


@dataclass(frozen=True)
class EvaluatedModel:
    """A trained model on the evaluated images: what validation chose, its output, its figures."""

    name: str  # that of its system, with the number of the seed where there are several
    system: System
    decision: Decision
    output: SystemOutput
    scorecard: Scorecard

    @property
    def first_line(self) -> str:
        """Figures that rest on no threshold, without intervals."""
        once = {
            key.metric: figure for key, figure in self.scorecard.once.items() if key.subgroup == ALL
        }
        titles = {metric: METRICS[metric].title for metric in _FIRST if metric in once}
        told = (f"{inside_sentence(t)} {number(float(once[m][0]))}" for m, t in titles.items())
        return f"{self.name}: {', '.join(told)}"

    def guarantees(self, truth: GroundTruth) -> list[GuaranteeResult]:
        """What was guaranteed of its thresholds on validation, and what was observed on test."""
        return guarantee_results(
            self.name, self.decision, self.output, truth, self.scorecard.evaluated
        )

    def decisions(self, system: str) -> pd.DataFrame:
        """A row an image, see `Comparison.decisions`."""
        scorecard, evaluated, platt = (
            self.scorecard,
            self.scorecard.evaluated,
            self.decision.calibration,
        )
        frame = pd.DataFrame({"image_id": evaluated.image_ids.to_numpy(), "system": system})
        frame["label"] = evaluated.y_true.astype(np.float64)
        frame["score"] = scorecard.scores
        frame["probability"] = np.nan if platt is None else platt.probability(scorecard.scores)
        for policy in scorecard.thresholds:
            called = scorecard.called(policy)
            column = pd.array([pd.NA] * len(frame) if called is None else called, dtype="boolean")
            frame[f"decision_{policy}"] = column
        if self.decision.triage is not None:
            frame["triage"] = self.decision.triage.standings(scorecard.scores)
        points = np.full((len(frame), 2), np.nan) if scorecard.points is None else scorecard.points
        frame[["point_x", "point_y"]] = np.asarray(points, dtype=np.float64)
        frame["localised"] = _on_lesion(evaluated, scorecard.localised)
        frame["localised_tolerant"] = _on_lesion(evaluated, scorecard.localised_tolerant)
        if evaluated.x_class is not None:
            frame["x_class"] = evaluated.x_class.to_numpy()
        return frame


Models = Mapping[str, Sequence[EvaluatedModel]]
"""By system, one a training seed."""


def _on_lesion(evaluated: EvaluationSet, hit: npt.NDArray[np.bool_] | None) -> pd.Series:
    """Right place or not, known only for positive images whose boxes are trusted."""
    column = pd.Series(pd.array([pd.NA] * len(evaluated.image_ids), dtype="boolean"))
    if hit is not None:
        boxed = evaluated.y_true & evaluated.boxes_trusted
        column[boxed] = hit[boxed]
    return column


def evaluate_models(
    systems: Mapping[str, Mapping[str, System]],
    evaluated: EvaluationSet,
    truth: GroundTruth,
    policies: Sequence[str],
    extra_policies: Sequence[str] = (),
) -> tuple[Models, list[Note]]:
    """Derive every model's decision and score it on the evaluated images.

    A figure of places with the tolerance of one cell has the same tolerance for all models: that
    of the coarsest map on each image.
    """
    notes: list[Note] = []
    chosen: dict[str, tuple[SystemOutput, Decision]] = {}
    for models in systems.values():
        for name, system in models.items():
            decision, of_model = checked_decision(name, system, truth, policies, extra_policies)
            chosen[name] = system.output_on(evaluated.image_ids), decision
            notes += [*of_model, *validation_learned_from(name, system, truth)]
    cells = [size for output, _ in chosen.values() if (size := output.cells()) is not None]
    evaluated = replace(evaluated, tolerance=np.max(cells, axis=0) if cells else None)

    def model(name: str, system: System) -> EvaluatedModel:
        output, decision = chosen[name]
        scorecard = Scorecard.from_output(output, decision, evaluated)
        return EvaluatedModel(name, system, decision, output, scorecard)

    return {system: [model(*item) for item in of.items()] for system, of in systems.items()}, notes


def scorecards_of(models: Models) -> Scorecards:
    """The scorecards of each system, one a training seed."""
    return {name: [model.scorecard for model in members] for name, members in models.items()}


def evaluate_by_unit(
    models: Models,
    evaluated: EvaluationSet,
    truth: GroundTruth,
    unit: Unit,
    resamples: Resamples,
) -> tuple[Estimates | None, Scorecards, list[Note], pd.DataFrame | None]:
    """Figures by study or patient, their scorecards, notes, and the bootstrap's paired tests."""
    if unit == "image":
        return None, {}, [], None
    units, whole = evaluated_units(evaluated, truth, truth.labels_of("test"), unit)
    scorecards = {
        name: [_unit_scorecard(model, units, whole, truth, unit) for model in members]
        for name, members in models.items()
    }
    drawn = resampled_figures(truth.finding, scorecards, resamples, unit=unit)
    # Figures that need a place have no row by unit, not even one that says why.
    all_scorecards = [scorecard for members in scorecards.values() for scorecard in members]
    kept = {key.metric for scorecard in all_scorecards for key in scorecard.estimates()}
    kept |= {
        key.metric
        for scorecard in all_scorecards
        for key in scorecard.missing()
        if key.policy and not METRICS[key.metric].boxed
    }
    estimates = drawn.estimates.changed(
        lambda _, key, estimate: estimate if key.metric in kept else None
    )
    tests = resampled_tests(estimates, drawn.differences)
    note = _unit_note(units, whole, len(evaluated.image_ids), estimates)
    return _with_thresholds(estimates, scorecards), scorecards, [note], tests


def _unit_scorecard(
    model: EvaluatedModel, units: Units, whole: EvaluationSet, truth: GroundTruth, unit: Unit
) -> Scorecard:
    rule, output = _decision_by(unit, model, truth), model.output
    scores = pd.Series(units.highest(output.scores(model.decision.reduction)), units.names)
    return Scorecard(
        whole,
        scores,
        rule.thresholds,
        validation=rule.chosen_scores,
        probability=rule.probability(scores),
        triage=rule.triage,
    )


def _decision_by(unit: Unit, model: EvaluatedModel, truth: GroundTruth) -> Decision:
    """What validation chose, for a unit of its own chosen again."""
    chosen = model.decision
    if unit == "image":
        return chosen
    policies = list(chosen.thresholds)
    return tune(model.system, truth, policies=policies, options=chosen.options, unit=unit)


def _with_thresholds(figures: Estimates, scorecards: Scorecards) -> Estimates:
    """With the thresholds, which are not those by image; of several seeds the first's."""
    counts = next(iter(next(iter(figures.systems.values())).values())).counts
    systems = {
        name: {
            **of_system,
            **{
                MetricKey(ALL, policy, "threshold"): Estimate(choice.threshold, counts=counts)
                for policy, choice in scorecards[name][0].thresholds.items()
                if choice.threshold is not None
            },
        }
        for name, of_system in figures.systems.items()
    }
    return replace(figures, systems=systems)


def _unit_note(units: Units, whole: EvaluationSet, n_images: int, figures: Estimates) -> Note:
    return note(
        "unit",
        unit=figures.unit,
        units=figures.plural_unit,
        n_units=len(units.names),
        n_images=n_images,
        n_positive=int(whole.y_true.sum()),
        n_left_out=units.n_left_out,
    )


_WITH_UNCOUNTED = ("auroc", "accuracy", "recall", "specificity", "f1")


def with_uncounted_images(
    estimates: Estimates,
    models: Models,
    truth: GroundTruth,
    protocol: Protocol,
    resamples: Resamples,
) -> tuple[Estimates, dict[str, Scorecards]]:
    """Add the main figures on every test image that any model should have run on.

    Returns them with the scorecards that goals are held against, by the unit of the protocol.

    An image that is not counted otherwise, without a result of a model or without a known label,
    counts against each system, or for it: two subgroups, none where there is no such image. One
    without a result is called the wrong (right) way and ranked so; one of unknown label is taken as
    the opposite of what the system calls it at the main threshold (as what it calls it); one
    without either as positive. A study or patient with such an image likewise.
    """
    systems = [model.system for members in models.values() for model in members]
    tried = pd.Index(np.concatenate([system.images["image_id"] for system in systems]))
    labels = truth.labels_of("test")
    labels = labels[labels.index.isin(tried)]
    if labels.notna().all() and all(labels.index.isin(s.images_run).all() for s in systems):
        return estimates, {}
    policy = protocol.main_policy(list(next(iter(models.values()))[0].scorecard.thresholds))

    def scorecards_by(unit: Unit) -> dict[str, Scorecards]:
        return {
            subgroup: {
                name: [
                    _uncounted_scorecard(model, labels, truth, policy, against, unit)
                    for model in members
                ]
                for name, members in models.items()
            }
            for subgroup, against in ((AGAINST, True), (FOR, False))
        }

    scorecards = scorecards_by("image")

    def kept(key: MetricKey) -> bool:
        return key.metric in _WITH_UNCOUNTED and key.subgroup == ALL

    # Unknown labels are each system's own: a difference would compare other labels.
    most_names = 2 if labels.notna().all() else 1
    for subgroup, of_case in scorecards.items():
        of_patients = replace(resamples, n_clusters=evaluation_set_of(of_case).n_patients)
        drawn = resampled_figures(truth.finding, of_case, of_patients, kept=kept)
        again = with_clustered_auroc(drawn.estimates, of_case).changed(
            lambda names, key, each: each if kept(key) and len(names) <= most_names else None
        )
        estimates = estimates.merged(again, subgroup)
    if protocol.goals and protocol.unit not in (None, "image"):
        scorecards = scorecards_by(protocol.unit)
    return estimates, scorecards


def _uncounted_scorecard(
    model: EvaluatedModel,
    labels: pd.Series,
    truth: GroundTruth,
    policy: str,
    against: bool,
    unit: Unit,
) -> Scorecard:
    system, decision = model.system, _decision_by(unit, model, truth)
    ran = labels.index[labels.index.isin(system.images_run)]
    scored = system.output_on(ran).scores(model.decision.reduction)
    thresholds = [c.threshold for c in decision.thresholds.values() if c.threshold is not None]
    chosen = decision.thresholds.get(policy)
    at = np.inf if chosen is None or chosen.threshold is None else chosen.threshold
    if decision.chosen_scores is not None:  # between these every refitted threshold lies
        thresholds += decision.chosen_scores.scores.tolist()
    lowest, highest = min([*scored, *thresholds, 0.0]) - 1.0, max([*scored, *thresholds, 1.0]) + 1.0
    evaluated = describe_images(truth, labels.index, labels)
    units, evaluated = evaluated_units(evaluated, truth, labels.fillna(0.0), unit)
    failed = units.highest(~labels.index.isin(ran)) > 0
    scores = units.highest(scored.reindex(labels.index, fill_value=-np.inf))
    positive = units.highest(labels == 1) > 0
    unknown = ~positive & (units.highest(labels.isna()) > 0)
    positive |= unknown & (((scores >= at) ^ against) | np.isneginf(scores))
    extremes = np.where(positive == against, lowest, highest)
    scores = np.where(failed, np.maximum(scores, extremes), scores)
    return Scorecard(
        replace(evaluated, y_true=positive),
        pd.Series(scores, units.names),
        decision.thresholds,
        validation=decision.chosen_scores,
    )
