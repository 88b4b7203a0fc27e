"""Predictions folders as tables in memory.

`cxr predict` starts with this module, so it imports nothing that computes figures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.output import Output, System, SystemFacts


def stored_decision(predictions: Predictions, target: str) -> Choices | None:
    """Return the choices that are stored for a target; None if there are none."""
    path = predictions.decision_file(target)
    return Choices.read(path) if not predictions.tables and path.is_file() else None


def store_decision(predictions: Predictions, choices: Choices) -> Path:
    """Store choices with the predictions that they are for, and return the path of the file."""
    path = predictions.decision_file(choices.target)
    make_folder(path.parent)
    choices.write(path)
    return path


def read_system(
    predictions: Predictions,
    target: Target,
    image_ids: pd.Index | None = None,
    *,
    maps: bool = True,
) -> System:
    """Load the predictions of one detector or classifier for one finding into memory.

    Only rows of the target's findings are read, of the images `image_ids` (None for all predicted
    ones). Activation maps are large, so `maps` can leave them out. The stored thresholds and facts
    about the training are included. An InputError is raised if a stored table is broken, or has
    rows of an image that was not predicted.
    """
    ids = pd.Index(predictions.images["image_id"]) if image_ids is None else image_ids
    info = predictions.info
    system = System(
        name=predictions.name,
        kind=predictions.kind,
        images=predictions.images,
        scores=predictions.rows("scores", target.any_of, ids),
        boxes=predictions.rows("boxes", target.any_of, ids),
        findings=target.any_of,
        decision=stored_decision(predictions, target.name),
        source=str(predictions.folder),
        has_scores=info.has_scores,
        facts=SystemFacts(
            seed=info.seed,
            training_id=training_id(info),
            inference_id=info.inference_id,
            exported=bool(info.exported_from),
            cost=dict(info.cost or {}),
            score_range=predictions.score_range,
            notes=info.notes,
        ),
    )
    return replace(system, maps=predictions.rows("maps", target.any_of, ids)) if maps else system


def read_output(
    predictions: Predictions, target: Target, image_ids: pd.Index, *, maps: bool = True
) -> Output:
    """Load the predictions of one detector or classifier for chosen images, in their order.

    The model must have been run on all of them. All else is as in `read_system`.
    """
    return read_system(predictions, target, image_ids, maps=maps).output_on(image_ids)


def training_id(info: PredictionsInfo) -> str:
    """Return the id of the training run whose model made the predictions.

    An exported model has the id of the run that it was exported from. Neither device nor precision
    changes the id. Predictions that were imported from other software name no run; theirs is their
    own ``inference_id``.

    Example:
        >>> info = PredictionsInfo(system="A", kind="scores", exported_from="r", inference_id="x")
        >>> training_id(info)
        'r'
    """
    return str(info.training_id or info.exported_from or info.inference_id)
