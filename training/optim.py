"""Optimiser and schedule of a training."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from cxr_compare.configs.settings import TrainingSettings

_FALL = 0.1  # as Rajpurkar et al. 2017
_PLATEAU_PATIENCE = 2  # epochs that are borne: the third one without a better figure falls


def monitor_mode(monitor: str) -> Literal["min", "max"]:
    """Return whether a figure is best where it is lowest or highest."""
    return "min" if monitor == "val_loss" else "max"


def build_optimiser(
    model: nn.Module, settings: TrainingSettings, *, fused: bool = True
) -> Optimizer:
    """Build the optimiser of the parameters that learn; norms and biases have no weight decay.

    A fused step is faster, and cannot be clipped where fp16 scales the loss.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learning:
        raise ValueError("Expected a model with parameters that learn but all are frozen")
    kernels = [parameter for parameter in learning if parameter.ndim > 1]
    others = [parameter for parameter in learning if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": kernels, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate, momentum = settings.learning_rate, settings.momentum
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, rate, momentum, nesterov=momentum > 0, fused=fused)
    if settings.optimiser == "rmsprop":  # smoothed over ten steps, as Keras does
        return torch.optim.RMSprop(groups, rate, alpha=0.9, momentum=momentum)
    adam = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return adam(groups, rate, fused=fused)


def build_schedule(
    optimiser: Optimizer, settings: TrainingSettings, *, steps: int, batches: int
) -> dict[str, Any]:
    """Build the schedule of the learning rate as Lightning takes it.

    `steps` are those of the optimiser in the whole training, `batches` those of an epoch.
    """
    if settings.schedule == "plateau":
        mode = monitor_mode(settings.monitor)
        plateau = ReduceLROnPlateau(optimiser, mode, _FALL, patience=_PLATEAU_PATIENCE, threshold=0)
        figure = {"interval": "step", "frequency": batches, "monitor": settings.monitor}
        return {"scheduler": plateau, **figure}
    warmup = settings.warmup_epochs / settings.epochs
    if settings.schedule == "one_cycle":
        rise = min(max(warmup, 1 / steps), 0.9)  # some steps must be left to fall
        # One step more: Lightning steps it once behind the last.
        cycle = OneCycleLR(optimiser, settings.learning_rate, steps + 1, pct_start=rise)
        return {"scheduler": cycle, "interval": "step"}
    first, name = round(warmup * steps), settings.schedule
    factor = LambdaLR(optimiser, lambda step: _factor(step, steps, first, name))
    return {"scheduler": factor, "interval": "step"}


def _factor(step: int, steps: int, warmup: int, schedule: str) -> float:
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    done = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return round(0.5 * (1 + math.cos(math.pi * done)), 12)
