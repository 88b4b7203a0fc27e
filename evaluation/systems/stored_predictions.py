"""Predictions folders as tables in memory, and the evaluation of these.

Everything that needs a folder happens here: reading tables, checks against what a system has seen
in training, the audit, and the record of how a figure came about. What is computed takes tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.store.dataset import Target
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.compare.background import Background
from cxr_compare.evaluation.compare.common_images import Images, common_test_images
from cxr_compare.evaluation.compare.compare import (
    compare_systems,
    models_by_label,
    name_models,
    pilot_parts,
)
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.decisions import tuning
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet
from cxr_compare.evaluation.decisions.system_output import System, SystemFacts, SystemOutput
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.statistics.clustered_auroc import AurocParts
from cxr_compare.evaluation.systems.eligibility import (
    check_data_set,
    describe_training_data,
    notes_on_seen_images,
    training_id,
    training_sets,
)
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit

_RECORDED = (
    "system", "seed", "kind", "inference_id", "training_id", "exported_from", "maps", "command",
    "created", "revision", "versions", "backend", "precision", "tta", "recipe", "members",
)  # fmt: skip


def read_system(
    predictions: Predictions,
    target: Target,
    image_ids: pd.Index | None = None,
    *,
    maps: bool = True,
) -> System:
    """Read what a system says of a target.

    Args:
        predictions: The system.
        target: The findings whose rows are read.
        image_ids: Images whose rows are read; by default all that were predicted.
        maps: Whether activation maps are read, which are large.

    Returns:
        The rows of the target on these images, and facts of the system.

    Raises:
        InputError: A table is broken, or has rows of an image that was not predicted.
    """
    ids = pd.Index(predictions.images["image_id"]) if image_ids is None else image_ids
    info = predictions.info
    system = System(
        name=predictions.name,
        kind="boxes" if predictions.kind == "boxes" else "scores",
        images=predictions.images,
        scores=predictions.rows("scores", target.any_of, ids),
        boxes=predictions.rows("boxes", target.any_of, ids),
        findings=target.any_of,
        decision=predictions.decision(target.name),
        source=str(predictions.folder),
        facts=SystemFacts(
            seed=info.get("seed"),
            training_id=training_id(info),
            inference_id=info.get("inference_id"),
            exported=bool(info.get("exported_from")),
            cost=dict(info.get("cost") or {}),
        ),
    )
    return replace(system, maps=predictions.rows("maps", target.any_of, ids)) if maps else system


def read_output(
    predictions: Predictions, target: Target, image_ids: pd.Index, *, maps: bool = True
) -> SystemOutput:
    """Read what a system says of chosen images, on all of which it ran.

    Args:
        predictions: The system.
        target: The findings whose rows are read.
        image_ids: The images, shape ``(N,)``; the system ran on all of them.
        maps: Whether activation maps are read, which are large.

    Returns:
        Scores, boxes and maps of the images, in the order of `image_ids`.

    Raises:
        InputError: A table is broken, or has rows of an image that was not predicted.
    """
    return read_system(predictions, target, image_ids, maps=maps).output_on(image_ids)


def read_system_of_split(
    predictions: Predictions, split: LabelledSplit, roles: Sequence[str] = ("val", "test")
) -> System:
    """Read a system's output on the images of some roles, and which validation images it learned.

    A decision is chosen on validation images: whoever needs it alone reads no row of the others.

    Args:
        predictions: The system.
        split: The split.
        roles: Roles whose images are read.

    Returns:
        The system's rows on these images.

    Raises:
        InputError: A table is broken, or has rows of an image that was not predicted.
    """
    ids = pd.Index(np.concatenate([split.image_ids(role) for role in roles]), name="image_id")
    system = read_system(predictions, split.target, ids)
    labelled = split.labels_of("val").dropna().index
    fitted = split.seen_by(predictions, labelled, ["train"]).all_ids
    return replace(system, facts=replace(system.facts, fitted_on=fitted))


def tune_predictions(predictions: Predictions, split: LabelledSplit, **options: Any) -> Decision:
    """Choose a system's decision rule on validation: see `evaluation.decisions.tuning.tune`.

    Args:
        predictions: The system.
        split: The split on whose validation images the rule is chosen.
        **options: Keywords of `evaluation.decisions.tuning.tune`.

    Returns:
        The decision.

    Raises:
        InputError: See `evaluation.decisions.tuning.tune`.
    """
    return tuning.tune(read_system_of_split(predictions, split, ["val"]), split.truth, **options)


def checked_decision(
    name: str,
    predictions: Predictions,
    split: LabelledSplit,
    policies: Sequence[str],
    extra_policies: Sequence[str] = (),
) -> tuple[Decision, list[Note]]:
    """Derive a system's decision again: see `evaluation.decisions.tuning.checked_decision`.

    Args:
        name: Display name of the system.
        predictions: The system.
        split: The split on whose validation images the decision was chosen.
        policies: Policies of a system that was not tuned before.
        extra_policies: Policies in addition to those that the system was tuned for.

    Returns:
        The decision derived now, and notes.

    Raises:
        InputError: The stored decision was chosen on other rows, or with another result.
    """
    system = read_system_of_split(predictions, split, ["val"])
    return tuning.checked_decision(name, system, split.truth, policies, extra_policies)


def _read_eligible(
    models: Mapping[str, Predictions], split: LabelledSplit, images: Images
) -> dict[str, System]:
    """Read models that may be compared, with what a reader must know of their training.

    Raises:
        InputError: Predictions are of another data set, the models ran on different test images,
            or one has seen test images or patients in training.
    """
    for label, predictions in models.items():
        check_data_set(label, predictions, split.dataset)
    read = {label: read_system_of_split(model, split) for label, model in models.items()}
    common, _ = common_test_images(read, split.truth, images=images)
    for label, predictions in models.items():
        facts = replace(
            read[label].facts,
            notes=tuple(notes_on_seen_images(label, predictions, split, common.image_ids)),
            trained_on=tuple(training_sets(predictions)),
        )
        read[label] = replace(read[label], facts=facts)
    return read


def common_images_of_predictions(
    models: Mapping[str, Predictions], split: LabelledSplit, *, images: Images = "all"
) -> tuple[EvaluationSet, list[Note]]:
    """Return the test images that all models are scored on, and what to note.

    Args:
        models: Predictions by display name.
        split: The split whose test images are evaluated.
        images: ``all`` refuses models that ran on different test images; ``common`` takes the
            images that all ran on.

    Returns:
        The images with their truth, and notes on images that are left out.

    Raises:
        InputError: Predictions are of another data set, the models ran on different test images,
            or one has seen test images or patients in training.
    """
    return common_test_images(_read_eligible(models, split, images), split.truth, images=images)


def compare_predictions(
    systems: Mapping[str, Predictions | Sequence[Predictions]],
    split: LabelledSplit,
    *,
    images: Images = "all",
    **options: Any,
) -> Comparison:
    """Compare predictions on a split of a data set.

    The figures are those of `evaluation.compare.compare.compare_systems`, whose options it takes.

    Args:
        systems: Predictions by display name, the reference system first; several training seeds of
            one system as a sequence.
        split: The split whose test images are evaluated.
        images: ``all`` refuses systems that ran on different test images; ``common`` takes the
            images that all ran on.
        **options: Further keywords of `compare_systems`.

    Returns:
        The comparison.

    Raises:
        InputError: Predictions are of another data set, a system has seen test images or patients
            in training, or as `compare_systems` says.
    """
    named = name_models(systems)
    read = _read_eligible(models_by_label(named), split, images)
    tables = {name: [read[label] for label in members] for name, members in named.items()}
    comparison = compare_systems(tables, split.truth_with_facts, images=images, **options)
    records = _records(comparison, systems)
    return replace(
        comparison,
        background=with_audit(comparison.background, split),
        provenance=_provenance(comparison, records, split),
        records=records,
    )


def with_audit(background: Background, split: LabelledSplit) -> Background:
    """Add to a comparison the errors that ``cxr check`` found in the data set or in its split."""
    if split.dataset.is_in_memory:
        return background
    # Imported only now: it decodes images, and the first figures come before it.
    from cxr_compare.data_prep.audit.audit import split_errors

    errors = split_errors(split.dataset, split.split)
    audit = None if errors is None else tuple(problem.counted_message for problem in errors)
    return replace(background, audit=audit)


def pilot_of_predictions(
    systems: Mapping[str, Predictions | Sequence[Predictions]], split: LabelledSplit
) -> dict[str, list[AurocParts]]:
    """Return what each test patient adds to each system's AUROC, for each training seed.

    Args:
        systems: Predictions by display name; several training seeds of one system as a sequence.
        split: The split whose test images are evaluated.

    Returns:
        Contributions to the AUROC for each training seed of each system.

    Raises:
        InputError: As `compare_predictions`, or the test images are of one class.
    """
    named = name_models(systems)
    read = _read_eligible(models_by_label(named), split, "all")
    tables = {name: [read[label] for label in members] for name, members in named.items()}
    return pilot_parts(tables, split.truth)


def _records(
    comparison: Comparison, systems: Mapping[str, Predictions | Sequence[Predictions]]
) -> dict[str, dict[str, Any]]:
    """Return what is recorded of each system."""
    facts = {}
    for name in comparison.names:
        given = systems[name]
        members = [given] if isinstance(given, Predictions) else list(given)
        decisions = comparison.systems[name].decisions
        of_seeds = [
            _facts(member, decision) for member, decision in zip(members, decisions, strict=True)
        ]
        several = {"seed": [of_one["seed"] for of_one in of_seeds], "models": of_seeds}
        facts[name] = of_seeds[0] | several if len(of_seeds) > 1 else of_seeds[0]
    return facts


def _provenance(
    comparison: Comparison, records: Mapping[str, dict[str, Any]], split: LabelledSplit
) -> dict[str, Any]:
    """Return the record of a comparison: versions, ids, seeds, and each system's facts."""
    return provenance() | {
        "data_set": {"name": split.dataset.name, **split.dataset.ids, "split": split.split},
        "bootstrap": comparison.provenance["bootstrap"],
        "seeds": {name: of_system["seed"] for name, of_system in records.items()},
        "systems": dict(records),
        "protocol": comparison.protocol.to_dict(),
    }


def _facts(predictions: Predictions, decision: Decision) -> dict[str, Any]:
    """Return what the record of a comparison holds of one model."""
    return {
        "folder": predictions.folder.name,
        **{key: predictions.info.get(key) for key in _RECORDED},
        "trained_on": describe_training_data(predictions),
        "decision": decision.to_dict(),
    }


def validation_scores(
    predictions: Predictions, decision: Decision, split: LabelledSplit
) -> pd.DataFrame:
    """Score the validation images as the test images are scored: ``label``, ``score``.

    Args:
        predictions: The system.
        decision: Its decision rule, which reduces boxes to image scores.
        split: The split.

    Returns:
        ``label`` (1.0 or 0.0) and ``score``, indexed by image id.
    """
    system = read_system(predictions, split.target, split.image_ids("val"), maps=False)
    return tuning.validation_scores(system, decision, split.truth)
