"""Comparison of systems on the same test images: all figures, intervals and paired differences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, TypeVar

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.box_choice import BOXES_BY
from cxr_compare.evaluation.boxes.box_figures import choosing_figures
from cxr_compare.evaluation.comparison import Comparison, decisive_figures
from cxr_compare.evaluation.evaluate import decision_notes, evaluate_by_unit, evaluate_models
from cxr_compare.evaluation.evaluated_model import Models
from cxr_compare.evaluation.figure_intervals import (
    compute_figures,
)
from cxr_compare.evaluation.figures import Figures, image_blind_name
from cxr_compare.evaluation.groups.exposure import Exposure, check_exposures, unseen_figures
from cxr_compare.evaluation.groups.failure_analysis import failure_table, shortcut_table
from cxr_compare.evaluation.groups.image_blind import (
    image_blind_models,
    image_blind_notes,
    learn_places,
)
from cxr_compare.evaluation.groups.prevalence import Prevalence
from cxr_compare.evaluation.groups.subgroups import image_groups
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.notes import Note, reading_note
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.output import System
from cxr_compare.evaluation.paired_tests import paired_tests
from cxr_compare.evaluation.protocol import EXPLORATORY, Protocol
from cxr_compare.evaluation.replicates import Evidence, choose_again
from cxr_compare.evaluation.replicates import replicates as draw_replicates
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.system_result import SystemResult
from cxr_compare.evaluation.thresholds import POLICIES
from cxr_compare.evaluation.units import Unit
from cxr_compare.evaluation.verdict.cautions import (
    chance_notes,
    data_notes,
    few_patients,
    figures_left_out,
    misread_boxes,
    missing_boxes,
    shortcut_notes,
)
from cxr_compare.evaluation.verdict.score_checks import score_notes
from cxr_compare.evaluation.verdict.unequal_recipes import conditions_of_other_recipes


@dataclass(frozen=True)
class EligibleSystems:
    """Systems that may be compared, the test images that all of them ran on, and their truth.

    Attributes:
        named: Models of each system by its display name, as `name_models` returns them.
        images: Labels, roles, patients and true boxes of all images, with the test images that all
            systems ran on.
        notes: Remarks on images that are left out, and on those that a model has seen.
        recorded: Ids and versions that the record of the comparison shows.
        audit: Errors that ``cxr check`` found in the data; None if nothing was checked.
    """

    named: Mapping[str, Mapping[str, System]]
    images: LabelledImages
    notes: list[Note]
    recorded: Mapping[str, Any] = field(default_factory=dict)
    audit: list[str] | None = None


def compare_systems(  # noqa: PLR0913 - options of cxr compare
    eligible: EligibleSystems,
    *,
    policies: Sequence[str] = (),
    replicates: int = 2000,
    seed: int = 0,
    protocol: Protocol = EXPLORATORY,
    prevalence: str | float | None = None,
    unit: Unit = "image",
    own_metrics: Sequence[str] = (),
    exposures: Sequence[Exposure] = (),
    patients: pd.Index | None = None,
    advance: Callable[[int], None] | None = None,
) -> Comparison:
    """Evaluate systems on the same test images, and compare them with intervals by patient.

    The thresholds, the calibration (function from scores to probabilities) and the rule for boxes
    (which predicted boxes are evaluated) of each system are chosen on the validation images. If
    they were chosen and stored before, the stored ones are taken. The interval of an
    AUROC is closed (Obuchowski 1997, by patient), and so are those of single figures at a
    threshold. All other intervals come from a bootstrap in which all systems share the resampled
    patients.

    The first system is the reference, which the others are compared with, unless the protocol names
    another. An InputError is raised if stored thresholds and rules of a system were chosen on other
    validation images, labels or predictions, or if a system lacks the primary figure of a protocol
    that was declared in a file.

    The options are those of ``cxr compare``: `policies` are thresholds in addition to the
    stored ones, or to `POLICIES`; `prevalence` is a share such as ``"0.05"``, a share with
    its 95 % interval such as ``"0.05:0.03-0.08"``, or counts such as ``"12/240"``; `own_metrics`
    are names that `register_metric` returns. `patients` has the sorted names of the patients that
    are resampled, if the same resamples are to serve other findings, whose test images are of other
    patients; None takes those of the test images. `advance` is called after each step with the
    number of resamples in it.

    Example:
        >>> from cxr_compare.evaluation.common_images import common_test_images
        >>> ids = [f"{role}{n}" for role in ("val", "test") for n in range(40)]
        >>> rows = pd.DataFrame({"image_id": ids, "patient_id": ids})
        >>> labels = pd.DataFrame({"label": [0.0, 1.0] * 40}, index=ids)
        >>> roles = pd.Series(["val"] * 40 + ["test"] * 40, index=ids)
        >>> labelled = LabelledImages(rows, labels, roles)
        >>> ran = rows[["image_id"]].assign(status="ok")
        >>> rows = ran[["image_id"]].assign(finding="label")
        >>> good = System("good", "scores", ran, rows.assign(score=[0.2, 0.7] * 40))
        >>> poor = System("poor", "scores", ran, rows.assign(score=[0.2, 0.7, 0.7, 0.2] * 20))
        >>> named = name_models({"good": good, "poor": poor})
        >>> images, notes = common_test_images(models_by_label(named), labelled)
        >>> eligible = EligibleSystems(named, images, notes)
        >>> comparison = compare_systems(eligible, replicates=50)
        >>> comparison
        <Comparison of good and poor on label: 40 test images>
        >>> comparison.figures.difference("good", "poor", "auroc").estimate
        0.5
    """
    if not eligible.named:
        raise InputError("compare needs at least one system")
    named = {name: eligible.named[name] for name in protocol.in_order(eligible.named)}
    images = eligible.images
    usual = tuple(dict.fromkeys((*POLICIES, *filter(None, [protocol.policy]))))
    unit = protocol.unit_of(unit)
    of_use = None if prevalence is None else Prevalence.parse(prevalence)
    if patients is not None:
        images = replace(images, patient_ids=patients)
    test = images.test
    image_groups(images.images, protocol.subgroups)  # refuses subgroups that cannot be formed
    for name, members in named.items():
        _check_seeds(name, list(members.values()))
    boxes_by = protocol.metric if protocol.metric in choosing_figures() else BOXES_BY
    seen = check_exposures(exposures, list(named), images)
    models = evaluate_models(named, images, usual, policies, boxes_by=boxes_by)
    resamples = Resamples(test.n_patients, replicates, seed)
    protocol = _without_ranking(protocol, models)
    check_protocol(protocol, models)
    places = learn_places(images, resamples)
    blind = (
        {} if places is None else image_blind_models(models, models_by_label(named), images, places)
    )
    again = choose_again(models, resamples, blind)
    frames = draw_replicates(models, resamples, again, own_metrics=own_metrics, advance=advance)
    if blind:
        baselines = {image_blind_name(name): members for name, members in blind.items()}
        frames |= draw_replicates(baselines, resamples, again, boxed_only=True)
    no_claim = "" if places is None else places.no_claim
    figures = compute_figures(
        images.finding, models, frames, resamples, image_blind=blind, no_claim=no_claim
    )
    _check_primary(protocol, figures)
    by_unit = evaluate_by_unit(models, models_by_label(named), images, unit, resamples, own_metrics)
    exposed = [replace(each, figures=unseen_figures(each.exposure, models)) for each in seen]
    tests = paired_tests(figures, models, by_unit.tests)
    shortcuts = shortcut_table(models)
    records = _records(models)
    results = {
        name: SystemResult.from_models(seeds, again[name, 0], blind.get(name, ()))
        for name, seeds in models.items()
    }
    return Comparison(
        finding=images.finding,
        display_name=images.shown_name,
        findings=images.findings or (images.finding,),
        figures=figures,
        tests=tests,
        shortcuts=shortcuts,
        compute_groups=cache(
            partial(failure_table, models, again, protocol, of_use, resamples, shortcuts)
        ),
        systems=results,
        decisions=_decisions_table(models, test.images),
        provenance={**eligible.recorded, **_record(models, records, protocol, resamples)},
        records=records,
        notes=[
            *eligible.notes,
            *decision_notes(models, models_by_label(named), images),
            *score_notes(models),
            *(each.note for each in exposed),
            *figures_left_out(models, models_by_label(named), figures, images),
            *missing_boxes(figures, test),
            *few_patients(test),
            *misread_boxes(models, figures),
            *image_blind_notes(places, blind, models),
            *by_unit.notes,
            *_seed_notes(models),
            *_reading_notes(images, models_by_label(named)),
            *data_notes(images, models, eligible.audit),
            *chance_notes(decisive_figures(protocol, figures, by_unit.figures)),
            *shortcut_notes(shortcuts),
        ],
        exposures=exposed,
        evidence=Evidence(models, frames, resamples),
        protocol=protocol,
        by_unit=by_unit.figures,
        declared={
            model.name: model.choices.declared
            for members in models.values()
            for model in members
            if model.choices.declared is not None
        },
        synthetic=images.n_synthetic,
        audit=eligible.audit,
        patients_known=test.of_unknown_patient(test.image_ids) < len(test.image_ids),
        split=images.split,
        replicates=resamples.n_replicates,
    )


_Model = TypeVar("_Model")
_COUNT = re.compile(r"\d{1,3}")


MOST_LETTERS = 100
"""Longest name of a system: it also names files and is a row of each table."""


def check_names(names: Iterable[str]) -> None:
    """Refuse a name of a system that is too long for tables and files (InputError)."""
    for name in names:
        if len(name) > MOST_LETTERS:
            raise InputError(
                f"compare: the name '{name[:30]}...' has {len(name)} letters; give the system a "
                f"name of at most {MOST_LETTERS}: NAME=PATH"
            )


def name_models(
    systems: Mapping[str, _Model | Sequence[_Model]],
) -> dict[str, dict[str, _Model]]:
    """Give every trained model of every system a name of its own.

    The only model of a system has the name of the system. If there are several training seeds, the
    models are called ``NAME #1``, ``NAME #2`` and so on. An InputError is raised if a name is too
    long, a system has no model, two models would get the same name (such as those of a system
    called ``A #1`` and of the first seed of a system called ``A``), or a system has the name of the
    image-blind baseline of another.

    Example:
        >>> name_models({"A": ["first", "second"]})
        {'A': {'A #1': 'first', 'A #2': 'second'}}
    """
    check_names(systems)
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
    for name in named:
        if image_blind_name(name) in named:
            raise InputError(
                f"compare: system '{image_blind_name(name)}' is called as the baseline of {name}; "
                "rename it"
            )
    return named


def models_by_label(named: Mapping[str, Mapping[str, _Model]]) -> dict[str, _Model]:
    """Collect the models that `name_models` returned in one dictionary, by their own names.

    Example:
        >>> models_by_label({"A": {"A #1": "first", "A #2": "second"}, "B": {"B": "third"}})
        {'A #1': 'first', 'A #2': 'second', 'B': 'third'}
    """
    return {label: model for models in named.values() for label, model in models.items()}


def check_protocol(protocol: Protocol, models: Models) -> None:
    """Check that all models have what the question of a comparison needs.

    An InputError is raised if a model lacks a threshold by the rule that the question names, or if
    the primary figure of a protocol file depends on a choice on validation images that the
    bootstrap does not repeat.
    """
    for model in (model for members in models.values() for model in members):
        if protocol.policy and protocol.policy not in model.choices.thresholds:
            raise InputError(
                f"{model.output.source}: the protocol asks for policy '{protocol.policy}', "
                f"{model.name} has {', '.join(model.choices.thresholds)}; predict it again"
            )
        if not protocol.declared:
            continue
        for metric, policy in protocol.keys:
            choices = model.choices_of(MetricKey(ALL, policy, metric))
            fixed = [name for name, made_again in choices.items() if not made_again]
            if fixed:
                raise InputError(
                    f"protocol: the primary figure '{metric}' of {model.name} rests on a choice "
                    f"on validation whose sampling error is in no interval ({listing(fixed)}): "
                    "fix another metric, or compare without a protocol"
                )


def _without_ranking(protocol: Protocol, models: Models) -> Protocol:
    """Let F1 decide a comparison in which a system has no scores, unless a file fixed the figure.

    F1 is taken at the first policy for which all systems have a threshold.
    """
    members = [model for of_one in models.values() for model in of_one]
    if protocol.declared or all(model.output.has_scores for model in members):
        return protocol
    for policy in members[0].thresholds:
        others = [model.thresholds.get(policy) for model in members]
        if all(each is not None and each.threshold is not None for each in others):
            return replace(protocol, metric="f1", policy=policy)
    return protocol


def _check_primary(protocol: Protocol, figures: Figures) -> None:
    """Refuse an undefined primary figure, if it was declared beforehand in a protocol file."""
    for name in figures.systems if protocol.declared else ():
        for key in protocol.keys:
            figure = figures.get(name, *key)
            if not figure.known:
                raise InputError(
                    f"protocol: the primary figure '{key[0]}' is undefined for {name}: "
                    f"{figure.note or 'nothing on validation gives it'}; compare systems that have "
                    "it, or fix another metric"
                )


def _reading_notes(images: LabelledImages, systems: Mapping[str, System]) -> list[Note]:
    """Make the notes on how labels and systems were read; equal ones name all systems."""
    names: dict[str, list[str]] = {}
    for name, system in systems.items():
        for sentence in dict.fromkeys(system.facts.notes):
            names.setdefault(sentence, []).append(name)
    notes = [reading_note(sentence) for sentence in images.notes]
    notes += [reading_note(sentence, listing(of)) for sentence, of in names.items()]
    image_ids = set(images.image_ids)
    return [
        note._replace(names_images=not image_ids.isdisjoint(_words(note.text))) for note in notes
    ]


def _words(text: str) -> set[str]:
    """Return the words of a note that may be ids of images, with and without a file's ending."""
    words = {word for word in re.split(r"[\s,;:()'\"?]+", text) if not _COUNT.fullmatch(word)}
    return words | {re.sub(r"\.\w{2,5}$", "", word) for word in words}


def _seed_notes(systems: Models) -> list[Note]:
    """Make a note for each system with several training seeds."""
    return [
        Note(
            "seeds",
            f"Figures of {name} are means over {len(models)} training seeds; its curves, "
            "thresholds, confusion matrices and images are those of the first seed.",
        )
        for name, models in systems.items()
        if len(models) > 1
    ]


def _check_seeds(name: str, members: Sequence[System]) -> None:
    """Refuse a system whose seeds are of different kinds or recipes, or twice the same training.

    The same training twice would hide the variation between trainings, and another recipe is no
    other seed.
    """
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
    records = {str(member.source): member.facts.record for member in members}
    for condition, values in conditions_of_other_recipes(records).items():
        differ = "; ".join(f"{source}: {text}" for source, text in values.items())
        raise InputError(
            f"{name}: its trainings are no seeds of one recipe, they differ in {condition} "
            f"({differ}); compare them as two systems"
        )


def _decisions_table(models: Models, images: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each image and system, from the first seed of each system."""
    tables = [members[0].decisions(name) for name, members in models.items()]
    table = pd.concat(tables, ignore_index=True)
    return table.merge(images[["image_id", "patient_id"]], on="image_id", how="left")


def _records(models: Models) -> dict[str, dict[str, Any]]:
    """Return what is known of each system, with all of its training seeds."""
    records = {}
    for name, members in models.items():
        of_seeds = [
            {**model.facts.record, "decision": model.choices.to_json()}
            for model in members
            if model.facts.record
        ]
        if len(of_seeds) == 1:
            records[name] = of_seeds[0]
        elif of_seeds:
            seeds = [of_one["seed"] for of_one in of_seeds]
            records[name] = of_seeds[0] | {"seed": seeds, "models": of_seeds}
    return records


def _record(
    models: Models, records: Mapping[str, Any], protocol: Protocol, resamples: Resamples
) -> dict[str, Any]:
    """Return the settings of a comparison, which are stored in its provenance."""
    seeds = {name: [model.facts.seed for model in members] for name, members in models.items()}
    return {
        "bootstrap": {
            "replicates": resamples.n_replicates,
            "seed": resamples.seed,
            "interval": "percentile",
        },
        "seeds": {name: values if len(values) > 1 else values[0] for name, values in seeds.items()},
        **({"systems": records} if records else {}),
        "protocol": protocol.to_dict(),
    }
