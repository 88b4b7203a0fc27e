"""The optimiser of a training and its learning-rate schedules."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from cxr_compare.configs.settings import TrainingSettings

Mode = Literal["min", "max"]


_MILESTONES = (0.67, 0.92)  # shares of a training after which ``step`` falls, RetinaNet's own


_FALL = 0.1  # factor of the rate at a fall of ``step`` and ``plateau``


_PLATEAU_PATIENCE = 3  # epochs without improvement before ``plateau`` falls


def monitor_mode(monitor: str) -> Mode:
    """Return whether a small (``min``) or a large (``max``) value of a metric is good.

    Args:
        monitor: Name of the metric that selects the best epoch, such as ``auroc`` or ``val_loss``.

    Example:
        >>> monitor_mode("val_loss"), monitor_mode("auroc")
        ('min', 'max')
    """
    return "min" if monitor == "val_loss" else "max"


def build_optimiser(
    model: nn.Module, settings: TrainingSettings, *, fused: bool | None = True
) -> Optimizer:
    """Build the optimiser for all parameters that are not frozen.

    Args:
        model: The model. Its norm layers and biases get no weight decay.
        settings: Optimiser, learning rate, momentum and weight decay.
        fused: torch's argument of this name: True updates all weights in one pass, and None leaves
            the choice to torch.

    Returns:
        The optimiser, with the parameters of norm layers and biases in a group of their own.

    Raises:
        ValueError: All parameters are frozen.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise ValueError("Expected a model with parameters that learn but all are frozen")
    # Decaying a norm's scale or a bias only fights the loss: it does not make the net smoother.
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = settings.learning_rate
    momentum = settings.momentum
    # Fused takes half the time of a step on small CPUs, where it is a tenth of all (measured).
    if settings.optimiser == "sgd":
        nesterov = momentum > 0
        return torch.optim.SGD(groups, rate, momentum, nesterov=nesterov, fused=fused)
    if settings.optimiser == "rmsprop":
        # Smoothed over ten steps as in Keras, from which the recipes with RMSprop come.
        return torch.optim.RMSprop(groups, rate, alpha=0.9, momentum=momentum)
    adam = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return adam(groups, rate, fused=fused)


def build_schedule(optimiser: Optimizer, settings: TrainingSettings, steps: int) -> LRScheduler:
    """Build the learning-rate schedule, which advances after each optimiser step.

    After the warm-up, ``one_cycle`` falls to almost 0 and ``cosine`` falls to 0 along a cosine.
    ``step`` falls to a tenth after two thirds of the training, and again after eleven twelfths.
    ``plateau`` falls to a tenth whenever the metric that selects the best epoch has not improved
    for 3 epochs. ``constant`` does not fall.

    Args:
        optimiser: Optimiser from `build_optimiser`.
        settings: Name of the schedule, number of epochs, and warm-up.
        steps: Number of optimiser steps of the whole training.

    Returns:
        The schedule; its method ``step`` is called after each optimiser step.
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
    """Schedule that warms up step by step, then lowers the rate when a metric stops improving.

    All that it remembers is in its state, so a resumed training continues as an uninterrupted one.
    It differs from torch's ``ReduceLROnPlateau`` with a threshold of 0 in one point: as in early
    stopping, the rate falls in the epoch in which `patience` is reached, not in the epoch after it.

    Args:
        optimiser: Optimiser whose learning rate is set.
        warmup: Number of optimiser steps in which the rate rises.
        patience: Number of epochs without improvement after which the rate falls.
        factor: Factor of the rate at each fall, such as 0.1.

    Example:
        >>> optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = Plateau(optimiser, 0, patience=2, factor=0.5)
        >>> for loss in (0.9, 0.8, 0.8, 0.85):
        ...     schedule.observe(loss, "min")
        >>> schedule.get_last_lr()
        [0.5]
    """

    def __init__(self, optimiser: Optimizer, warmup: int, *, patience: int, factor: float) -> None:
        self._warmup = warmup
        self._patience = patience
        self._factor = factor
        self._best: float | None = None
        self._stalled = 0  # epochs since the best, or since the last fall
        self._falls = 0
        super().__init__(optimiser)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each parameter group at the present step."""
        rise = min(1.0, (self.last_epoch + 1) / self._warmup) if self._warmup else 1.0
        return [base * rise * self._factor**self._falls for base in self.base_lrs]

    def observe(self, value: float, mode: Mode) -> None:
        """Take the metric of an epoch, and lower the rate if the metric has stopped improving.

        Args:
            value: Value of the metric that selects the best epoch.
            mode: ``max`` if a large value is good, ``min`` if a small one is.
        """
        loss = value if mode == "min" else -value
        if self._best is None or loss < self._best:
            self._best = loss
            self._stalled = 0
            return
        self._stalled += 1
        if self._stalled < self._patience:
            return
        self._stalled = 0
        self._falls += 1
        # The rate of the next step was set before this epoch was validated.
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def _learning_rate_factor(step: int, steps: int, warmup: int, schedule: str) -> float:
    """Return the share of the peak learning rate at a step, in [0, 1]."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        fallen = sum(step >= round(share * steps) for share in _MILESTONES)
        return round(_FALL**fallen, 12)
    done = (step - warmup) / max(steps - warmup, 1)
    return round(0.5 * (1 + math.cos(math.pi * min(done, 1.0))), 12)
