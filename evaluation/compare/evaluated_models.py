"""Evaluation of trained models on the test images, by image and by study or patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.compare.common_images import validation_learned_from
from cxr_compare.evaluation.compare.estimates import Estimate, Estimates
from cxr_compare.evaluation.compare.intervals import resampled_figures
from cxr_compare.evaluation.compare.paired_tests import resampled_tests
from cxr_compare.evaluation.compare.scorecard import Scorecard, Scorecards
from cxr_compare.evaluation.compare.sentences import note
from cxr_compare.evaluation.decisions.box_choice import BOXES_BY
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.ground_truth import (
    EvaluationSet,
    GroundTruth,
)
from cxr_compare.evaluation.decisions.system_output import System, SystemOutput
from cxr_compare.evaluation.decisions.tuning import checked_decision, declare, tune
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
    """One trained model with its thresholds, its output and its figures on the test images.

    Attributes:
        name: Name of the system, with the number of the training seed if there are several.
        system: The system with all its stored output.
        decision: Thresholds, calibration, and rules for image scores and boxes, which were chosen
            on the validation images.
        output: Predictions of the system for the evaluated images.
        scorecard: Object that computes all figures of the model on the evaluated images.
    """

    name: str
    system: System
    decision: Decision
    output: SystemOutput
    scorecard: Scorecard

    @property
    def first_line(self) -> str:
        """Line of text with the name and figures that need no threshold, without intervals.

        The figures are AUROC, average precision and figures of boxes and points, as far as there
        are any.
        """
        once = {
            key.metric: figure for key, figure in self.scorecard.once.items() if key.subgroup == ALL
        }
        titles = {metric: METRICS[metric].title for metric in _FIRST if metric in once}
        told = (f"{inside_sentence(t)} {number(float(once[m][0]))}" for m, t in titles.items())
        return f"{self.name}: {', '.join(told)}"

    def decisions(self, system: str) -> pd.DataFrame:
        """Return a table with the scores and decisions of the model, one row for each image.

        Args:
            system: Display name of the system, for the column ``system``.

        Returns:
            Table with ``image_id``, ``system``, ``label`` (1.0 or 0.0), ``score``, ``probability``
            (NaN without calibration), ``decision_RULE`` for each rule that chose a threshold (such
            as ``decision_max_f1``; True if called positive), ``point_x`` and ``point_y`` (point
            that the model gives, original px) and ``localised`` (True if the point lies on a
            lesion; missing but for positive images whose lesions are all boxed). There is a column
            ``x_class`` (kind of image, such as ``normal``) if it is known.
        """
        scorecard = self.scorecard
        evaluated = scorecard.evaluated
        calibration = self.decision.calibration
        frame = pd.DataFrame({"image_id": evaluated.image_ids.to_numpy(), "system": system})
        frame["label"] = evaluated.y_true.astype(np.float64)
        frame["score"] = scorecard.scores
        frame["probability"] = (
            np.nan if calibration is None else calibration.probability(scorecard.scores)
        )
        for policy in scorecard.thresholds:
            called = scorecard.called(policy)
            column = pd.array([pd.NA] * len(frame) if called is None else called, dtype="boolean")
            frame[f"decision_{policy}"] = column
        points = np.full((len(frame), 2), np.nan) if scorecard.points is None else scorecard.points
        frame[["point_x", "point_y"]] = np.asarray(points, dtype=np.float64)
        frame["localised"] = _on_lesion(evaluated, scorecard.localised)
        if evaluated.x_class is not None:
            frame["x_class"] = evaluated.x_class.to_numpy()
        return frame


Models = Mapping[str, Sequence[EvaluatedModel]]
"""Evaluated models of each system by its display name, one for each training seed."""


def _on_lesion(evaluated: EvaluationSet, hit: npt.NDArray[np.bool_] | None) -> pd.Series:
    """Return hits as a column, missing for all but positive images whose lesions are all boxed."""
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
    *,
    boxes_by: str = BOXES_BY,
) -> tuple[Models, list[Note]]:
    """Choose the thresholds and rules of every model, and compute its figures on test images.

    Args:
        systems: For each system by its name, a dictionary from the name of each of its models (one
            for each training seed) to the model, as `name_models` returns it.
        evaluated: The evaluated test images with their labels, patients and true boxes.
        truth: Labels, patients, true boxes and roles of all images. Thresholds and rules are chosen
            on the images with the role ``val`` (validation).
        policies: Rules by which thresholds are chosen for systems of which ``cxr tune`` stored no
            thresholds, such as ``["max_f1"]``.
        extra_policies: Rules for thresholds in addition to those whose thresholds ``cxr tune``
            stored.
        boxes_by: Short name of the metric by which the rule for boxes is chosen for systems of
            which ``cxr tune`` stored no rule, such as ``froc_mean``.

    Returns:
        The evaluated models of each system by its display name, and notes for the report on the
        choice of their thresholds and rules.

    Raises:
        InputError: Thresholds or rules that ``cxr tune`` stored differ from those that the
            validation images give.
    """
    notes: list[Note] = []
    chosen: dict[str, tuple[SystemOutput, Decision]] = {}
    for models in systems.values():
        for name, system in models.items():
            decision, of_model = checked_decision(
                name, system, truth, policies, extra_policies, boxes_by=boxes_by
            )
            chosen[name] = system.output_on(evaluated.image_ids), decision
            notes += [*of_model, *validation_learned_from(name, system, truth)]

    def model(name: str, system: System) -> EvaluatedModel:
        output, decision = chosen[name]
        scorecard = Scorecard.from_output(output, decision, evaluated)
        return EvaluatedModel(name, system, decision, output, scorecard)

    return {system: [model(*item) for item in of.items()] for system, of in systems.items()}, notes


def scorecards_of(models: Models) -> Scorecards:
    """Collect the objects that compute the figures of each system's models (scorecards).

    A scorecard computes all figures of one trained model on the evaluated images.

    Args:
        models: Trained models of each system by its display name, one for each training seed, with
            their predictions and figures on the evaluated images.

    Returns:
        Scorecards by display name of the system, one for each training seed.
    """
    return {name: [model.scorecard for model in members] for name, members in models.items()}


@dataclass(frozen=True)
class UnitEvaluation:
    """Figures of all systems by study or patient instead of by image.

    Attributes:
        estimates: Figures and differences with intervals; `None` if figures are by image only.
        scorecards: Objects that compute the figures by study or patient, by display name of the
            system, one for each training seed; empty if figures are by image only.
        notes: Notes for the report about the studies or patients.
        tests: Table of bootstrap tests of the paired differences, one row for each, as
            `resampled_tests` returns it; `None` if figures are by image only.
    """

    estimates: Estimates | None = None
    scorecards: Scorecards = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    tests: pd.DataFrame | None = None


def evaluate_by_unit(
    models: Models,
    evaluated: EvaluationSet,
    truth: GroundTruth,
    unit: Unit,
    resamples: Resamples,
) -> UnitEvaluation:
    """Evaluate models by study or patient, with thresholds that are chosen by the same unit.

    Args:
        models: Trained models of each system by its display name, one for each training seed, with
            their predictions and figures on the evaluated images.
        evaluated: The evaluated test images with their labels and patients.
        truth: Labels, studies and patients of all images.
        unit: ``study`` or ``patient``. With ``image``, nothing is computed.
        resamples: Bootstrap samples of the patients: number of patients, number of resamples and
            random seed.

    Returns:
        The figures, tests and notes by study or patient; empty for ``image``.
    """
    if unit == "image":
        return UnitEvaluation()
    units, whole = evaluated_units(evaluated, truth, truth.labels_of("test"), unit)
    scorecards = {
        name: [_unit_scorecard(model, units, whole, truth, unit) for model in members]
        for name, members in models.items()
    }
    resampled = resampled_figures(truth.finding, scorecards, resamples, unit=unit)
    # Localisation is evaluated by image only, so its figures get no row, not even one with a note.
    metrics = set()
    for members in scorecards.values():
        for scorecard in members:
            metrics |= {key.metric for key in scorecard.estimates()}
            metrics |= {
                key.metric
                for key in scorecard.missing()
                if key.policy and not METRICS[key.metric].boxed
            }
    estimates = resampled.estimates.changed(
        lambda _, key, estimate: estimate if key.metric in metrics else None
    )
    return UnitEvaluation(
        estimates=_with_thresholds(estimates, scorecards),
        scorecards=scorecards,
        notes=[_unit_note(units, whole, len(evaluated.image_ids), estimates)],
        tests=resampled_tests(estimates, resampled.differences),
    )


def _unit_scorecard(
    model: EvaluatedModel, units: Units, whole: EvaluationSet, truth: GroundTruth, unit: Unit
) -> Scorecard:
    rule = _decision_by(unit, model, truth)
    image_scores = model.output.scores(model.decision.reduction)
    scores = pd.Series(units.highest(image_scores), units.names)
    return Scorecard(
        whole,
        scores,
        rule.thresholds,
        validation=rule.chosen_scores,
        probability=rule.probability(scores),
    )


def _decision_by(unit: Unit, model: EvaluatedModel, truth: GroundTruth) -> Decision:
    """Return the decision of a model; for studies and patients it is chosen again by this unit."""
    chosen = model.decision
    if unit == "image":
        return chosen
    policies = list(chosen.thresholds)
    by_unit = tune(model.system, truth, policies=policies, options=chosen.options, unit=unit)
    return by_unit if chosen.declared is None else declare(by_unit, chosen.declared)


def _with_thresholds(figures: Estimates, scorecards: Scorecards) -> Estimates:
    """Add the thresholds of the first seed as figures, because they differ from those by image."""
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
