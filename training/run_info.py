"""Records of a run folder: how a training was started, and what it made."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

from pydantic import Field

from cxr_compare.data_prep.base.provenance import MadeRecord
from cxr_compare.data_prep.base.records import Digests, Items, Record
from cxr_compare.data_prep.predictions import MadeOn, TrainingSet

WEIGHTS_FILE = "model.safetensors"
MODEL_FILE = "model.json"
PREPROCESS_FILE = "preprocess.json"


class StartedFrom(Record):
    """Weights that a training started from, and the training that made them.

    Attributes:
        trained_on: ``unknown`` for weights of another program; None for those of a training.
        started_from: What that training started from.
    """

    weights: str
    trained_on: Literal["unknown"] | None = None
    name: str | None = None
    model_kind: str | None = None
    target: str | None = None
    findings: Items[str] = ()
    seed: int | None = None
    data_set: MadeOn | None = None
    started_from: StartedFrom | None = None


class StartedRun(MadeRecord, kind="started_run"):
    """Content of ``started.json``: what must be the same when a training goes on.

    Attributes:
        findings: Findings in the order of the network's outputs.
        classes: Names for people of classes that exclude each other: of the images without a
            finding, then of the findings; empty where findings may occur together.
        despite_audit: Errors of the audit that the user set aside.
        synthetic: True if a program drew all images of the training.
        started_from: Start weights; None for random and for published ones.
        own_parts: Arguments in which the user gave own classes in place of the configuration's.
        files: SHA-256 of the table of the images that were used.
    """

    name: str
    model_kind: Literal["detector", "classifier"]
    target: str
    findings: Items[str]
    classes: Items[str] = ()
    seed: int
    data_set: MadeOn
    despite_audit: Items[str] = ()
    synthetic: bool = False
    started_from: StartedFrom | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    own_parts: Items[str] = ()
    files: Digests = Field(default_factory=dict)

    @property
    def training_sets(self) -> list[TrainingSet]:
        """Data sets of the training, and of those whose weights it started from, its own first."""
        sets: list[TrainingSet] = []
        origin: StartedRun | StartedFrom | None = self
        while origin is not None:
            if origin.data_set is not None:
                training_set = TrainingSet(
                    name=origin.data_set.name, content_id=origin.data_set.content_id
                )
                sets += [] if training_set in sets else [training_set]
            origin = origin.started_from
        return sets

    @property
    def unknown_weights(self) -> list[str]:
        """File name of start weights whose training images nobody knows; empty without."""
        origin = self.started_from
        while origin is not None:
            if origin.trained_on == "unknown":
                return [PurePath(origin.weights).name]
            origin = origin.started_from
        return []


class RunInfo(StartedRun, kind="run"):
    """Content of ``run.json``, which marks a training as complete.

    Attributes:
        monitor: Figure on validation by which the best epoch was chosen.
        seconds: Time of all epochs.
    """

    monitor: str
    best_epoch: int
    best_value: float
    epochs: int
    n_train: int
    n_val: int
    n_boxes: int | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    flops: int | None = None
    device: str | None = None
    devices: int = 1
    seconds: float | None = None

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the weights."""
        return self.files[WEIGHTS_FILE]
