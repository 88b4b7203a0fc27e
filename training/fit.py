"""Train a model with Lightning: one call, one resumable run folder, the best weights."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import signal
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data_prep.contracts.errors import InputError
from training.loop import Loop, TrainingLosses, ValidationStep, share_batch_statistics
from training.optimisation import Optimisation
from training.record import (
    EpochRecord,
    Metrics,
    Mode,
    Row,
    WholeFiles,
    best_row,
    require_same_architecture,
)
from training.run_folder import RunFolder


def require_compiler(device: str) -> None:
    """Refuse to compile where torch could not: it would say so minutes later, over many lines.

    Args:
        device: ``cpu``, where torch writes C++, or ``cuda``, where Triton needs a C compiler.

    Raises:
        InputError: There is no compiler, Python's headers are missing, or there is no Triton.
    """
    variable, usual = ("CXX", "g++") if device == "cpu" else ("CC", "gcc")
    compiler = os.environ.get(variable, usual)
    if shutil.which(compiler) is None:
        raise InputError(
            f"training.compile: needs the compiler {compiler}, which is not installed; install it "
            f"(apt install {usual}), name another in {variable}, or leave training.compile out"
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise InputError(
            "training.compile: Python's headers (Python.h) are not installed; install them (apt "
            "install python3-dev), or leave training.compile out"
        )
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise InputError(
            "training.compile: needs the package triton on a GPU; install it, or leave "
            "training.compile out"
        )


Precision = Literal["fp32", "bf16", "fp16"]


def build_trainer(
    folder: Path,
    *,
    callbacks: list[Callback],
    loggers: Sequence[Logger],
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
        loggers: Where the record writes each epoch, too.
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
        logger=list(loggers),
        log_every_n_steps=1,  # a step logs nothing, and fewer steps than this would be warned of
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
    compiled: Sequence[nn.Module] = (),
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
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
        val_loader: Validation batches. Every process validates all of them; the figures are the
            first's.
        run: Folder for the checkpoint, the history and the best weights.
        monitor: Figure that picks the best epoch: a metric, or ``val_loss``.
        mode: Whether a small (``min``) or a large (``max``) figure is good.
        epochs: Most epochs to train.
        patience: Epochs without improvement before stopping; None trains all epochs.
        optimisation: Optimiser, schedule, accumulation, clipping and averaging.
        precision: ``fp32``, or autocast to ``bf16`` or ``fp16`` with weights in fp32.
        channels_last: Memory format of the weights, which the activations follow; faster on
            CPUs and GPUs alike.
        seed: Seed of what the model itself draws while training.
        resume: Go on from the folder's checkpoint, where there is one.
        accelerator: Where to train.
        devices: How many of them. Above 1, every process calls this, with its place among them
            in ``LOCAL_RANK`` and loaders of its share of each batch; gradients are means over
            the processes. On CUDA live batch norm measures the whole batch, on CPUs each
            process's share.
        compiled: Parts of the model to compile, see `training.fit`.
        loggers: Get the figures of each epoch, see `training.record.build_loggers`.
        callbacks: Called before the record of each epoch; their state lives in the checkpoint.
        progress: Called with the number of batches done, training and validation alike.
        on_epoch: Called with each epoch's row of figures.

    Returns:
        The best epoch and the history.

    Raises:
        InputError: A loss or gradient is not finite or a batch fails (names the images), the
            training diverges, the monitored figure is unknown or undefined, the checkpoint is
            damaged or of another architecture, or the disk is full.
        torch.OutOfMemoryError: A step did not fit.
        KeyboardInterrupt: The user interrupted; the folder can be resumed.
    """
    how = optimisation or Optimisation()
    record = EpochRecord(
        run,
        validation_metrics=validation_metrics,
        monitor=monitor,
        mode=mode,
        patience=patience,
        learning_rate=how.learning_rate,
        progress=progress,
        on_epoch=on_epoch,
    )
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if devices > 1 and accelerator == "cuda":
        share_batch_statistics(model.train())
    for part in compiled:
        part.compile()
    loop = Loop(
        model,
        training_losses=training_losses,
        validation_step=validation_step,
        optimisation=how,
        epochs=epochs,
        seed=seed,
        way_on=record.way_on,
    )
    checkpoint = run.last_checkpoint if resume and run.last_checkpoint.exists() else None
    if checkpoint is not None:
        require_same_architecture(loop, checkpoint)
    cuda = range(torch.cuda.device_count()) if accelerator == "cuda" else ()
    with quiet(), interruptible(), torch.random.fork_rng(cuda):
        trainer = build_trainer(
            run.folder,
            # The record comes before the average: it must see averaged weights before they are
            # swapped back. And after the others, whose state it saves.
            callbacks=[*callbacks, record, *averaging(how.ema_decay)],
            loggers=loggers,
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
