"""Evaluation of trained models on the test images, by image and by study or patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from cxr_compare.evaluation.box_choice import BOXES_BY
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.choose import (
    checked_decision,
    declare,
    tune,
)
from cxr_compare.evaluation.common_images import validation_learned_from
from cxr_compare.evaluation.evaluated_model import EvaluatedModel, Models
from cxr_compare.evaluation.figure_intervals import compute_figures
from cxr_compare.evaluation.figures import Figure, Figures
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics import missing_sentences
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.output import Output, System
from cxr_compare.evaluation.paired_tests import paired_tests
from cxr_compare.evaluation.replicates import replicates
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.units import Unit, Units, evaluated_units


def evaluate_models(
    systems: Mapping[str, Mapping[str, System]],
    images: LabelledImages,
    policies: Sequence[str],
    extra_policies: Sequence[str] = (),
    *,
    boxes_by: str = BOXES_BY,
) -> Models:
    """Apply the thresholds and rules of every model to its output on the evaluated images.

    `systems` is as `name_models` returns it; the models of each system are returned by its display
    name. Stored thresholds and rules are taken, with those of `extra_policies`
    added; those of other models are chosen on the images with the role ``val``, by `policies` and
    `boxes_by` (see `checked_decision`). An InputError is raised if stored ones were chosen on other
    images, labels or predictions.
    """
    models: dict[str, list[EvaluatedModel]] = {}
    for system_name, members in systems.items():
        models[system_name] = []
        for name, system in members.items():
            choices = checked_decision(
                name, system, images, policies, extra_policies, boxes_by=boxes_by
            )
            output = system.output_on(images.test.image_ids)
            model = EvaluatedModel(name, images.test, output, choices, system.facts)
            models[system_name].append(model)
    return models


def decision_notes(
    models: Models, systems: Mapping[str, System], images: LabelledImages
) -> list[Note]:
    """Note what the thresholds and rules of models rest on, if none were stored."""
    notes: list[Note] = []
    not_tuned = []
    no_validation: dict[bool, list[str]] = {False: [], True: []}  # by declared thresholds
    for model in (model for members in models.values() for model in members):
        system = systems[model.name]
        if not model.output.has_scores:
            text = missing_sentences.operating_point(model.name)
            notes.append(Note("operating_point", text))
        elif system.decision is None and model.choices.chosen_on["n_images"]:
            not_tuned.append(model.name)
        elif system.decision is None:
            is_declared = any(each.threshold is not None for each in model.thresholds.values())
            no_validation[is_declared].append(model.name)
        notes += validation_learned_from(model.name, system, images)
    if not_tuned:
        notes.append(Note("not_tuned", missing_sentences.not_tuned(not_tuned)))
    for declared, names in no_validation.items():
        if names:
            text = missing_sentences.no_validation(names, declared=declared)
            notes.append(Note("no_validation", text))
    return notes


@dataclass(frozen=True)
class UnitEvaluation:
    """Figures of all systems by study or patient instead of by image.

    `figures` and `tests` (as `paired_tests` returns them) are `None` if figures are by image only.
    """

    figures: Figures | None = None
    notes: list[Note] = field(default_factory=list)
    tests: pd.DataFrame | None = None


def evaluate_by_unit(
    models: Models,
    systems: Mapping[str, System],
    images: LabelledImages,
    unit: Unit,
    resamples: Resamples,
    own_metrics: Sequence[str] = (),
) -> UnitEvaluation:
    """Evaluate models by study or patient, with thresholds that are chosen by the same unit.

    `systems` has the output of each model on all images, by the model's name. Nothing is computed
    for the unit ``image``.
    """
    if unit == "image":
        return UnitEvaluation()
    units, whole = evaluated_units(images, unit)
    by_unit = {
        name: [
            _by_unit(model, systems[model.name], units, whole, images, unit) for model in members
        ]
        for name, members in models.items()
    }
    frames = replicates(by_unit, resamples, own_metrics=own_metrics)
    figures = compute_figures(images.finding, by_unit, frames, resamples, unit=unit)
    # Localisation is evaluated by image only, so its figures get no row, not even one with a note.
    figures = figures.without(lambda key: METRICS[key.metric].boxed)
    return UnitEvaluation(
        figures=_with_thresholds(figures, by_unit),
        notes=[_unit_note(units, whole, len(images.test.image_ids), figures, by_unit)],
        tests=paired_tests(figures, by_unit),
    )


def _by_unit(
    model: EvaluatedModel,
    system: System,
    units: Units,
    whole: LabelledImages,
    images: LabelledImages,
    unit: Unit,
) -> EvaluatedModel:
    """Return a model with the highest score of each study or patient, tuned by the same unit."""
    choices = _choices_by(unit, model.choices, system, images)
    output = Output.from_scores(units.names, units.highest(model.scores))
    output = replace(output, has_scores=model.output.has_scores)
    return replace(model, images=whole, output=output, choices=choices)


def _choices_by(unit: Unit, chosen: Choices, system: System, images: LabelledImages) -> Choices:
    policies = list(chosen.thresholds)
    by_unit = tune(system, images, policies=policies, options=chosen.options, unit=unit)
    if chosen.declared is not None:
        by_unit = declare(by_unit, chosen.declared)
    return by_unit.with_values(reduction=None, map_boxes=None, map_scale=None, box_choice=None)


def _with_thresholds(figures: Figures, models: Models) -> Figures:
    """Add the thresholds of the first seed as figures, because they differ from those by image."""
    rows = dict(figures.rows)
    for name in figures.systems:
        counted = next(iter(rows[name, ""].values()))
        thresholds = {
            MetricKey(ALL, policy, "threshold"): Figure(
                choice.threshold,
                n_images=counted.n_images,
                n_patients=counted.n_patients,
                n_positive=counted.n_positive,
                effective_patients=counted.effective_patients,
            )
            for policy, choice in models[name][0].thresholds.items()
            if choice.threshold is not None
        }
        rows[name, ""] = {**rows[name, ""], **thresholds}
    return replace(figures, rows=rows)


def _unit_note(
    units: Units, whole: LabelledImages, n_images: int, figures: Figures, models: Models
) -> Note:
    unit, plural = figures.unit, figures.plural_unit
    n_units, n_positive = len(units.names), int(np.sum(whole.y_true))
    text = (
        f"By {unit}: {n_units:,} {plural} of {n_images:,} images, {n_positive:,} of them positive. "
        f"A {unit} is positive if any of its images is. Its score is the highest of its images."
    )
    if any(model.chosen_policies for members in models.values() for model in members):
        text += f" Thresholds are chosen again on validation {plural}."
    if units.n_left_out:
        text += (
            f" {units.n_left_out:,} {plural} are left out, because an image has no known label and "
            "none is positive."
        )
    return Note("unit", text)
