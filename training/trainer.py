"""Lightning's trainer as this project wants it: quiet, interruptible, on one device or several."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from training.checkpoint import WholeFiles

Precision = Literal["fp32", "bf16", "fp16"]


def build_trainer(
    folder: Path,
    *,
    callbacks: list[Callback],
    epochs: int,
    accumulate: int,
    precision: Precision,
    accelerator: str,
    devices: int,
) -> Trainer:
    """Lightning's loop and devices; what it would log, show or save by itself is off.

    Args:
        folder: Its root folder; nothing is written there by default.
        callbacks: What watches the training.
        epochs: Most epochs.
        accumulate: Batches that make one optimiser step.
        precision: ``fp32``, or autocast to ``bf16`` or ``fp16``; in fp16 the loss is scaled, and
            the scale lives in the checkpoint.
        accelerator: ``cpu`` or ``cuda``.
        devices: How many. Above 1, this is one of as many processes, and ``LOCAL_RANK`` in the
            environment says which.
    """
    plugins: list[Any] = [WholeFiles()]
    if precision == "fp16":  # by name: on a CPU Lightning would take bf16 in its place
        scaler = torch.amp.GradScaler(accelerator)
        plugins.append(MixedPrecision("16-mixed", accelerator, scaler))
    strategy: Any = "auto"
    if devices > 1:
        # By name: on a cluster Lightning would ask the scheduler, which started one process only.
        plugins.append(LightningEnvironment())
        strategy = DDPStrategy()
    return Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        # Of fp16 the plugin says it.
        precision={"fp32": "32-true", "bf16": "bf16-mixed"}.get(precision),  # type: ignore[arg-type]
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        plugins=plugins,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # SeededSampler shares the rows itself
    )


def averaging(decay: float) -> list[Callback]:
    """The callback that averages the weights; none where the decay is 0."""
    return [WeightAveraging(avg_fn=_RampedAverage(decay))] if decay else []


@dataclass(frozen=True)
class _RampedAverage:
    """A moving average that follows quickly at first, so that early epochs are not all start.

    Source:
        TensorFlow's ``ExponentialMovingAverage(num_updates=...)``.
    """

    decay: float

    def __call__(self, average: Tensor, current: Tensor, n_averaged: Tensor | int) -> Tensor:
        if not average.is_floating_point():  # a batch norm's counter
            return current
        n = float(n_averaged)
        return average.lerp(current, 1 - min(self.decay, (1 + n) / (10 + n)))


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C reach the caller: Lightning exits the process and goes deaf to the signal."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning says about choices that are made on purpose here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _MEANT:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


_MEANT = (
    # Pixels come from a memory map: worker processes would only fight torch for the cores.
    r".*does not have many workers.*",
    # Frozen batch norm stays in eval mode.
    r".*module\(s\) in eval mode at the start of training.*",
    # Resuming starts over at an epoch's end, where nothing of the loader's state is left.
    r".*You're resuming from a checkpoint that ended before the epoch ended.*",
    # Lightning's own use of a torch interface that torch renamed.
    r".*isinstance\(treespec, LeafSpec\)` is deprecated.*",
    # In fp16 the first steps are skipped until the loss is scaled low enough.
    r".*lr_scheduler.step\(\)` before `optimizer.step\(\).*",
    # More devices than are used.
    r".*available but not used.*",
)
