"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from configs.settings import TrainingSettings
from data_prep.contracts.errors import InputError

Mode = Literal["min", "max"]
_MILESTONES = (0.67, 0.92)  # of ``step``: two thirds and eleven twelfths, RetinaNet's own
_FALL = 0.1  # what ``step`` and ``plateau`` multiply the rate by
_PLATEAU_PATIENCE = 3  # epochs without improvement before ``plateau`` falls


def monitor_mode(monitor: str) -> Mode:
    """Whether a small or a large value of the monitored figure is good."""
    return "min" if monitor == "val_loss" else "max"


def build_optimiser(
    model: nn.Module, settings: TrainingSettings, *, fused: bool = True
) -> Optimizer:
    """Make the optimiser over all parameters that learn."""
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise ValueError("Expected a model with parameters that learn but all are frozen")
    # Decaying a norm's scale or a bias only fights the loss: it does not make the net smoother.
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # Fused: half the time of a step on small CPUs, where it is a tenth of all (measured).
    if settings.optimiser == "sgd":
        nesterov = settings.momentum > 0
        return torch.optim.SGD(
            groups,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=nesterov,
            fused=fused,
        )
    if settings.optimiser == "rmsprop":
        # Smoothed over ten steps, as Keras does, from where the recipes with it come.
        return torch.optim.RMSprop(
            groups, lr=settings.learning_rate, alpha=0.9, momentum=settings.momentum
        )
    if settings.optimiser == "adam":
        return torch.optim.Adam(groups, lr=settings.learning_rate, fused=fused)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=fused)


def build_schedule(optimiser: Optimizer, settings: TrainingSettings, steps: int) -> LRScheduler:
    """Make the learning-rate schedule, stepped after each optimiser step.

    ``one_cycle`` falls to almost 0 after the warm-up, ``cosine`` to 0 along a cosine, ``step`` to
    a tenth after two thirds and again after eleven twelfths of the training, ``plateau`` to a
    tenth whenever the monitored figure has not improved for 3 epochs; ``constant`` stays.
    """
    if settings.schedule == "one_cycle":
        # At least one falling step: OneCycleLR divides by the length of the fall.
        rise = min(max(settings.warmup_epochs / settings.epochs, 1 / steps), 0.9)
        return OneCycleLR(
            optimiser, max_lr=settings.learning_rate, total_steps=steps + 1, pct_start=rise
        )
    warmup = round(settings.warmup_epochs / settings.epochs * steps)
    if settings.schedule == "plateau":
        return Plateau(optimiser, warmup, patience=_PLATEAU_PATIENCE, factor=_FALL)
    name = settings.schedule
    return LambdaLR(optimiser, lambda step: _learning_rate_factor(step, steps, warmup, name))


class Plateau(LRScheduler):
    """Warms up step by step, then lowers the rate when a figure stops improving.

    All that it remembers is in its state, so a resumed training goes on as it would have.

    Source:
        As torch's ``ReduceLROnPlateau`` with a threshold of 0 and a patience of one less: here, as
        in early stopping, the fall comes in the epoch that makes `patience` full.

    Example:
        >>> optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = Plateau(optimiser, 0, patience=2, factor=0.5)
        >>> for loss in (0.9, 0.8, 0.8, 0.85):
        ...     schedule.observe(loss, "min")
        >>> schedule.get_last_lr()
        [0.5]
    """

    def __init__(self, optimiser: Optimizer, warmup: int, *, patience: int, factor: float) -> None:
        self._warmup, self._patience, self._factor = warmup, patience, factor
        self._best: float | None = None
        self._stalled = 0  # epochs since the best, or since the last fall
        self._falls = 0
        super().__init__(optimiser)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group at the present step."""
        rise = min(1.0, (self.last_epoch + 1) / self._warmup) if self._warmup else 1.0
        return [base * rise * self._factor**self._falls for base in self.base_lrs]

    def observe(self, value: float, mode: Mode) -> None:
        """Take an epoch's figure, and lower the rate at once where it is time."""
        loss = value if mode == "min" else -value
        if self._best is None or loss < self._best:
            self._best, self._stalled = loss, 0
            return
        self._stalled += 1
        if self._stalled < self._patience:
            return
        self._stalled, self._falls = 0, self._falls + 1
        # The rate of the next step was set before this epoch was validated.
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def _learning_rate_factor(
    step: int,
    steps: int,
    warmup: int,
    schedule: Literal["cosine", "step", "constant"],
) -> float:
    """Share of the peak learning rate at a step, in [0, 1].

    Example:
        >>> [_learning_rate_factor(step, 6, 2, "cosine") for step in (0, 1, 2, 4)]
        [0.5, 1.0, 1.0, 0.5]
        >>> [_learning_rate_factor(step, 12, 0, "step") for step in (7, 8, 11)]
        [1.0, 0.1, 0.01]
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        fallen = sum(step >= round(share * steps) for share in _MILESTONES)
        return round(_FALL**fallen, 12)
    done = (step - warmup) / max(steps - warmup, 1)
    return round(0.5 * (1 + math.cos(math.pi * min(done, 1.0))), 12)


class Unfreezing(Callback):
    """Sets at the beginning of each epoch which parts learn.

    The optimiser has all of them from the start, so that a training can be resumed in any epoch;
    it leaves those alone that have no gradient.

    Args:
        freeze: Freezes and unfreezes the model for an epoch, counted from 0.
    """

    def __init__(self, freeze: Callable[[int], None]) -> None:
        self._freeze = freeze

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse several devices; freeze for an epoch that is resumed, which has no start.

        Raises:
            InputError: Several devices share a batch: they agree once which gradients to expect.
        """
        if trainer.world_size > 1:
            raise InputError(
                "model.trainable: parts cannot be unfrozen while several devices share a batch; "
                "train on one device, or choose trainable = 'all' or 'head'"
            )
        self._freeze(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze and unfreeze."""
        self._freeze(trainer.current_epoch)
