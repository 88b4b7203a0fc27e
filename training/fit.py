"""Train a model with Lightning: one call, one resumable run folder, the best weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from training.checkpoint import require_same_architecture
from training.devices import share_batch_statistics
from training.events import EventLog
from training.loop import Loop, TrainingLosses, ValidationStep
from training.optimisation import Optimisation
from training.record import EpochRecord, Metrics, Mode, Row, best_row
from training.run_folder import RunFolder
from training.trainer import Precision, averaging, build_trainer, interruptible, quiet


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
    tensorboard: bool = False,
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
        compiled: Parts of the model to compile, see `training.compilation`.
        tensorboard: Write the figures of each epoch to ``events/``, too.
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
        events=EventLog(run.folder / "events") if tensorboard else None,
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
