"""Evaluation of the systems in predictions folders.

This module does everything that needs a folder: it checks which images a system has seen in
training, adds the audit, and records how figures came about. The functions that compute figures
take tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation import choose
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.common_images import Images, common_test_images
from cxr_compare.evaluation.compare import (
    EligibleSystems,
    models_by_label,
    name_models,
)
from cxr_compare.evaluation.output import System
from cxr_compare.evaluation.sources.eligibility import (
    check_data_set,
    describe_training_data,
    notes_on_seen_images,
    training_sets,
)
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import read_system

_RECORDED = (
    "system", "seed", "kind", "inference_id", "training_id", "exported_from", "maps", "command",
    "created", "revision", "versions", "backend", "precision", "tta", "recipe", "members",
    "ensemble", "description",
)  # fmt: skip


def read_system_of_split(
    predictions: Predictions, split: LabelledSplit, roles: Sequence[str] = ("val", "test")
) -> System:
    """Load the predictions of one model for the validation or test images of a data set, or both.

    ``facts.fitted_on`` lists the labelled validation images that the model was trained on; in a
    correct division of the data there are none. An InputError is raised as by `read_system`.
    """
    ids = pd.Index(np.concatenate([split.truth.ids_of(role) for role in roles]), name="image_id")
    system = read_system(predictions, split.target, ids)
    labelled = split.truth.labels_of("val").dropna().index
    fitted = split.seen_by(predictions, labelled, ["train"]).all_ids
    return replace(system, facts=replace(system.facts, fitted_on=fitted))


def tune_predictions(predictions: Predictions, split: LabelledSplit, **options: Any) -> Choices:
    """Choose a model's thresholds and calibration on the validation images of a data set.

    The options are those of `evaluation.choose.tune`, which also says what is refused.
    """
    return choose.tune(read_system_of_split(predictions, split, ["val"]), split.truth, **options)


def read_decision(
    name: str,
    predictions: Predictions,
    split: LabelledSplit,
    policies: Sequence[str],
) -> Choices:
    """Return a model's stored thresholds and rules, or choose them on validation images.

    The work is done by `evaluation.choose.checked_decision`.
    """
    system = read_system_of_split(predictions, split, ["val"])
    return choose.checked_decision(name, system, split.truth, policies)


def read_eligible(
    systems: Mapping[str, Predictions | Sequence[Predictions]],
    split: LabelledSplit,
    images: Images = "all",
) -> EligibleSystems:
    """Read systems that may be compared, and select the test images that all of them ran on.

    Models that differ only in the training seed are given as a sequence under one name. With
    `images` ``all``, models that ran on different test images are refused; ``common`` takes the
    images on which all models ran. An InputError is also raised if predictions are of another data
    set, or a model has seen test images or patients in training.
    """
    named = name_models(systems)
    models = models_by_label(named)
    for label, predictions in models.items():
        check_data_set(label, predictions, split.dataset)
    read = {label: read_system_of_split(model, split) for label, model in models.items()}
    selected, notes = common_test_images(read, split.truth_with_facts, images=images)
    for label, predictions in models.items():
        notes += notes_on_seen_images(label, predictions, split, selected.test.image_ids)
        facts = replace(
            read[label].facts,
            trained_on=tuple(training_sets(predictions)),
            record={
                **record_of(predictions),
                "trained_on": describe_training_data(predictions),
            },
        )
        read[label] = replace(read[label], facts=facts)
    members = {name: {label: read[label] for label in of} for name, of in named.items()}
    data_set = {"name": split.dataset.name, **split.dataset.ids.to_json(), "split": split.split}
    return EligibleSystems(
        members,
        selected,
        notes,
        provenance() | {"data_set": data_set},
        _audit(split),
    )


def record_of(predictions: Predictions) -> dict[str, Any]:
    """Return what the record of a comparison shows of stored predictions."""
    recorded = predictions.info.to_json()
    shown = {key: recorded.get(key) for key in _RECORDED}
    return {"folder": predictions.folder.name, **shown}


def _audit(split: LabelledSplit) -> list[str] | None:
    """Return a sentence for each kind of error that ``cxr check`` finds; None without a check."""
    # This is imported late because it loads decoders of images, which the first figures do not
    # need.
    from cxr_compare.data_prep.audit.audit import split_errors

    errors = split_errors(split.dataset, split.split)
    return None if errors is None else [problem.counted_message for problem in errors]


def read_validation_scores(
    predictions: Predictions, decision: Choices, split: LabelledSplit
) -> pd.DataFrame:
    """Compute the image scores of validation images in the same way as those of test images.

    The table is that of `evaluation.choose.validation_scores`.
    """
    system = read_system(predictions, split.target, split.truth.ids_of("val"), maps=False)
    return choose.validation_scores(system, decision, split.truth)
