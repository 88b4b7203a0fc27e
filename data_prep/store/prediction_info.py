"""Record of a predictions folder."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from cxr_compare.data_prep.contracts.finding_names import Target
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


class MemberInfo(Record):
    """A member of an ensemble.

    Attributes:
        system: Name of the member.
        folder: Name of the folder of its predictions.
        inference_id: Digest of the model and its settings.
        recipe: How the member was trained, for the methods of a paper.
        cost: Number of parameters, FLOPs, latency in ms and others, by name; None if unknown.
    """

    system: str
    folder: str
    inference_id: str | None = None
    recipe: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None


class PredictionsInfo(MadeRecord, kind="predictions"):
    """Content of ``predictions.json``, which marks a folder with predictions of one system.

    A system is a trained model or a human reader. The file is written last, so its folder is
    complete.

    Attributes:
        system: Name of the system, such as ``RetinaNet``.
        kind: ``boxes`` of a detector, ``scores`` of a classifier or a human reader, or ``both``
            of a joint system.
        seed: Random seed of the training; None if unknown.
        findings: Names of the findings that the system predicts.
        names: Name of each finding in the data set, by the name that the model learned; None if
            they are equal.
        inference_id: Digest of the model and its settings, or of the imported rows.
        training_id: Digest of the training; None for imported predictions.
        exported_from: Digest of the training of an exported model; None for any other.
        backend: Program that computed, such as ``torch``.
        precision: Number format of the computation.
        run: Name of the folder of the training.
        recipe: How the system was trained, for the methods of a paper.
        trained_on: Data sets on which the system was trained, or ``unknown``.
        seen_unknown: Names of weights or members whose training images are unknown.
        tta: Test-time augmentation; None without it.
        maps: Method of the activation maps; None without maps.
        description: How the system was made, for the methods of a paper; None for our models.
        data_set: Data set of the predicted images, and its split; None if unknown.
        target: Target for whose decision only validation images were predicted; None if validation
            and test images were.
        cost: Number of parameters, FLOPs, latency in ms and others, by name; None if unknown.
        imported_from: Name of the file that was imported; None for predictions of our models.
        members: Members of an ensemble; None for a single system.
        ensemble: Method and weights by which the members were joined; None for a single system.
        notes: Sentences on how the predictions were read or joined.
        has_scores: False for boxes without scores, of which each has the score 1.
        files: SHA-256 of each table in the folder, by file name.
    """

    system: str
    kind: Literal["boxes", "scores", "both"]
    seed: Whole | None = None
    findings: Items[str] = ()
    names: dict[str, str] | None = None
    inference_id: str | None = None
    training_id: str | None = None
    exported_from: str | None = None
    backend: str | None = None
    precision: str | None = None
    run: str | None = None
    recipe: dict[str, Any] | None = None
    trained_on: Literal["unknown"] | Items[TrainingSet] = "unknown"
    seen_unknown: Items[str] = ()
    tta: dict[str, Any] | None = None
    maps: dict[str, str] | None = None
    description: str | None = None
    data_set: MadeOn | None = None
    target: Target | None = None
    cost: dict[str, Any] | None = None
    imported_from: str | None = None
    members: Items[MemberInfo] | None = None
    ensemble: dict[str, Any] | None = None
    notes: Items[str] = ()
    has_scores: bool = True
    files: Digests = Field(default_factory=dict)


class UnfinishedPredictions(Record, kind="unfinished_predictions"):
    """``unfinished.json`` of a predictions folder that is not complete yet.

    Attributes:
        identity: Kind of model, digest of model and settings, data set. A later call continues the
            folder only if its own facts are equal to these.
    """

    identity: dict[str, Any]
