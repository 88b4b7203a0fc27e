"""A whole training run: the training itself, and all files of the run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, cast

import torch

from cxr_compare.configs.settings import (
    ClassifierConfig,
    Config,
    DetectorConfig,
    ProbeConfig,
    TrainingSettings,
)
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.networks.cost import count_parameters, describe_device
from cxr_compare.networks.model_files import save_architecture, save_model
from cxr_compare.training.batch_norm import has_live_batch_norm
from cxr_compare.training.fit import FitResult, fit
from cxr_compare.training.hardware import Hardware
from cxr_compare.training.loading import BatchLoader, is_out_of_memory, require_loaded
from cxr_compare.training.loggers import build_loggers, metrics_of
from cxr_compare.training.plots import draw_batch, draw_curves
from cxr_compare.training.probe import ProbeTask, complete_probe
from cxr_compare.training.processes import gather
from cxr_compare.training.rank import Rank
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.sampling import SeededSampler
from cxr_compare.training.task import ModelTask, TrainingTask

_WILD_LOSS = 100.0  # far above the loss of any network that learns
_MUCH_WAITING = 0.1  # share of an epoch's training time; more time without a batch is reported


def complete_run(
    settings: Config,
    task: ModelTask,
    run: RunFolder,
    hardware: Hardware,
    rank: Rank | None,
    progress: Progress,
) -> None:
    """Train a model, or fit a probe (a linear layer on frozen features), and complete its folder.

    Args:
        settings: The configuration.
        task: The model with its images.
        run: The folder of the training (run folder).
        hardware: Devices, number format and number of loading processes.
        rank: This process among several that train together; None if it trains alone.
        progress: Shows messages and the progress.

    Raises:
        InputError: The data, the settings or the machine do not allow the training to continue.
    """
    if isinstance(settings, ProbeConfig):
        complete_probe(settings, cast("ProbeTask", task), run, hardware, progress)
    else:
        _complete_training(settings, cast("TrainingTask", task), run, hardware, rank, progress)


def _complete_training(
    settings: DetectorConfig | ClassifierConfig,
    task: TrainingTask,
    run: RunFolder,
    hardware: Hardware,
    rank: Rank | None,
    progress: Progress,
) -> None:
    """Train a model, and complete its run folder: weights, history, pictures, and `run.json` last.

    If several processes train together, the first one also writes the files.
    """
    training = settings.training
    device = hardware.device
    devices = hardware.devices
    if len(task.val) < devices:
        raise InputError(
            f"split: role 'val' has {counted(len(task.val), 'image')} for {devices} processes; "
            "start fewer, or make another split with cxr split"
        )
    precision = gather(hardware.precision)[0]  # nodes may differ
    hardware = hardware._replace(precision=precision)
    shared = f", {devices} share a batch" if devices > 1 else ""
    progress.say(
        f"{settings.name}: {counted(len(task.train), 'training image')} "
        f"({int(task.positive.sum())} positive), {counted(len(task.val), 'validation image')}; "
        f"{precision} on {device}{shared}"
    )
    if devices > 1 and device == "cpu" and has_live_batch_norm(task.model.train()):
        progress.say(
            f"note: on CPUs batch norm measures each of the {devices} processes' own share of a "
            "batch, so what is learned depends on their number; group and frozen norms do not"
        )
    is_first = rank is None or rank.rank == 0
    if is_first:
        batch = _first_batch(task, training)
        captions, boxes = task.describe(batch)
        draw_batch(batch.images[:, 0].numpy(), captions, run.folder / "batch.png", boxes=boxes)
        # Written now: if the training diverges, its best weights are of use only with these files.
        save_architecture(task.model, run.folder)
        task.model.preprocess.write(run.folder / "preprocess.json")
    began = time.perf_counter()
    result = _fit(settings, task, run, hardware, rank, progress)
    if not is_first:
        return
    dropped = task.dropped_boxes(result.history)
    if dropped:
        progress.say(f"augmentation: {dropped.sentence()}, in all epochs together")
    save_model(task.model, run.folder)
    draw_curves(
        result.history,
        run.folder / "curves.png",
        monitor=training.monitor,
        best_epoch=result.best_epoch,
    )
    [best_row] = [row for row in result.history if row["epoch"] == result.best_epoch]
    if best_row["val_loss"] > _WILD_LOSS:
        progress.say(
            f"CAUTION: the validation loss of the best epoch is {best_row['val_loss']:.3g}, and "
            "that of an untrained network about 1: the training has diverged; lower "
            "training.learning_rate, or set training.clip"
        )
    best_figures = {
        name: None if math.isnan(value) else value for name, value in metrics_of(best_row).items()
    }
    parameters = count_parameters(task.model)
    processor_seconds = sum(row["processor_seconds"] for row in result.history)
    device_name = describe_device(torch.device(device))
    if devices > 1:
        device_name = f"{devices} x {device_name}"
    run.complete(
        monitor=training.monitor,
        best_epoch=result.best_epoch,
        best_value=result.best_value,
        best_figures=best_figures,
        epochs=len(result.history),
        stopped_early=result.stopped_early,
        n_train=len(task.train),
        n_val=len(task.val),
        pretrained=settings.model.weights,
        parameters=parameters.total,
        trainable_parameters=parameters.trainable,
        precision=precision,
        cpu_settings={"threads": torch.get_num_threads(), "workers": hardware.loaders},
        device=device,
        devices=devices,
        device_name=device_name,
        **_total_seconds(result.history),
        processor_seconds=round(processor_seconds, 1),
        seconds_since_resumed=round(time.perf_counter() - began, 1),
        boxes=None if dropped is None else dropped.to_dict(),
    )


def _fit(
    settings: DetectorConfig | ClassifierConfig,
    task: TrainingTask,
    run: RunFolder,
    hardware: Hardware,
    rank: Rank | None,
    progress: Progress,
) -> FitResult:
    """Fit this process's share of each batch; if memory runs out, name a smaller batch."""
    training = settings.training
    loaders = hardware.loaders
    pin = hardware.device == "cuda"
    number = 0 if rank is None else rank.rank
    n_processes = 1 if rank is None else rank.world_size
    share = training.batch_size // n_processes
    sampler = SeededSampler(
        len(task.train),
        seed=training.seed,
        weights=task.draw_weights,
        rank=number,
        world_size=n_processes,
        share=share,
    )
    train_loader = BatchLoader(task.train, task.collate, share, sampler, loaders=loaders, pin=pin)
    first_val_row = len(task.val) * number // n_processes
    end_val_row = len(task.val) * (number + 1) // n_processes
    val_rows = range(first_val_row, end_val_row)
    # Rows that are not augmented take a hundredth of the time: one process loads them fast enough.
    val_loader = BatchLoader(
        task.val, task.collate, share, val_rows, loaders=min(loaders, 1), pin=pin
    )
    train_batches = -(-len(task.train) // training.batch_size)
    batches = training.epochs * (train_batches + len(val_loader))
    try:
        with progress.track("Training, batches", batches) as advance:
            return fit(
                task,
                training,
                train_loader=train_loader,
                val_loader=val_loader,
                run=run,
                precision=hardware.precision,
                resume=True,
                accelerator=hardware.device,
                rank=rank,
                loggers=() if number else build_loggers(training.loggers, run),
                progress=advance,
                on_epoch=lambda row: progress.say(_epoch_line(row, training.epochs, loaders)),
            )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise _too_large_error(settings, hardware.devices) from None


def _first_batch(task: TrainingTask, training: TrainingSettings) -> Any:
    """Read the first batch of a training, as the training itself would read it."""
    sampler = SeededSampler(len(task.train), seed=training.seed, weights=task.draw_weights)
    loader = BatchLoader(task.train, task.collate, training.batch_size, sampler)
    return require_loaded(next(iter(loader)))


def _too_large_error(settings: DetectorConfig | ClassifierConfig, devices: int) -> InputError:
    """Return the error for a batch that does not fit in memory, which names a smaller one."""
    training = settings.training
    if training.batch_size <= devices:
        return InputError(
            f"training.batch_size: not even one image of {settings.data.image_size} px fits in "
            "memory; choose a smaller data.image_size or a smaller model"
        )
    smaller = max(1, training.batch_size // 2 // devices) * devices
    accumulate = -(-training.batch_size // smaller) * training.accumulate
    return InputError(
        f"training.batch_size: {training.batch_size} images do not fit in memory; choose another "
        f"--out and add --set training.batch_size={smaller} --set "
        f"training.accumulate={accumulate}, which learns from as many images a step"
    )


def _total_seconds(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Add up the time of all epochs, and of its parts.

    Example:
        >>> epoch = {"seconds": 9.0, "seconds_validation": 2.0, "seconds_checkpoint": 0.5}
        >>> _total_seconds([epoch | {"seconds_waiting": 0.0}] * 2)["seconds_training"]
        13.0
    """
    parts = ("seconds", "seconds_validation", "seconds_checkpoint", "seconds_waiting")
    totals = {part: sum(row[part] for row in history) for part in parts}
    training = totals["seconds"] - totals["seconds_validation"] - totals["seconds_checkpoint"]
    totals["seconds_training"] = training
    return {name: round(value, 1) for name, value in totals.items()}


def _epoch_line(row: dict[str, Any], epochs: int, loaders: int) -> str:
    """Return the line that the user sees after an epoch."""
    figures = "  ".join(f"{name} {value:.3f}" for name, value in metrics_of(row).items())
    waited = row["seconds_waiting"] / max(_total_seconds([row])["seconds_training"], 0.1)
    advice = ""
    if waited > _MUCH_WAITING:
        advice = (
            f"; waited {100 * waited:.0f} % for images: raise training.workers, now {loaders} of "
            f"{cpu_count()} processors"
        )
    return (
        f"epoch {row['epoch']} of {epochs}: loss {row['train_loss']:.3f}, "
        f"validation {row['val_loss']:.3f}  {figures}  ({row['seconds']:.0f} s{advice})"
    )
