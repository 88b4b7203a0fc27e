"""The training task of a model: its network, its images, its losses and its figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.training.mosaic import DroppedBoxes
from cxr_compare.training.start_weights import PUBLISHED_WEIGHTS, StartWeights


class ModelTask:
    """A model to fit, with its images and the weights that it starts from.

    Args:
        config: Configuration of the training, which names the initial weights.
        target: Finding, or group of findings, that is learned.

    Attributes:
        model: Initialised network, whose weights are trained in place.
        train: Training images, which are requested by row, or by row and random seed of the
            augmentation.
        val: Validation images, which are requested by row.
        positive: True for each training image with a finding, bool, (number of training images,).
        findings: Findings to learn, in the order of the network's outputs.
        start: Weights that the network starts from; None for random or published weights.
        notes: Lines for the user about the network.
        callbacks: Lightning callbacks of this kind of model.
    """

    model: Any
    train: Any
    val: Any
    positive: np.ndarray

    def __init__(self, config: Config, target: Target) -> None:
        self.findings = target.any_of  # findings to learn, in the order of the outputs
        weights = config.model.weights or "none"
        self.start = StartWeights.open(weights)  # None for random or published ones
        self.notes: list[str] = []  # lines for the user about the model
        self.callbacks: list[Callback] = []  # run before the epoch record, which saves their state

    def _build_model(
        self,
        build: Callable[..., Any],
        start_from: Callable[..., str],
        config: Config,
        size: int,
        **arguments: Any,
    ) -> Any:
        """Build the model from the seed or published weights, and load what fits of `start`."""
        start = self.start
        weights = config.model.weights
        arguments |= config.model.model_dump(exclude={"weights", "trainable"})
        if start is not None:
            arguments |= start.normalisation
            self.notes += start.pixel_notes(size)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(config.training.seed)
            model = build(
                weights=weights if weights in PUBLISHED_WEIGHTS else None,
                n_findings=len(self.findings),
                image_size=size,
                **arguments,
            )
        if start is not None:
            self.notes.append(start_from(model, start, self.findings))
        trainable = config.model.trainable
        if trainable is None:
            trainable = 3 if config.kind == "detector" and weights in PUBLISHED_WEIGHTS else "all"
        freeze = partial(model.freeze_for_epoch, trainable)
        if trainable in ("head_first", "stages"):
            self.callbacks.append(GradualUnfreezing(freeze))
        else:
            freeze()
        return model


class TrainingTask(ModelTask, ABC):
    """Base class of a training's network, images, losses and metrics; subclasses define them.

    Attributes:
        model: Initialised network, whose weights are trained in place.
        train: Training images, which are requested by row, or by row and random seed of the
            augmentation.
        val: Validation images, which are requested by row.
        collate: Function that joins samples into a batch with ``image_ids`` and ``to(device)``. It
            belongs to a module, so that the processes that load images can import it.
        positive: True for each training image with a finding, bool, (number of training images,).
        draw_weights: Weight of each training image in random draws with replacement, for
            `SeededSampler`; None draws each image once.
        findings: Findings to learn, in the order of the network's outputs.
        start: Weights that the network starts from; None for random or published weights.
        notes: Lines for the user about the network.
        callbacks: Lightning callbacks of this kind of model.
    """

    collate: Callable[[Sequence[Any]], Any]
    draw_weights: Any

    @abstractmethod
    def training_losses(self, model: Any, batch: Any) -> dict[str, Tensor]:
        """Compute the losses of a training batch by name. Training minimises their sum.

        Args:
            model: The network of this task or a copy of it.
            batch: A training batch: images with labels or true boxes.

        Returns:
            Scalar losses by name.
        """

    @abstractmethod
    def loss_weight(self, batch: Any) -> float:
        """Return the number of images by which the mean losses of a batch are weighted.

        If the losses are means over known labels, an image with half of its labels unknown counts
        0.5.

        Args:
            batch: Training or validation batch.
        """

    @abstractmethod
    def validation_step(self, model: Any, batch: Any) -> tuple[dict[str, Tensor], Any]:
        """Compute losses and output of a batch, in evaluation mode and without gradient.

        Args:
            model: The network of this task.
            batch: A validation batch: images with labels or true boxes.

        Returns:
            Scalar losses by name, and the output (predictions and labels) for `validation_metrics`.
        """

    @abstractmethod
    def validation_metrics(self, outputs: list[Any]) -> dict[str, float]:
        """Compute the metrics of an epoch from the outputs of all validation batches.

        Args:
            outputs: Outputs of `validation_step` for all validation batches.

        Returns:
            Metrics by name, such as ``auroc``.
        """

    @abstractmethod
    def describe(self, batch: Any) -> tuple[list[str], list[np.ndarray] | None]:
        """Return captions and true boxes for a drawing that shows the images of a training batch.

        `training.run` makes the drawing, on which a user sees what the network learns from.

        Args:
            batch: A training batch of B images.

        Returns:
            One caption for each image. The boxes of each image, (N, 4) xyxy in px of the batch's
            images; None for a model that learns no boxes.
        """

    def dropped_boxes(self, history: Sequence[dict[str, Any]]) -> DroppedBoxes | None:
        """Return how many training boxes augmentation dropped; None if they are not counted.

        Args:
            history: One row of metrics for each epoch.

        Returns:
            Number of training boxes, and of those dropped for each reason, in all epochs together;
            None if they are not counted.
        """
        return None


class GradualUnfreezing(Callback):
    """Lightning callback that chooses before each epoch which stages of the backbone learn.

    The optimiser has all parameters from the start, so that a training can be resumed in any epoch.
    Parameters without a gradient stay unchanged.

    Args:
        freeze: Function that freezes all stages but those that learn, given the number of the
            epoch, from 0.
    """

    def __init__(self, freeze: Callable[[int], None]) -> None:
        self._freeze = freeze  # takes the epoch, from 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose which stages learn in a resumed epoch, for which Lightning calls no epoch start.

        Args:
            trainer: Lightning's trainer, which runs the training.
            pl_module: Lightning's module, which holds the model and the task.

        Raises:
            InputError: Several devices share a batch.
        """
        if trainer.world_size > 1:  # processes agree only once which gradients to expect
            raise InputError(
                "model.trainable: parts cannot be unfrozen while several devices share a batch; "
                "train on one device, or choose trainable = 'all' or 'head'"
            )
        self._freeze(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the stages that learn in the epoch that begins.

        Args:
            trainer: Lightning's trainer, which runs the training.
            pl_module: Lightning's module, which holds the model and the task.
        """
        self._freeze(trainer.current_epoch)


def mean_of_defined(figures: Sequence[float | None]) -> float:
    """Return the mean of those values that are not None; NaN if all are None.

    Args:
        figures: Values of a metric, such as one for each finding; None where it is undefined.

    Example:
        >>> mean_of_defined([0.5, None, 1.0])
        0.75
    """
    defined = [figure for figure in figures if figure is not None]
    return float(np.mean(defined)) if defined else float("nan")
