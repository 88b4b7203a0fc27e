"""Records of a run folder: how a training was started, and what it made."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

from pydantic import Field

from cxr_compare.data_prep.contracts.provenance import MadeRecord
from cxr_compare.data_prep.contracts.records import Digests, Items, NumbersByName, Record, Whole
from cxr_compare.data_prep.store.prediction_info import MadeOn, TrainingSet


class StartedFrom(Record):
    """Initial weights of a training, with facts about the training that made them.

    Attributes:
        weights: File or folder of the weights, as the user gave it.
        trained_on: ``unknown`` for weights of another program; None for those of a training.
        findings: Findings in the order of its outputs.
        started_from: Its own initial weights.
        n_images: Number of images that it used.
        n_patients: Number of patients of these images.
    """

    weights: str
    trained_on: Literal["unknown"] | None = None
    name: str | None = None
    model_kind: str | None = None
    target: str | None = None
    findings: Items[str] = ()
    seed: Whole | None = None
    data_set: MadeOn | None = None
    started_from: StartedFrom | None = None
    n_images: Whole | None = None
    n_patients: Whole | None = None


class StartedRun(MadeRecord, kind="started_run"):
    """Content of ``started.json``: facts that must be unchanged when a training is resumed.

    Attributes:
        name: Name of the trained model, such as ``RetinaNet``.
        findings: Findings in the order of the network's outputs.
        data_set: Data set and its split into train, validation and test.
        despite_audit: Errors of the data set's audit that the user set aside.
        synthetic: True if the program drew all training images itself.
        started_from: Initial weights; None for random and for published weights.
        precision: Number format of the training, ``fp32``, ``bf16`` or ``fp16``.
        files: SHA-256 of the table of used images, by file name.
    """

    name: str
    model_kind: Literal["detector", "classifier"] | None = None
    target: str | None = None
    findings: Items[str] = ()
    seed: Whole | None = None
    data_set: MadeOn | None = None
    despite_audit: Items[str] = ()
    synthetic: bool = False
    started_from: StartedFrom | None = None
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    files: Digests = Field(default_factory=dict)

    @property
    def training_sets(self) -> list[TrainingSet]:
        """Data sets of the training and of those whose weights it started from, its own first."""
        sets: list[TrainingSet] = []
        origin: StartedRun | StartedFrom | None = self
        while origin is not None:
            if origin.data_set is not None:
                made_on = origin.data_set
                known = TrainingSet(name=made_on.name, content_id=made_on.content_id)
                if known not in sets:
                    sets.append(known)
            origin = origin.started_from
        return sets

    @property
    def unknown_weights(self) -> list[str]:
        """File name of start weights whose training data are unknown; empty without such a file."""
        origin = self.started_from
        while origin is not None:
            if origin.trained_on == "unknown":
                return [PurePath(origin.weights).name]
            origin = origin.started_from
        return []


class RunInfo(StartedRun, kind="run"):
    """Content of ``run.json``, which marks a training run as complete.

    An export and a joint system describe the training that they are of by the same class.

    Attributes:
        monitor: Figure on validation by which the best epoch was chosen.
        best_epoch: Number of that epoch; None for a probe.
        best_value: Value of the figure at that epoch.
        best_figures: All figures of that epoch.
        stopped_early: True if training stopped before the last epoch that was allowed.
        tta: Test-time views that ``cxr predict --data`` joins by default, as validation chose them;
            empty for the plain image, None if the configuration names no views.
        tta_tried: FROC mean on validation of the plain image and of the views with it.
        penalties: Penalty that was chosen for each finding of a probe; None for other models.
        n_boxes: Number of boxes of the training images, from which a detector learned.
        n_labels: Number of known labels of the training images, from which a classifier learned.
        pretrained: Published weights that the training began with, or a file.
        cpu_settings: Number of threads and of loading processes.
        seconds: Time of all epochs.
        seconds_features: Time of computing the features of a probe.
        folder: Folder of the run, as an export records it; None in the run itself.
        inference_id: Digest of the run's predictions, as an export records it.
        flops: Floating-point operations for an image, as an export records them.
    """

    monitor: str | None = None
    best_epoch: Whole | None = None
    best_value: float | None = None
    best_figures: NumbersByName = Field(default_factory=dict)
    epochs: Whole | None = None
    stopped_early: bool | None = None
    tta: Items[str] | None = None
    tta_tried: NumbersByName = Field(default_factory=dict)
    penalties: dict[str, float] | None = None
    n_train: Whole | None = None
    n_val: Whole | None = None
    n_boxes: Whole | None = None
    n_labels: Whole | None = None
    pretrained: str | None = None
    parameters: Whole | None = None
    trainable_parameters: Whole | None = None
    cpu_settings: dict[str, Whole] | None = None
    device: str | None = None
    devices: Whole | None = None
    device_name: str | None = None
    seconds: float | None = None
    seconds_training: float | None = None
    seconds_validation: float | None = None
    seconds_features: float | None = None
    folder: str | None = None
    inference_id: str | None = None
    flops: Whole | None = None
