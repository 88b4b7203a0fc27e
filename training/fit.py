"""Train a model with Lightning: one call, one resumable run folder, the best weights."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from training.checkpoint import WholeFiles, require_same_architecture
from training.loop import Loop, TrainingLosses, ValidationStep
from training.optimisation import Optimisation
from training.record import EpochRecord, Metrics, Mode, Row, best_row
from training.run_folder import RunFolder

Precision = Literal["fp32", "bf16"]
_LIGHTNING_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class FitResult:
    """What came of a training.

    Args:
        best_epoch: Epoch whose weights were kept, from 1.
        best_value: The monitored figure there.
        history: One row per epoch, as in `metrics.csv`.
        stopped_early: Whether it ended before its last epoch for want of improvement.
    """

    best_epoch: int
    best_value: float
    history: list[Row]
    stopped_early: bool


def fit(
    model: nn.Module,
    *,
    training_losses: TrainingLosses,
    validation_step: ValidationStep,
    validation_metrics: Metrics,
    train_loader: DataLoader,
    val_loader: DataLoader,
    run: RunFolder,
    monitor: str,
    mode: Mode = "max",
    epochs: int,
    patience: int | None = None,
    optimisation: Optimisation | None = None,
    precision: Precision = "fp32",
    channels_last: bool = True,
    seed: int = 0,
    resume: bool = False,
    accelerator: Literal["cpu", "cuda"] = "cpu",
    devices: int = 1,
    progress: Callable[[int], None] | None = None,
    on_epoch: Callable[[Row], None] | None = None,
) -> FitResult:
    """Train, validate after each epoch, and leave the model with the weights of its best epoch.

    The state is saved after each epoch. A training that was interrupted at any moment goes on
    from there with ``resume`` and, on a CPU, ends with exactly the weights of one that was not.

    Args:
        model: The network, initialised; trained in place.
        training_losses: ``(model, batch) -> losses``, scalars whose sum is minimised.
        validation_step: ``(model, batch) -> (losses, output)`` in eval mode, without gradient.
        validation_metrics: Outputs of all validation batches to figures by name.
        train_loader: Training batches; a `SeededSampler` makes the order resumable.
        val_loader: Validation batches. Every process validates all of them.
        run: Folder for the checkpoint, the history and the best weights.
        monitor: Figure that picks the best epoch: a metric, or ``val_loss``.
        mode: Whether a small (``min``) or a large (``max``) figure is good.
        epochs: Most epochs to train.
        patience: Epochs without improvement before stopping; None trains all epochs.
        optimisation: Optimiser, schedule, accumulation, clipping and averaging.
        precision: ``fp32``, or ``bf16`` autocast with weights in fp32.
        channels_last: Memory format of the weights, which the activations follow; faster on
            CPUs and GPUs alike.
        seed: Seed of what the model itself draws while training.
        resume: Go on from the folder's checkpoint, where there is one.
        accelerator: Where to train.
        devices: How many of them.
        progress: Called with the number of batches done, training and validation alike.
        on_epoch: Called with each epoch's row of figures.

    Returns:
        The best epoch and the history.

    Raises:
        InputError: A loss or gradient is not finite (names the images), the monitored figure is
            unknown or undefined, the checkpoint is damaged or of another architecture, or the
            disk is full.
        KeyboardInterrupt: The user interrupted; the folder can be resumed.
    """
    how = optimisation or Optimisation()
    record = EpochRecord(
        run,
        validation_metrics=validation_metrics,
        monitor=monitor,
        mode=mode,
        patience=patience,
        progress=progress,
        on_epoch=on_epoch,
    )
    if channels_last:
        model.to(memory_format=torch.channels_last)
    loop = Loop(
        model,
        training_losses=training_losses,
        validation_step=validation_step,
        optimisation=how,
        epochs=epochs,
        seed=seed,
    )
    checkpoint = run.last_checkpoint if resume and run.last_checkpoint.exists() else None
    if checkpoint is not None:
        require_same_architecture(loop, checkpoint)
    cuda = range(torch.cuda.device_count()) if accelerator == "cuda" else ()
    with _quiet(), _interruptible(), torch.random.fork_rng(cuda):
        trainer = _build_trainer(
            run.folder,
            callbacks=_callbacks(record, how.ema_decay),
            epochs=epochs,
            accumulate=how.accumulate,
            precision=precision,
            accelerator=accelerator,
            devices=devices,
        )
        trainer.fit(loop, train_loader, val_loader, ckpt_path=checkpoint, weights_only=True)
    best = best_row(record.history, monitor, mode)
    model.load_state_dict(load_file(run.best_weights(best["epoch"])))
    model.eval()
    return FitResult(
        best_epoch=best["epoch"],
        best_value=best[monitor],
        history=record.history,
        stopped_early=len(record.history) < epochs,
    )


def _build_trainer(
    folder: Path,
    *,
    callbacks: list[Callback],
    epochs: int,
    accumulate: int,
    precision: Precision,
    accelerator: str,
    devices: int,
) -> Trainer:
    """Lightning's loop and devices; what it would log, show or save by itself is off."""
    return Trainer(
        accelerator=accelerator,
        devices=devices,
        precision=_LIGHTNING_PRECISION[precision],
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        plugins=[WholeFiles()],
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # SeededSampler shares the rows itself
    )


def _callbacks(record: EpochRecord, ema_decay: float) -> list[Callback]:
    # The record comes first: it must see the averaged weights before they are swapped back.
    if ema_decay == 0:
        return [record]
    return [record, WeightAveraging(avg_fn=_RampedAverage(ema_decay))]


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
def _interruptible() -> Iterator[None]:
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
def _quiet() -> Iterator[None]:
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
    # More devices than are used.
    r".*available but not used.*",
)
