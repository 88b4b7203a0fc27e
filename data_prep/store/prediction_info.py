"""Record of a predictions folder."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from cxr_compare.data_prep.contracts.provenance import MadeRecord
from cxr_compare.data_prep.contracts.records import Digests, Items, Record, Whole


class MadeOn(Record):
    """Data set from which a run or predictions were made.

    Attributes:
        content_id: Digest of the ids, patients, files and sizes of its images; another data set has
            another digest.
        labels_id: Digest of its labels and boxes; None if it was not recorded.
        split: Name of its assignment of images to train, validation and test, such as ``default``.
        split_id: Digest of that assignment; None if it was not recorded.
    """

    name: str
    content_id: str
    labels_id: str | None = None
    split: str | None = None
    split_id: str | None = None


class TrainingSet(Record):
    """A data set on which a model was trained, with the digest of its table of images."""

    name: str
    content_id: str


class PredictionsInfo(MadeRecord, kind="predictions"):
    """Content of ``predictions.json``, which marks a folder with predictions of one system.

    The file is written last, so its folder is complete.

    Attributes:
        system: Name of the system, such as ``RetinaNet``.
        kind: ``boxes`` of a detector, or ``scores`` of a classifier.
        seed: Random seed of the training; None if unknown.
        findings: Names of the findings that the system predicts.
        inference_id: Digest of the model and its settings.
        training_id: Digest of the training.
        exported_from: Digest of the training of an exported model; None for any other.
        backend: Program that computed, such as ``torch``.
        precision: Number format of the computation.
        run: Name of the folder of the training.
        recipe: How the system was trained, for the methods of a paper.
        trained_on: Data sets on which the system was trained, or ``unknown``.
        seen_unknown: Names of weights whose training images are unknown.
        maps: Method of the activation maps; None without maps.
        data_set: Data set of the predicted images, and its split; None if unknown.
        cost: Number of parameters, FLOPs, latency in ms and others, by name; None if unknown.
        files: SHA-256 of each table in the folder, by file name.
    """

    system: str
    kind: Literal["boxes", "scores"]
    seed: Whole | None = None
    findings: Items[str] = ()
    inference_id: str | None = None
    training_id: str | None = None
    exported_from: str | None = None
    backend: str | None = None
    precision: str | None = None
    run: str | None = None
    recipe: dict[str, Any] | None = None
    trained_on: Literal["unknown"] | Items[TrainingSet] = "unknown"
    seen_unknown: Items[str] = ()
    maps: dict[str, str] | None = None
    data_set: MadeOn | None = None
    cost: dict[str, Any] | None = None
    files: Digests = Field(default_factory=dict)


class UnfinishedPredictions(Record, kind="unfinished_predictions"):
    """``unfinished.json`` of a predictions folder that is not complete yet.

    Attributes:
        identity: Kind of model, digest of model and settings, data set. A later call continues the
            folder only if its own facts are equal to these.
    """

    identity: dict[str, Any]
