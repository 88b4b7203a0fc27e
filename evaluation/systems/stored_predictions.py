"""Predictions folders as tables in memory, and the evaluation of these tables.

This module does everything that needs a folder: it reads tables, checks which images a system has
seen in training, adds the audit, and records how figures came about. The functions that compute
figures take tables.
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
    """Read the output of a system for a target.

    Args:
        predictions: Predictions of the system.
        target: Target whose findings are read.
        image_ids: Ids of the images whose rows are read; by default all predicted images.
        maps: True to read activation maps too, which are large.

    Returns:
        The rows of the target on these images, and facts about the system.

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
    """Read the output of a system on chosen images, on all of which it ran.

    Args:
        predictions: Predictions of the system.
        target: Target whose findings are read.
        image_ids: Ids of the images, shape ``(N,)``; the system ran on all of them.
        maps: True to read activation maps too, which are large.

    Returns:
        Scores, boxes and maps of the images, in the order of `image_ids`.

    Raises:
        InputError: A table is broken, or has rows of an image that was not predicted.
    """
    return read_system(predictions, target, image_ids, maps=maps).output_on(image_ids)


def read_system_of_split(
    predictions: Predictions, split: LabelledSplit, roles: Sequence[str] = ("val", "test")
) -> System:
    """Read a system's output on the images of some roles, such as validation and test.

    A decision is chosen on validation images only, so a caller who needs only the decision reads no
    rows of other images. The result also lists validation images that the system was trained on,
    which a clean split does not have.

    Args:
        predictions: Predictions of the system.
        split: The split with the images.
        roles: Roles whose images are read.

    Returns:
        The rows of the system on these images. Its `facts.fitted_on` has the validation images that
        it was also trained on.

    Raises:
        InputError: A table is broken, or has rows of an image that was not predicted.
    """
    ids = pd.Index(np.concatenate([split.image_ids(role) for role in roles]), name="image_id")
    system = read_system(predictions, split.target, ids)
    labelled = split.labels_of("val").dropna().index
    fitted = split.seen_by(predictions, labelled, ["train"]).all_ids
    return replace(system, facts=replace(system.facts, fitted_on=fitted))


def tune_predictions(predictions: Predictions, split: LabelledSplit, **options: Any) -> Decision:
    """Choose a system's decision rule on validation images with `evaluation.decisions.tuning.tune`.

    Args:
        predictions: Predictions of the system.
        split: The split on whose validation images the rule is chosen.
        **options: Further keywords of `evaluation.decisions.tuning.tune`.

    Returns:
        The chosen decision rule.

    Raises:
        InputError: The rule cannot be chosen, see `evaluation.decisions.tuning.tune`.
    """
    return tuning.tune(read_system_of_split(predictions, split, ["val"]), split.truth, **options)


def checked_decision(
    name: str,
    predictions: Predictions,
    split: LabelledSplit,
    policies: Sequence[str],
    extra_policies: Sequence[str] = (),
) -> tuple[Decision, list[Note]]:
    """Derive a system's decision again with `evaluation.decisions.tuning.checked_decision`.

    Args:
        name: Display name of the system.
        predictions: Predictions of the system.
        split: The split on whose validation images the decision was chosen.
        policies: Policies for a system that was not tuned before.
        extra_policies: Policies in addition to those that the system was tuned for.

    Returns:
        The decision as derived now, and notes for the reader.

    Raises:
        InputError: The stored decision was chosen on other rows, or the result now differs.
    """
    system = read_system_of_split(predictions, split, ["val"])
    return tuning.checked_decision(name, system, split.truth, policies, extra_policies)


def _read_eligible(
    models: Mapping[str, Predictions], split: LabelledSplit, images: Images
) -> dict[str, System]:
    """Read models that may be compared, with notes on their training.

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
    """Return the test images on which all models are evaluated, and notes on the others.

    Args:
        models: Predictions of each model by display name.
        split: Data set, target, and the split whose test images are evaluated.
        images: ``all`` refuses models that ran on different test images; ``common`` takes the
            images on which all models ran.

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

    The figures and the further options are those of `evaluation.compare.compare.compare_systems`.

    Args:
        systems: Predictions by display name, the reference system first; several training seeds of
            one system as a sequence.
        split: Data set, target, and the split whose test images are evaluated.
        images: ``all`` refuses systems that ran on different test images; ``common`` takes the
            images on which all systems ran.
        **options: Further keywords of `compare_systems`.

    Returns:
        The comparison.

    Raises:
        InputError: Predictions are of another data set, a system has seen test images or patients
            in training, or `compare_systems` refuses the input.
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
    """Add to a comparison the errors that ``cxr check`` found in the data set or in its split.

    Args:
        background: Further facts that the comparison reports beside the figures.
        split: Data set, target, and the split whose test images are evaluated.

    Returns:
        The background with the errors; unchanged for a data set in memory.
    """
    if split.dataset.is_in_memory:
        return background
    # This is imported late because it loads decoders of images, which the first figures do not
    # need.
    from cxr_compare.data_prep.audit.audit import split_errors

    errors = split_errors(split.dataset, split.split)
    audit = None if errors is None else tuple(problem.counted_message for problem in errors)
    return replace(background, audit=audit)


def pilot_of_predictions(
    systems: Mapping[str, Predictions | Sequence[Predictions]], split: LabelledSplit
) -> dict[str, list[AurocParts]]:
    """Return how much each test patient adds to the AUROC of each system, to plan a study.

    Args:
        systems: Predictions by display name; several training seeds of one system as a sequence.
        split: Data set, target, and the split whose test images are evaluated.

    Returns:
        Contributions to the AUROC for each training seed of each system.

    Raises:
        InputError: `compare_predictions` would refuse the input, or the test images are of one
            class.
    """
    named = name_models(systems)
    read = _read_eligible(models_by_label(named), split, "all")
    tables = {name: [read[label] for label in members] for name, members in named.items()}
    return pilot_parts(tables, split.truth)


def _records(
    comparison: Comparison, systems: Mapping[str, Predictions | Sequence[Predictions]]
) -> dict[str, dict[str, Any]]:
    """Return the record of each system, with all of its training seeds."""
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
    """Return the record of a comparison: versions, ids, seeds, and facts about each system."""
    return provenance() | {
        "data_set": {"name": split.dataset.name, **split.dataset.ids, "split": split.split},
        "bootstrap": comparison.provenance["bootstrap"],
        "seeds": {name: of_system["seed"] for name, of_system in records.items()},
        "systems": dict(records),
        "protocol": comparison.protocol.to_dict(),
    }


def _facts(predictions: Predictions, decision: Decision) -> dict[str, Any]:
    """Return the facts about one model that the record of a comparison contains."""
    return {
        "folder": predictions.folder.name,
        **{key: predictions.info.get(key) for key in _RECORDED},
        "trained_on": describe_training_data(predictions),
        "decision": decision.to_dict(),
    }


def validation_scores(
    predictions: Predictions, decision: Decision, split: LabelledSplit
) -> pd.DataFrame:
    """Score the validation images in the same way as the test images.

    Args:
        predictions: Predictions of the system.
        decision: Decision rule of the system: how boxes become image scores, calibration and
            thresholds.
        split: The split whose validation images are scored.

    Returns:
        A table with ``label`` (1.0 or 0.0) and ``score``, indexed by image id.
    """
    system = read_system(predictions, split.target, split.image_ids("val"), maps=False)
    return tuning.validation_scores(system, decision, split.truth)
