"""What is trained: a model with its images, and the weights that it starts from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.augment.mosaic import DroppedBoxes
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.duplicates.seen_images import SeenImages
from cxr_compare.data_prep.store.dataset import Target
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.networks.checkpoints import Checkpoint
from cxr_compare.networks.public_checkpoints import recognise_public_checkpoint
from cxr_compare.training.run_folder import WEIGHTS_FILE, RunFolder, read_architecture, read_weights

_PUBLISHED = ("imagenet", "coco")


@dataclass(frozen=True)
class _Start(Checkpoint):
    """Weights from a file or a run, with all that the run has seen."""

    run: RunFolder | None = None  # the run that made them; None for a file from elsewhere

    @classmethod
    def open(cls, weights: str) -> _Start | None:
        """Read what a configuration's ``weights`` names.

        A weights file that lies in a run folder counts as that run, so that what it has seen is
        not lost; the run need not have ended, as one that diverges never does.
        """
        if weights in ("none", *_PUBLISHED):
            return None
        path = Path(weights)
        run: RunFolder | None = None
        if path.is_dir():
            run, path = RunFolder.open(path), path / WEIGHTS_FILE
        state = read_weights(path)
        if run is None:
            home = path.resolve().parent
            run = RunFolder.started_in(home.parent if home.name == "checkpoints" else home)
        if run is None:
            return cls(weights, state)
        arguments = read_architecture(run.folder)["arguments"]
        findings = tuple(run.started["findings"])
        return cls(weights, state, findings, arguments.get("backbone"), arguments, run)

    public = cached_property(recognise_public_checkpoint)  # None if it is no public classifier

    @property
    def pixels(self) -> Preprocess | None:
        """Size and normalisation of the images that the run learned from."""
        return Preprocess.from_json(self.run.folder / "preprocess.json") if self.run else None

    @property
    def normalisation(self) -> dict[str, float]:
        """Mean and standard deviation of the pixels that it learned; empty where not known."""
        learned = self.pixels or self.public
        return {} if learned is None else {"mean": learned.mean, "std": learned.std}

    def pixel_notes(self, size: int) -> list[str]:
        """How its pixels were, and what of it differs from a training at a size; a line or none."""
        was, public, pixels = self.pixels, self.public, self.normalisation
        if not pixels:
            return []
        lines = [
            f"{self.source}: pixels are normalised as it learned them, mean {pixels['mean']:g}, "
            f"std {pixels['std']:g}"
        ]
        if public:
            lines.append(
                f"it is of {public.maker}, which learned at {public.size} px from "
                f"{public.trained_on}: test images among those would look better than they are"
            )
        if was and was.size != size:
            lines.append(f"it learned at {was.size} px, this training is at {size} px")
        return ["; ".join(lines)]

    def record(self) -> dict[str, Any]:
        """For `run.json`: which weights, what they learned, on what, from what."""
        if self.run is None:
            return {"weights": self.source, "trained_on": "unknown"}
        started, seen = self.run.started, self.run.seen
        kept = ("name", "model_kind", "target", "findings", "seed", "data_set", "started_from")
        return {
            "weights": self.source,
            **{key: started[key] for key in kept if key in started},
            "n_images": len(seen),
            "n_patients": int(seen["patient_id"].nunique()),
        }

    def merge_seen(self, own: pd.DataFrame) -> pd.DataFrame:
        """Add what the weights saw to what a training uses.

        An image that either used to fit is fitted on, whatever the other used it for.
        """
        if self.run is None or (seen := self.run.seen).empty:
            return own
        patients = own.set_index("image_id")["patient_id"]
        known = seen["image_id"].isin(patients.index)
        same = known & (seen["patient_id"] == seen["image_id"].map(patients))
        fitted = set(seen.loc[same & (seen["role"] == "train"), "image_id"])
        own = own.assign(role=own["role"].mask(own["image_id"].isin(fitted), "train"))
        rest = seen[~same].copy()
        clash = known[~same]
        rest.loc[clash, "image_id"] = f"{self.run.folder.name}:" + rest.loc[clash, "image_id"]
        return pd.concat([own, rest.reindex(columns=own.columns)], ignore_index=True)

    def leak_lines(self, own: pd.DataFrame, test: pd.DataFrame) -> list[str]:
        """Say where the weights make a training's figures too good."""
        if self.run is None:
            return []
        seen = self.run.seen
        used = seen[seen["role"].isin(["train", "val"])]  # to fit, to select
        lines = []
        chosen = own[own["role"] == "val"]
        if n := len(SeenImages.among(chosen, used[used["role"] == "train"]).all_ids):
            lines.append(
                f"{self.source}: learned from patients of {n} of the {len(chosen)} validation "
                "images; the validation figures will look better than they are"
            )
        leaked = SeenImages.among(test, used)
        if n := len(leaked.known):
            lines.append(
                f"{self.source}: has seen patients of {n} of the {len(test)} test images; cxr "
                "compare will refuse this run on this split: train both on the same split"
            )
        evaluated = "cxr compare refuses equal images and warns of near copies"
        return lines + [f"{line}; {evaluated}" for line in leaked.copy_lines(self.source)]


