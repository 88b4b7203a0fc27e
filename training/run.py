"""A run: its batch, its loaders, the fit, and what stays in the run folder."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.training.batch_size import Hardware, available_memory, largest_share
from cxr_compare.training.cost import PeakMemory, count_parameters, describe_device
from cxr_compare.training.fit import FitResult, fit
from cxr_compare.training.loading import (
    BatchLoader,
    SeededSampler,
    is_out_of_memory,
    require_loaded,
)
from cxr_compare.training.loggers import build_loggers, metrics_of
from cxr_compare.training.loop import has_live_batch_norm
from cxr_compare.training.processes import Rank, gather
from cxr_compare.training.run_folder import RunFolder, save_architecture, save_model
from cxr_compare.training.task import TrainingTask

_MOST = 256  # images: beyond it no device is faster, and learning is slower
_STEPS = 8  # an epoch keeps at least as many
_MUCH = 0.1  # of an epoch's learning: more of it without a batch is told
_SHARE = 0.8  # of the free memory: the system and the loaders need some
_BYTES_PER_PIXEL = 24_000  # more than any of the models here needs for an image
_MOST_DRAWN = 16  # images of an example batch
_TRAIN, _VAL, _BOX = "#0072b2", "#d55e00", "#ffd92f"  # told apart by colour-blind eyes too
_LINES = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00")


def choose_batch_size(
    settings: Config, task: TrainingTask, hardware: Hardware, terminal: Progress
) -> Config:
    """Find the batch size where it is ``auto``; else check that a CPU's memory has room for it."""
    batch_size = settings.training.batch_size
    if batch_size == "auto":
        most = max(hardware.devices, min(_MOST, len(task.train) // _STEPS))
        fitting = _largest(settings, task, hardware, most)
        if not fitting:
            raise _too_large(settings, 0)
        terminal.say(
            f"batch size: {fitting} images (memory, {_MOST} or {_STEPS} steps an epoch end it); "
            f"training.learning_rate stays {settings.training.learning_rate:g}"
        )
        return with_batch_size(settings, fitting)
    # A CPU that runs out of memory ends the training without a word. Where the batch is far from
    # that, nothing is measured.
    guess = batch_size * settings.data.image_size**2 * _BYTES_PER_PIXEL
    if hardware.device == "cpu" and guess > available_memory():
        fitting = _largest(settings, task, hardware, batch_size)
        if 2 * fitting <= batch_size:
            raise _too_large(settings, fitting, "would need more than the memory that is free")
    return settings


def with_batch_size(settings: Config, batch_size: int | str) -> Config:
    """The same configuration with another batch size."""
    training = settings.training.model_copy(update={"batch_size": batch_size})
    return settings.model_copy(update={"training": training})


def _too_large(settings: Config, fitting: int, what: str = "") -> InputError:
    """The error with the batch that fits (0: none does), and how to learn as before with it."""
    if not fitting:
        return InputError(
            f"training.batch_size: not even one image of {settings.data.image_size} px fits in "
            "memory; choose a smaller data.image_size or a smaller model"
        )
    training = settings.training
    more = -(-int(training.batch_size) // fitting) * training.accumulate
    return InputError(
        f"training.batch_size: {training.batch_size} images {what}, {fitting} fit; choose another "
        f"--out and add --set training.batch_size={fitting} --set training.accumulate={more}, "
        "which learns from as many images a step"
    )


def _largest(settings: Config, task: TrainingTask, hardware: Hardware, most: int) -> int:
    """Images of a whole batch that fits, `most` at most: as many on each device as fit there."""
    share = largest_share(
        task.model,
        lambda size: _first_batch(task, size, settings.training.seed),
        task.training_losses,
        limit=max(1, most // hardware.devices),
        device=hardware.device,
        precision=hardware.precision,
        budget=int(_SHARE * available_memory() / hardware.devices),
    )
    return share * hardware.devices


def _first_batch(task: TrainingTask, size: int, seed: int, weights: Any = None) -> Any:
    """A training batch of any size, read as training reads it."""
    sampler = SeededSampler(len(task.train), seed=seed, weights=weights)
    return require_loaded(next(iter(BatchLoader(task.train, task.collate, size, sampler))))


def complete_run(
    settings: Config,
    task: TrainingTask,
    run: RunFolder,
    hardware: Hardware,
    rank: Rank | None,
    terminal: Progress,
) -> None:
    """Train, and complete the run folder: weights, history, figures, `run.json` last.

    Of several processes the first does all that is not learning; the others only learn.
    """
    how = settings.training
    device, devices, precision, loaders = hardware
    if len(task.val) < devices:
        raise InputError(
            f"split: role 'val' has {counted(len(task.val), 'image')} for {devices} processes; "
            "start fewer, or make another split with cxr split"
        )
    precision = gather(precision)[0]  # nodes may differ
    hardware = hardware._replace(precision=precision)
    terminal.say(
        f"{settings.name}: {counted(len(task.train), 'training image')} "
        f"({int(task.positive.sum())} positive), {counted(len(task.val), 'validation image')}; "
        f"{precision} on {device}" + (f", {devices} share a batch" if devices > 1 else "")
    )
    if devices > 1 and device == "cpu" and has_live_batch_norm(task.model.train()):
        terminal.say(
            f"note: on CPUs batch norm measures each of the {devices} processes' own share of a "
            "batch, so what is learned depends on their number; group and frozen norms do not"
        )
    first = rank is None or rank.rank == 0
    if first:
        batch = _first_batch(task, int(how.batch_size), how.seed, task.draw_weights)
        captions, boxes = task.describe(batch)
        _draw_batch(batch.images[:, 0].numpy(), captions, run.folder / "batch.png", boxes=boxes)
        # Now: of a training that diverges the best weights are of use only with these beside them.
        save_architecture(task.model, run.folder)
        task.model.preprocess.to_json(run.folder / "preprocess.json")
    began, memory = time.perf_counter(), PeakMemory(task.model, device)
    result = _fit(settings, task, run, hardware, rank, terminal)
    if not first:
        return
    if dropped := task.dropped_boxes(result.history):
        terminal.say(f"augmentation: {dropped.sentence()}, in all epochs together")
    save_model(task.model, run.folder)
    parameters, learned = count_parameters(task.model)
    best = result.best_epoch
    _draw_curves(result.history, run.folder / "curves.png", monitor=how.monitor, best_epoch=best)
    best_figures = metrics_of(next(row for row in result.history if row["epoch"] == best))
    run.complete(
        {
            "monitor": how.monitor,
            "best_epoch": best,
            "best_value": result.best_value,
            "best_figures": {k: None if v != v else v for k, v in best_figures.items()},
            "epochs": len(result.history),
            "stopped_early": result.stopped_early,
            "n_train": len(task.train),
            "n_val": len(task.val),
            "pretrained": settings.model.weights,
            "parameters": parameters,
            "trainable_parameters": learned,
            "precision": precision,
            "cpu_settings": {"threads": torch.get_num_threads(), "workers": loaders},
            "device": device,
            "devices": devices,
            "device_name": (f"{devices} x " if devices > 1 else "")
            + describe_device(torch.device(device)),
            **_seconds(result.history),
            "processor_seconds": round(sum(e["processor_seconds"] for e in result.history), 1),
            "seconds_since_resumed": round(time.perf_counter() - began, 1),
            "peak_memory_bytes": memory.read(),
            "boxes": None if dropped is None else dropped._asdict(),
        }
    )


def _fit(
    settings: Config,
    task: TrainingTask,
    run: RunFolder,
    hardware: Hardware,
    rank: Rank | None,
    terminal: Progress,
) -> FitResult:
    """Fit this process's share of each batch; where memory runs out, say how many images fit."""
    how = settings.training
    number, processes = (0, 1) if rank is None else (rank.rank, rank.world_size)
    share = int(how.batch_size) // processes
    pin, loaders = hardware.device == "cuda", hardware.loaders
    rows, collate = task.train, task.collate
    sampler = SeededSampler(
        len(rows), seed=how.seed, weights=task.draw_weights, rank=number, world_size=processes,
        share=share,
    )  # fmt: skip
    train_loader = BatchLoader(rows, collate, share, sampler, loaders=loaders, pin=pin)
    own = range(*(len(task.val) * part // processes for part in (number, number + 1)))
    # Rows that are not augmented cost a hundredth: one process loads them in time.
    val_loader = BatchLoader(task.val, collate, share, own, loaders=min(loaders, 1), pin=pin)
    batches = how.epochs * (-(-len(rows) // int(how.batch_size)) + len(val_loader))
    try:
        with terminal.track("Training, batches", batches) as advance:
            return fit(
                task,
                how,
                train_loader=train_loader,
                val_loader=val_loader,
                run=run,
                precision=hardware.precision,
                resume=True,
                accelerator=hardware.device,
                rank=rank,
                loggers=() if number else build_loggers(how.loggers, run),
                progress=advance,
                on_epoch=lambda row: terminal.say(_line(row, how.epochs, loaders)),
            )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Outside of the handler: the error holds the memory that is to be measured.
    task.model.zero_grad(set_to_none=True)
    gc.collect()
    if hardware.device == "cuda":
        torch.cuda.empty_cache()
    half = max(hardware.devices, int(how.batch_size) // 2)
    fitting = _largest(settings, task, hardware, half)
    raise _too_large(settings, fitting, "do not fit in memory")


def _seconds(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Time of all epochs, and its parts.

    Example:
        >>> epoch = {"seconds": 9.0, "seconds_validation": 2.0, "seconds_checkpoint": 0.5}
        >>> _seconds([epoch, epoch])["seconds_training"]
        13.0
    """
    parts = ("seconds", "seconds_validation", "seconds_checkpoint", "seconds_waiting")
    # Epochs of an earlier version did not measure how long they waited.
    made = {part: sum(row.get(part, 0.0) for row in history) for part in parts}
    learning = made["seconds"] - made["seconds_validation"] - made["seconds_checkpoint"]
    made["seconds_training"] = learning
    return {name: round(value, 1) for name, value in made.items()}


def _line(row: dict[str, Any], epochs: int, loaders: int) -> str:
    figures = "  ".join(f"{name} {value:.3f}" for name, value in metrics_of(row).items())
    waited = row["seconds_waiting"] / max(_seconds([row])["seconds_training"], 0.1)
    now = f"now {loaders} of {cpu_count()} processors"
    more = f"; waited {100 * waited:.0f} % for images: raise training.workers, {now}"
    return (
        f"epoch {row['epoch']} of {epochs}: loss {row['train_loss']:.3f}, "
        f"validation {row['val_loss']:.3f}  {figures}  ({row['seconds']:.0f} s"
        f"{more if waited > _MUCH else ''})"
    )


def _draw_curves(
    history: Sequence[dict[str, Any]], path: Path, *, monitor: str, best_epoch: int
) -> None:
    """Draw losses and metrics by epoch as a PNG, the kept epoch marked."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    losses, metrics = figure.subplots(1, 2)
    marker = "o" if len(history) == 1 else ""  # one point makes no line
    for name, label, colour in (
        ("train_loss", "training", _TRAIN),
        ("val_loss", "validation", _VAL),
    ):
        losses.plot(epochs, [r[name] for r in history], color=colour, label=label, marker=marker)
    losses.set_ylim(bottom=0)
    _finish_axes(losses, "Loss", best_epoch)
    for name, colour in zip(metrics_of(history[0]), _LINES, strict=False):
        bold = 2.2 if name == monitor else 1.2
        values = [row[name] for row in history]
        metrics.plot(epochs, values, color=colour, label=name, lw=bold, marker=marker)
    metrics.set_ylim(-0.02, 1.02)
    _finish_axes(metrics, "Validation metrics", best_epoch)
    _save_figure(figure, path)


def _finish_axes(axes: Axes, title: str, best_epoch: int) -> None:
    axes.axvline(best_epoch, color="0.4", lw=1, ls=":", label=f"kept: epoch {best_epoch}")
    axes.set_title(title, loc="left")
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _draw_batch(
    images: np.ndarray,
    captions: Sequence[str],
    path: Path,
    *,
    boxes: Sequence[np.ndarray] | None = None,
) -> None:
    """Draw at most 16 images of a batch as the model gets them: augmented, with their boxes.

    Of images, uint8 ``(B, S, S)``, a caption each, drawn above it and not in it, and per image
    ``xyxy`` in store px, ``(N, 4)``; None for a classifier.
    """
    shown = min(len(images), _MOST_DRAWN)
    columns = min(4, shown)
    rows = math.ceil(shown / columns)
    figure = Figure(figsize=(2.8 * columns, 3.05 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for row, axes in zip(range(shown), grid, strict=False):
        # Continuous edges: pixel i covers i to i + 1, as box coordinates do.
        height, width = images[row].shape
        axes.imshow(images[row], cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
        axes.set_title(captions[row], fontsize=8)
        for x1, y1, x2, y2 in () if boxes is None else boxes[row]:
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=_BOX, lw=1.5))
    _save_figure(figure, path)


def _save_figure(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
