"""One training, from a configuration to a finished run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from cxr_compare.classification.chexnet import ChestClassifier
from cxr_compare.configs.load import dump_config
from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.base.errors import InputError, Remedy, counted
from cxr_compare.data_prep.base.files import (
    atomic_path,
    folder_lock,
    require_free_space,
    require_unchanged,
)
from cxr_compare.data_prep.parallel import Progress, Silence
from cxr_compare.data_prep.preprocess import Preprocess
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.networks.trunks import NETWORKS, freeze
from cxr_compare.training.callbacks import (
    AtomicCheckpointIO,
    FiniteLoss,
    History,
    StopEarly,
    WeightAverage,
)
from cxr_compare.training.data import ImageData, collate
from cxr_compare.training.machine import (
    LIGHTNING_PRECISION,
    Precision,
    Processes,
    choose_precision,
    find_processes,
    fit_errors,
    process_rank,
    quiet,
)
from cxr_compare.training.model_files import Model, count_flops, save_architecture
from cxr_compare.training.module import ClassifierModule, DetectorModule, TrainingModule
from cxr_compare.training.optim import monitor_mode
from cxr_compare.training.plots import draw_batch, draw_curves
from cxr_compare.training.request import Request
from cxr_compare.training.run_folder import RunFolder, made_on
from cxr_compare.training.run_info import PREPROCESS_FILE, WEIGHTS_FILE, StartedRun
from cxr_compare.training.start_weights import StartWeights, start_from

_ENOUGH_POSITIVE = 50
"""Number of positive validation images below which sampling error may choose the epoch."""
_BYTES_PER_PARAMETER = 48  # checkpoint, best and final weights, each doubled while it is written


def train(
    request: Request,
    *,
    module: type[TrainingModule] | None = None,
    model: Callable[..., Any] | None = None,
    augmentation: Any = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    progress: Progress,
    is_cuda: bool,
    devices: int,
) -> RunFolder:
    """Train a model, or go on with a training that was interrupted, at its last whole epoch.

    On a CPU a training that was interrupted ends with exactly the weights of an uninterrupted one.

    Args:
        request: Configuration, data set of cxr prepare and folder of the training.
        module: Subclass of `DetectorModule` or `ClassifierModule`, such as one with another loss.
        model: Builds another network from preprocessing and ``n_findings``, with the attributes and
            the output of `ChestClassifier` or `LesionRetinaNet`.
        augmentation: Transform of albumentations, or a Compose, in place of the configuration's.
        callbacks: Further callbacks of Lightning.
        loggers: Loggers of Lightning.
        progress: Takes lines for the user, and shows the progress.
        is_cuda: True to train on GPUs.
        devices: Number of GPUs, or of processes on a CPU.
    """
    if process_rank() > 0:
        progress = Silence()  # the first process says it
    config, run = request.config, request.run
    kind = DetectorModule if config.kind == "detector" else ClassifierModule
    if module is not None and not (isinstance(module, type) and issubclass(module, kind)):
        raise InputError(
            f"module: give a subclass of cxr_compare.training.module.{kind.__name__}, as "
            f"docs/own-parts.md shows; got {module!r}"
        )
    images = ImageData(request, progress, augmentation)
    processes = find_processes(devices)
    _require_shares(images, processes.total)
    if run.is_complete:
        progress.say(f"{run.folder}: this training has ended before")
        return run
    precision = choose_precision(config, run, is_cuda=is_cuda)
    network, start = build_model(config, request.target.any_of, model)
    is_first = process_rank() == 0
    with folder_lock(run.folder) if is_first else nullcontext():
        if is_first:
            _begin(images, network, start, precision)
        progress.say(f"{config.name}, {config.data.image_size} px: {images.usable}")
        if start is not None:
            progress.say(start.taken)
        learner = (module or kind)(network, config.training)
        history, trainer = _fit(
            learner, images, callbacks, loggers, precision, processes, is_cuda=is_cuda
        )
        if is_first:
            _complete(images, network, history, trainer)
            _say_few_positive(images, history)
    return run


def build_model(
    config: Config, findings: Sequence[str], build_own: Callable[..., Any] | None = None
) -> tuple[Any, StartWeights | None]:
    """Build the network of a configuration with its start weights, its frozen stages frozen.

    `build_own` builds another network, with random weights.
    """
    settings = config.model
    arguments = settings.model_dump(exclude={"weights", "trainable"})
    network = NETWORKS.get(settings.backbone, NETWORKS["densenet121"])
    size = config.data.image_size
    preprocess = Preprocess(size=size, mean=network.mean, std=network.std)
    weights = settings.weights
    before = RunFolder.around(Path(weights))
    if before is not None:  # pixels as the run has learned them
        if before.is_complete:
            require_unchanged(before.folder / PREPROCESS_FILE, before.info.files[PREPROCESS_FILE])
        of_run = Preprocess.read(before.folder / PREPROCESS_FILE)
        preprocess = Preprocess(size=size, mean=of_run.mean, std=of_run.std)
    build: type[Model] = LesionRetinaNet if config.kind == "detector" else ChestClassifier
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(config.training.seed)
        if build_own is not None:
            return build_own(preprocess, n_findings=len(findings)), None
        model = build(preprocess, len(findings), **arguments)
    start = start_from(model, weights, findings)
    freeze(model.trunk, settings.stages)
    return model, start


def _fit(
    learner: TrainingModule,
    images: ImageData,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    precision: Precision,
    processes: Processes,
    *,
    is_cuda: bool,
) -> tuple[History, Trainer]:
    training, run, progress = learner.settings, images.request.run, images.progress
    learner.to(memory_format=torch.channels_last)  # it is faster
    average = WeightAverage(training.ema_decay) if training.ema_decay else None
    history = History(run, training.monitor, average, progress)
    all_callbacks: list[Callback] = [FiniteLoss(), *callbacks, history]
    if average is not None:
        all_callbacks.append(average)
    if training.patience and training.monitor != "epoch":
        mode = monitor_mode(training.monitor)
        all_callbacks.append(StopEarly(training.monitor, patience=training.patience, mode=mode))
    all_callbacks.append(
        ModelCheckpoint(
            run.checkpoints, "last", save_on_train_epoch_end=True, enable_version_counter=False
        )
    )
    checkpoint = run.last_checkpoint if run.last_checkpoint.is_file() else None
    if checkpoint is not None:
        progress.say(f"{run.folder}: goes on after the last whole epoch of this training")
    if is_cuda and processes.total > 1:
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(learner)
    with quiet(), torch.random.fork_rng(devices=()):
        trainer = Trainer(
            max_epochs=training.epochs,
            accumulate_grad_batches=training.accumulate,
            gradient_clip_val=training.clip or None,
            precision=LIGHTNING_PRECISION[precision],
            callbacks=all_callbacks,
            plugins=[AtomicCheckpointIO(), processes.environment],
            default_root_dir=run.folder,
            logger=list(loggers),
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # it pads: validation images would count twice
            benchmark=is_cuda,  # all batches have one size: the fastest kernels stay
            devices=processes.devices,
            num_nodes=processes.machines,
            accelerator="gpu" if is_cuda else "cpu",
            strategy="ddp" if processes.total > 1 else "auto",
        )
        with fit_errors(training):
            trainer.fit(learner, images, ckpt_path=checkpoint, weights_only=True)
    return history, trainer


def _require_shares(images: ImageData, n_processes: int) -> None:
    """Refuse a batch, or validation images, that the processes cannot share."""
    batch_size = images.config.training.batch_size
    if batch_size % n_processes:
        near = max(n_processes, batch_size // n_processes * n_processes)
        raise InputError(
            f"training.batch_size: {batch_size} images cannot be shared by {n_processes} processes",
            [Remedy(options={"set_": f"training.batch_size={near}"})],
        )
    n_val = len(images.usable.ids["val"])
    if n_val < n_processes:
        raise InputError(
            f"devices: {n_processes} processes cannot share {counted(n_val, 'validation image')}"
        )


def _begin(
    images: ImageData, network: Model, start: StartWeights | None, precision: Precision
) -> None:
    """Write the records of a training, unless it goes on, and draw its first batch."""
    request, run = images.request, images.request.run
    require_free_space(run.folder, _BYTES_PER_PARAMETER * _count(network.parameters()))
    if RunFolder.started_in(run.folder) is None:
        _start(request, start, precision, images.progress)
    save_architecture(network, run.folder)
    rows = range(min(len(images.train), request.config.training.batch_size))
    batch = collate([images.train[row, row] for row in rows])
    draw_batch(batch, run.folder / "batch.png")


def _count(parameters: Iterable[torch.nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _start(
    request: Request, start: StartWeights | None, precision: Precision, progress: Progress
) -> None:
    """Say what the audit found, and write the records of a new training."""
    config, dataset, usable = request.config, request.dataset, request.usable
    if not request.audited:
        progress.say(f"note: no audit has looked at split '{config.data.split}'; run cxr check")
    for error in request.errors:
        progress.say(f"warning: trained despite an error of the audit: {error}")
    identities = dataset.identities(pd.Index(dataset.images["image_id"]))
    roles = [pd.DataFrame({"image_id": ids, "role": r}) for r, ids in usable.ids.items()]
    seen = pd.concat(roles, ignore_index=True).merge(identities, on="image_id", validate="1:1")
    in_training = identities["image_id"].isin(usable.ids["train"])
    synthetic = bool(dataset.synthetic[in_training].all())
    if start is not None:
        seen = start.merge_seen(seen)
        synthetic &= start.run is None or start.run.started.synthetic
    started = StartedRun(
        name=config.name,
        model_kind=config.kind,
        target=request.target.name,
        findings=request.target.any_of,
        classes=request.classes,
        seed=config.training.seed,
        data_set=made_on(config, dataset),
        despite_audit=request.errors,
        synthetic=synthetic,
        started_from=None if start is None else start.record(),
        precision=precision,
        own_parts=request.own_parts,
    )
    RunFolder.create(request.run.folder, config=dump_config(config), seen=seen, started=started)


def _complete(images: ImageData, network: Model, history: History, trainer: Trainer) -> None:
    """Keep the weights of the best epoch, and write what was trained and how well."""
    config, run = images.config, images.request.run
    best, monitor = history.best, config.training.monitor
    history.remove_earlier_weights()
    run.write_history(history.rows)
    with atomic_path(run.folder / WEIGHTS_FILE) as temporary:
        shutil.copyfile(run.best_weights(best["epoch"]), temporary)
    draw_curves(history.rows, run.folder / "curves.png", best["epoch"])
    run.complete(
        monitor=monitor,
        best_epoch=best["epoch"],
        best_value=best[monitor],
        epochs=len(history.rows),
        device=trainer.strategy.root_device.type,
        devices=trainer.world_size,
        seconds=round(history.seconds, 1),
        parameters=_count(network.parameters()),
        trainable_parameters=_count(p for p in network.parameters() if p.requires_grad),
        flops=count_flops(network.eval(), config.data.image_size),
        **images.usable.counts(),
    )


def _say_few_positive(images: ImageData, history: History) -> None:
    """Say if few positive validation images chose another epoch than the last."""
    usable, epoch = images.usable, history.best["epoch"]
    n_positive = int(usable.ids["val"].isin(usable.positive).sum())
    if epoch < len(history.rows) and n_positive < _ENOUGH_POSITIVE:
        images.progress.say(
            f"note: epoch {epoch} of {len(history.rows)} is kept by {history.monitor} on "
            f"{counted(n_positive, 'positive validation image')}; of fewer than "
            f"{_ENOUGH_POSITIVE} the best epoch may be one by sampling error (training.monitor "
            "epoch keeps the last)"
        )
