"""The inner part of `cxr train`: loaders, the fit, and what stays in the run folder."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from configs.settings import ClassifierConfig, DetectorConfig, TrainingSettings
from data_prep.contracts.errors import InputError
from scripts import console
from scripts.pixels import treatment_of
from scripts.runtime import choose_precision
from scripts.sampling import build_sampler, dropped_boxes
from scripts.train_batch import fitting_batch, too_large
from scripts.train_devices import FAREWELL, own_rank, require_shares
from scripts.train_task import Trainee
from training.batch_size import is_out_of_memory
from training.cost import count_parameters, describe_device
from training.fit import FitResult, fit
from training.loading import NamedBatches, NamedRows, require_loaded
from training.model_files import save_architecture, save_model
from training.optimisation import Optimisation
from training.peak_memory import PeakMemory
from training.plots import draw_batch, draw_curves
from training.run_folder import RunFolder
from training.sampling import SeededSampler
from training.trainer import Precision

if TYPE_CHECKING:
    from data_prep.store.preprocess import Preprocess


def fit_trainee(
    settings: DetectorConfig | ClassifierConfig,
    trainee: Trainee,
    run: RunFolder,
    device: Literal["cpu", "cuda"],
    devices: int = 1,
) -> None:
    """Train, and complete the run folder: weights, history, pictures, `run.json` last.

    Args:
        settings: The whole configuration.
        trainee: The model and its images.
        run: Started, or interrupted before.
        device: Where to train.
        devices: How many share a batch; above 1, this is one of as many processes, of which the
            first writes the folder.

    Raises:
        InputError: As `training.fit.fit`, or the batch does not fit in memory.
    """
    how = settings.training
    require_shares(how.batch_size, devices)
    precision = choose_precision(how.precision, device)
    console.say(
        f"{settings.name}: {len(trainee.train)} training images ({int(trainee.positive.sum())} "
        f"positive), {len(trainee.val)} validation images; {precision} on {device}"
        + (f", {devices} share a batch" if devices > 1 else "")
    )
    sampler, trainee = build_sampler(trainee, how)
    # The model knows size and normalisation; what was done to the pictures before is settled here.
    seen = replace(
        cast("Preprocess", trainee.model.preprocess), treatment=treatment_of(settings.data)
    )
    if not own_rank():
        _draw_first_batch(trainee, sampler, int(how.batch_size), run)
        # Now: of a training that diverges the best weights are of use only with these beside them.
        save_architecture(trainee.model, run.folder)
        seen.to_json(run.folder / "preprocess.json")
    began, memory = time.perf_counter(), PeakMemory(trainee.model, device)
    result = _fit_or_say_why(settings, trainee, run, sampler, device, precision, devices)
    if own_rank():
        return
    if dropped := dropped_boxes(result.history):
        console.say(f"augmentation: {dropped.sentence()}, in all epochs together")
    save_model(trainee.model, run.folder)
    parameters, learned = count_parameters(trainee.model)
    draw_curves(
        result.history,
        run.folder / "curves.png",
        monitor=how.monitor,
        best_epoch=result.best_epoch,
    )
    run.complete(
        {
            "monitor": how.monitor,
            "best_epoch": result.best_epoch,
            "best_value": result.best_value,
            "best_figures": _figures(result),
            "epochs": len(result.history),
            "stopped_early": result.stopped_early,
            "n_train": len(trainee.train),
            "n_val": len(trainee.val),
            "pretrained": settings.model.weights,
            "parameters": parameters,
            "trainable_parameters": learned,
            "precision": precision,
            "device": device,
            "devices": devices,
            "device_name": (f"{devices} x " if devices > 1 else "")
            + describe_device(torch.device(device)),
            "seconds": round(sum(row["seconds"] for row in result.history), 1),
            "seconds_since_resumed": round(time.perf_counter() - began, 1),
            "peak_memory_bytes": memory.read(),
            "boxes": None if dropped is None else dropped._asdict(),
        }
    )


def _draw_first_batch(
    trainee: Trainee, sampler: SeededSampler, batch_size: int, run: RunFolder
) -> None:
    rows = NamedRows(trainee.train, trainee.train.image_ids)
    samples = [rows[pair] for pair in islice(sampler, batch_size)]
    batch = require_loaded(NamedBatches(trainee.collate)(samples))
    captions, boxes = trainee.describe(batch)
    draw_batch(batch.images[:, 0].numpy(), captions, run.folder / "batch.png", boxes=boxes)


def _fit_or_say_why(
    settings: DetectorConfig | ClassifierConfig,
    trainee: Trainee,
    run: RunFolder,
    sampler: SeededSampler,
    device: Literal["cpu", "cuda"],
    precision: Precision,
    devices: int,
) -> FitResult:
    try:
        return _fit(settings, trainee, run, sampler, device, precision, devices)
    except InputError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            if devices > 1:
                # Another process may have failed first, which ends this one meanwhile: that one
                # knows why, and this one only knows that it no longer answers.
                time.sleep(FAREWELL)
            raise
    # Outside of the handler: the error holds the memory that is to be measured.
    found = fitting_batch(settings, trainee, device, devices)
    raise too_large(settings, found, "do not fit in memory")


def _fit(
    settings: DetectorConfig | ClassifierConfig,
    trainee: Trainee,
    run: RunFolder,
    sampler: SeededSampler,
    device: Literal["cpu", "cuda"],
    precision: Precision,
    devices: int,
) -> FitResult:
    how = settings.training
    loading: dict[str, Any] = {
        "batch_size": int(how.batch_size) // devices,
        "collate_fn": NamedBatches(trainee.collate),
        "num_workers": how.workers,
        "pin_memory": device == "cuda",
        "persistent_workers": how.workers > 0,
    }
    rows, val_rows = (NamedRows(part, part.image_ids) for part in (trainee.train, trainee.val))
    train_loader: DataLoader[Any] = DataLoader(rows, sampler=sampler, **loading)
    val_loader: DataLoader[Any] = DataLoader(val_rows, **loading)
    batches = how.epochs * (-(-len(rows) // int(how.batch_size)) + len(val_loader))
    with console.progress("Training, batches", batches) as advance:
        return fit(
            trainee.model,
            training_losses=trainee.training_losses,
            validation_step=trainee.validation_step,
            validation_metrics=trainee.validation_metrics,
            train_loader=train_loader,
            val_loader=val_loader,
            run=run,
            monitor=how.monitor,
            mode="min" if how.monitor == "val_loss" else "max",
            epochs=how.epochs,
            patience=how.patience or None,
            optimisation=_optimisation(how),
            precision=precision,
            channels_last=how.channels_last,
            callbacks=trainee.callbacks,
            seed=how.seed,
            resume=True,
            accelerator=device,
            devices=devices,
            compiled=_core(trainee.model) if how.compile else (),
            tensorboard=how.tensorboard,
            progress=advance,
            on_epoch=lambda row: console.say(_line(row, how.epochs)),
        )


def _core(model: nn.Module) -> list[nn.Module]:
    """The convolutions; losses, matching and NMS change shape from image to image."""
    names = ("backbone", "head", "trunk")
    return [part for name in names if (part := getattr(model, name, None)) is not None]


def _optimisation(how: TrainingSettings) -> Optimisation:
    return Optimisation(
        optimiser=how.optimiser,
        learning_rate=how.learning_rate,
        weight_decay=how.weight_decay,
        momentum=how.momentum,
        schedule=how.schedule,
        warmup_epochs=how.warmup_epochs,
        step_milestones=how.step_milestones,
        step_factor=how.step_factor,
        plateau_patience=how.plateau_patience,
        plateau_factor=how.plateau_factor,
        accumulate=how.accumulate,
        clip=how.clip or None,
        ema_decay=how.ema_decay,
    )


def _line(row: dict[str, Any], epochs: int) -> str:
    figures = "  ".join(f"{name} {value:.3f}" for name, value in _metrics(row).items())
    return (
        f"epoch {row['epoch']} of {epochs}: loss {row['train_loss']:.3f}, "
        f"validation {row['val_loss']:.3f}  {figures}  ({row['seconds']:.0f} s)"
    )


def _metrics(row: dict[str, Any]) -> dict[str, float]:
    skipped = ("epoch", "learning_rate", "seconds")
    return {
        k: v for k, v in row.items() if k not in skipped and not k.startswith(("train_", "val_"))
    }


def _figures(result: FitResult) -> dict[str, float | None]:
    row = next(row for row in result.history if row["epoch"] == result.best_epoch)
    return {name: None if value != value else value for name, value in _metrics(row).items()}