class TrainingTask(ABC):
    """A model, its images, and its ways to learn and to be measured."""

    model: Any  # the network, initialised; its weights are trained in place
    train: Any  # training images, by row or by (row, seed)
    val: Any  # validation images, by row
    # Samples to a batch, which has `image_ids` and `to(device)`; of a module, for loaders to import
    collate: Callable[[Sequence[Any]], Any]
    positive: np.ndarray  # which training images have a finding, bool (len(train),)
    draw_weights: Any  # how often each training image is drawn, for `SeededSampler`; None: once

    def __init__(self, config: Config, target: Target) -> None:
        self.findings = target.any_of  # what it learns to find, in the order of its outputs
        self.start = _Start.open(config.model.weights)  # None for random or published weights
        self.notes: list[str] = []  # what to know of its model, a line each
        self.callbacks: list[Callback] = []  # before the record of each epoch, which saves them

    def _build_model(
        self,
        build: Callable[..., Any],
        start_from: Callable[..., str],
        config: Config,
        size: int,
        **arguments: Any,
    ) -> Any:
        """The model, from the seed or published weights, or with what fits of those of `start`."""
        start, weights = self.start, config.model.weights
        arguments |= config.model.model_dump(exclude={"weights", "trainable"})
        if start is not None:
            arguments |= start.normalisation
            self.notes += start.pixel_notes(size)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(config.training.seed)
            model = build(
                weights=weights if weights in _PUBLISHED else None,
                n_findings=len(self.findings),
                image_size=size,
                **arguments,
            )
        if start is not None:
            self.notes.append(start_from(model, start, self.findings))
        trainable = config.model.trainable
        if trainable is None:
            trainable = 3 if config.kind == "detector" and weights in _PUBLISHED else "all"
        freeze = partial(model.freeze_for_epoch, trainable)
        if trainable in ("head_first", "stages"):
            self.callbacks.append(_Unfreezing(freeze))
        else:
            freeze()
        return model

    @abstractmethod
    def training_losses(self, model: Any, batch: Any) -> dict[str, Tensor]:
        """Scalars whose sum is minimised, of the model or of a copy of it."""

    @abstractmethod
    def loss_weight(self, batch: Any) -> float:
        """How many images the losses of a batch are a mean of.

        Where they are a mean of known answers, an image with half of them unknown is half a one.
        """

    @abstractmethod
    def validation_step(self, model: Any, batch: Any) -> tuple[dict[str, Tensor], Any]:
        """Losses and output of a batch, in eval mode and without gradient."""

    @abstractmethod
    def validation_metrics(self, outputs: list[Any]) -> dict[str, float]:
        """Figures by name, from the outputs of all validation batches."""

    @abstractmethod
    def describe(self, batch: Any) -> tuple[list[str], list[np.ndarray] | None]:
        """Captions and boxes for the figure of a batch."""

    def dropped_boxes(self, history: Sequence[dict[str, Any]]) -> DroppedBoxes | None:
        """What became of the training boxes under augmentation; None where none were counted."""
        return None


class _Unfreezing(Callback):
    """Sets at the beginning of each epoch which parts learn.

    The optimiser has all of them from the start, so that a training can be resumed in any epoch;
    it leaves those alone that have no gradient.
    """

    def __init__(self, freeze: Callable[[int], None]) -> None:
        self._freeze = freeze  # for an epoch, counted from 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze for an epoch that is resumed, which has no start."""
        if trainer.world_size > 1:  # which agree once which gradients to expect
            raise InputError(
                "model.trainable: parts cannot be unfrozen while several devices share a batch; "
                "train on one device, or choose trainable = 'all' or 'head'"
            )
        self._freeze(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze and unfreeze."""
        self._freeze(trainer.current_epoch)


def mean_of_defined(figures: Sequence[float | None]) -> float:
    """The mean of the findings' figures that are defined; NaN where none is."""
    defined = [figure for figure in figures if figure is not None]
    return float(np.mean(defined)) if defined else float("nan")
