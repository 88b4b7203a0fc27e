"""The optimiser of a training and its learning-rate schedules, all of which step by batch.

Lightning 2.6 writes an epoch's checkpoint before it steps epoch schedules, so none is used.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from cxr_compare.configs.settings import TrainingSettings

Mode = Literal["min", "max"]


_MILESTONES = (0.67, 0.92)  # shares of a training after which ``step`` falls, RetinaNet's own


_FALL = 0.1  # factor of the rate at a fall of ``step`` and ``plateau``


_PLATEAU_PATIENCE = 2  # epochs without improvement that ``plateau`` bears; it falls at the next


def monitor_mode(monitor: str) -> Mode:
    """Return whether a small (``min``) or a large (``max``) value of a metric is good.

    Example:
        >>> monitor_mode("val_loss"), monitor_mode("auroc")
        ('min', 'max')
    """
    return "min" if monitor == "val_loss" else "max"


def build_optimiser(
    model: nn.Module, settings: TrainingSettings, *, fused: bool | None = True
) -> Optimizer:
    """Build the optimiser for all parameters that are not frozen.

    Norm layers and biases are a group of their own, without weight decay. `fused` is torch's
    argument: True updates all weights in one pass, and None leaves the choice to torch. Raises
    ValueError if all parameters are frozen.
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


def build_schedule(
    optimiser: Optimizer, settings: TrainingSettings, *, steps: int, batches: int
) -> dict[str, Any]:
    """Build the learning-rate schedule, in the form in which Lightning takes it.

    After the warm-up, ``one_cycle`` falls to almost 0 and ``cosine`` falls to 0 along a cosine.
    ``step`` falls to a tenth after two thirds of the training, and again after eleven twelfths.
    ``plateau`` falls to a tenth in the third epoch in a row without improvement of `monitor`, and
    has no warm-up. ``constant`` does not fall.

    `steps` are the optimiser steps of the whole training, `batches` those of an epoch. ``plateau``
    steps at the last batch, which Lightning does after validation and before it writes the
    checkpoint.
    """
    if settings.schedule == "plateau":
        plateau = ReduceLROnPlateau(
            optimiser,
            monitor_mode(settings.monitor),
            _FALL,
            patience=_PLATEAU_PATIENCE,
            threshold=0,
        )
        return {
            "scheduler": plateau,
            "interval": "step",
            "frequency": batches,
            "monitor": settings.monitor,
        }
    if settings.schedule == "one_cycle":
        # At least one falling step: OneCycleLR divides by the length of the fall.
        rise = min(max(settings.warmup_epochs / settings.epochs, 1 / steps), 0.9)
        one_cycle = OneCycleLR(
            optimiser, max_lr=settings.learning_rate, total_steps=steps + 1, pct_start=rise
        )
        return {"scheduler": one_cycle, "interval": "step"}
    warmup = round(settings.warmup_epochs / settings.epochs * steps)
    name = settings.schedule
    factor = LambdaLR(optimiser, lambda step: _learning_rate_factor(step, steps, warmup, name))
    return {"scheduler": factor, "interval": "step"}


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
