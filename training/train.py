"""One call trains a detector or a classifier: what `cxr train` does."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from timm.layers import convert_sync_batchnorm

from cxr_compare.configs.load import dump_config, parse_config
from cxr_compare.configs.settings import Config, TrainedConfig, TrainingSettings
from cxr_compare.data_prep.audit.audit import require_no_errors
from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.disk_space import require_free_space
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.own_parts import failed_part, own_class
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.work.progress import Progress, Silence
from cxr_compare.networks.cost import count_parameters, describe_device
from cxr_compare.networks.model_files import WEIGHTS_FILE, save_architecture
from cxr_compare.training.callbacks import (
    Bar,
    FiniteLoss,
    FirstBatch,
    History,
    StopEarly,
    WeightAverage,
)
from cxr_compare.training.image_data import EpochSampler, ImageData
from cxr_compare.training.launch import Launch, Precision, choose_precision, read_launch
from cxr_compare.training.loggers import build_loggers, finish_loggers, require_loggers
from cxr_compare.training.module import ClassifierModule, DetectorModule, TrainingModule
from cxr_compare.training.optim import monitor_mode
from cxr_compare.training.plots import draw_curves
from cxr_compare.training.run_folder import RunFolder, is_ended, made_on, metrics_of
from cxr_compare.training.run_info import StartedRun
from cxr_compare.training.weights import (
    GRADUAL,
    AtomicCheckpointIO,
    StartWeights,
    build_model,
    require_published_weights,
)

_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_BYTES_PER_PARAMETER = 48  # checkpoint, best weights and final weights, each doubled while written


def train(
    settings: TrainedConfig,
    data: Path,
    out: Path,
    *,
    module: type[TrainingModule] | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    progress: Progress = Silence(),  # noqa: B008  it has no state
    despite_audit: bool = False,
    precision: Precision | None = None,
    **trainer_options: Any,
) -> RunFolder:
    """Train a model, or go on with a training that was interrupted, at its last whole epoch.

    On a CPU a training that was interrupted ends with exactly the weights of an uninterrupted one.
    Under torchrun or ``srun`` the processes train together; the first one writes the folder.

    Args:
        settings: Configuration of a detector or a classifier, from `configs.load.read_config`.
        data: Data set folder that `prepare` made.
        out: Folder of the training.
        module: Subclass of `DetectorModule` or `ClassifierModule`, such as one with another loss;
            None takes that of the configuration.
        callbacks: Further Lightning callbacks.
        loggers: Further Lightning loggers, beside those that the configuration names.
        progress: Takes lines for the user; and shows the progress.
        despite_audit: True trains although the audit found an error.
        precision: Number format; None takes that of the configuration.
        trainer_options: Further arguments of Lightning's `Trainer`, such as ``accelerator="cpu"``
            or ``profiler="simple"``.

    Returns:
        The folder of the training, which is complete.

    Raises:
        InputError: The configuration, the data or the folder do not allow this training, an image
            cannot be read, a loss is not finite (the message names the images), or memory ran out.
        KeyboardInterrupt: The user interrupted. The same call goes on.
    """
    training = settings.training
    launch = read_launch()
    require_shares(training.batch_size, launch.n_processes)
    module = module or _module_of(settings)
    callbacks = [
        *(own_class(name, "training.callbacks", Callback)() for name in training.callbacks),
        *callbacks,
    ]
    run = RunFolder(out)
    dataset = open_data(settings, data, run)
    datamodule = ImageData(settings, dataset, progress)
    _require_enough_images(datamodule, launch.n_processes)
    if is_ended(settings, dataset, run, progress):
        return run
    number_format = precision or _choose_precision(training, run, _is_cuda(trainer_options))
    require_published_weights(settings)  # before hours of decoding pixels
    model, start = build_model(settings, datamodule.findings, progress)
    trainable = settings.model.trainable if settings.model.trainable in GRADUAL else None
    if trainable and launch.n_processes > 1:  # processes agree only once what to expect
        raise InputError(
            "model.trainable: parts cannot be unfrozen while several devices share a batch; train "
            "on one device, or choose trainable = 'all' or 'head'"
        )
    if settings.model.compile:
        body = model.body if settings.kind == "detector" else model.trunk
        body.compile()
    learner = module(model, training, trainable)
    parameters = count_parameters(model)
    with ExitStack() as stack:
        if launch.rank == 0:
            require_free_space(out, _BYTES_PER_PARAMETER * parameters.total)
            stack.enter_context(folder_lock(out))
            if RunFolder.started_in(out) is None:
                start_run(
                    settings,
                    dataset,
                    run,
                    datamodule.usable.ids,
                    start,
                    progress,
                    despite_audit,
                    number_format,
                )
            # Written now: if the training diverges, its best weights need these files.
            save_architecture(model, out)
            model.preprocess.write(out / "preprocess.json")
        progress.say(f"{settings.name}: {datamodule.usable}")
        all_loggers = [
            *(build_loggers(training.loggers, run) if launch.rank == 0 else []),
            *loggers,
        ]
        for logger in all_loggers:
            logger.log_hyperparams(settings.model_dump())
        try:
            history, trainer = fit(
                learner,
                datamodule,
                run,
                callbacks=[FirstBatch(run, progress.say), *callbacks],
                loggers=all_loggers,
                progress=progress,
                precision=number_format,
                **trainer_options,
            )
        except Exception as error:
            if _is_out_of_memory(error):
                raise _too_large_error(settings, launch.n_processes) from None
            _name_failed_part(error, callbacks, all_loggers)
            raise
        if launch.rank == 0:
            facts = {
                **datamodule.usable.counts(),
                "pretrained": settings.model.weights,
                "parameters": parameters.total,
                "trainable_parameters": parameters.trainable,
                "precision": number_format,
                "cpu_settings": {
                    "threads": torch.get_num_threads(),
                    "workers": datamodule.n_workers,
                },
            }
            _complete(run, training, history, trainer, facts)
    return run


def _choose_precision(training: TrainingSettings, run: RunFolder, is_cuda: bool) -> Precision:
    """Return the number format of a new training, or that in which a training began."""
    started = RunFolder.started_in(run.folder)
    began = None if started is None else started.started.precision
    if began == "fp16" and not is_cuda:
        raise InputError(
            f"{run.folder}: this training began in fp16, which is for CUDA devices; go on with it "
            "on a GPU, or choose another --out"
        )
    return began or choose_precision(training.precision, "cuda" if is_cuda else "cpu")


def _name_failed_part(
    error: Exception, callbacks: Sequence[Callback], loggers: Sequence[Logger]
) -> None:
    """Raise the error of a callback or logger of the user's own as one line."""
    if isinstance(error, InputError):
        return
    own_loggers = [each for each in loggers if not type(each).__module__.startswith("lightning.")]
    for key, parts in (("callbacks", callbacks), ("loggers", own_loggers)):
        part = failed_part(error, parts)
        if part is not None:
            raise InputError(f"training.{key}: {part}") from error


def _module_of(settings: TrainedConfig) -> type[TrainingModule]:
    """Return the class of a kind of network, or the one that the configuration names instead."""
    kind = DetectorModule if settings.kind == "detector" else ClassifierModule
    name = settings.training.module
    return kind if name is None else own_class(name, "training.module", kind)


def fit(
    learner: TrainingModule,
    data: LightningDataModule,
    run: RunFolder,
    *,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    progress: Progress = Silence(),  # noqa: B008  it has no state
    precision: Precision = "fp32",
    **trainer_options: Any,
) -> tuple[History, Trainer]:
    """Fit a module in a run folder, from its last whole epoch on where there is one.

    `run` gets ``metrics.csv`` and the checkpoints. The options are those of `train`. Returns the
    rows of all epochs, and Lightning's trainer. Raises InputError if a loss is not finite, a figure
    is undefined, or the checkpoint is damaged.
    """
    training = learner.training_settings
    launch = read_launch()
    learner.to(memory_format=torch.channels_last)  # it is faster
    average = WeightAverage(training.ema_decay) if training.ema_decay else None
    history = History(run, training.monitor, average, progress.say)
    own = [_RestoreSignals(), Bar(progress), FiniteLoss(), *callbacks, history]
    if average is not None:
        own.append(average)
    if training.patience and training.monitor != "epoch":
        mode = monitor_mode(training.monitor)
        own.append(StopEarly(training.monitor, patience=training.patience, mode=mode))
    own.append(
        ModelCheckpoint(
            run.checkpoints, "last", save_on_train_epoch_end=True, enable_version_counter=False
        )
    )
    is_cuda = _is_cuda(trainer_options)
    if is_cuda and launch.n_processes > 1:
        # By timm: torch's function, which Lightning calls, loses the activation of timm's norms.
        convert_sync_batchnorm(learner)
    options: dict[str, Any] = {**_launch_options(launch), **trainer_options}
    checkpoint = run.last_checkpoint if run.last_checkpoint.is_file() else None
    with _quiet(), torch.random.fork_rng(range(torch.cuda.device_count()) if is_cuda else ()):
        trainer = Trainer(
            max_epochs=training.epochs,
            accumulate_grad_batches=training.accumulate,
            gradient_clip_val=training.clip or None,
            gradient_clip_algorithm="norm",
            precision=_PRECISION[precision],
            callbacks=own,
            plugins=[AtomicCheckpointIO(), _launch_environment(launch)],
            default_root_dir=run.folder,
            logger=list(loggers),
            log_every_n_steps=1,  # fewer steps than this would be warned of
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # it pads: validation images would count twice
            benchmark=is_cuda,  # all batches have one size: the fastest kernels stay
            **options,
        )
        with _interruptible():
            trainer.fit(learner, data, ckpt_path=checkpoint, weights_only=True)
        finish_loggers(loggers)
    return history, trainer


def open_data(settings: Config, data: Path, run: RunFolder) -> DataSet:
    """Check what the configuration and the folder of a training say, then open the data set."""
    require_loggers(settings.training.loggers)
    if run.config_file.is_file():
        text = run.config_file.read_text(encoding="utf-8", errors="replace")
        before = parse_config(text, str(run.config_file))
        if before.kind != settings.kind:
            raise InputError(
                f"{run.folder}: holds a {before.kind} ({before.name}); choose another --out"
            )
    return DataSet.open(data)


def start_run(
    settings: Config,
    dataset: DataSet,
    run: RunFolder,
    ids: dict[str, pd.Index],
    start: StartWeights | None,
    progress: Progress,
    despite_audit: bool,
    precision: Precision,
) -> None:
    """Check the audit and leaks, and write the records of a new training."""
    split = settings.data.split
    audited, errors = require_no_errors(dataset, split, despite_errors=despite_audit)
    if not audited:
        progress.say(
            f"note: no audit has looked at split '{split}' (cxr check {dataset.folder}); only "
            "patients and equal images were compared"
        )
    for error in errors:
        progress.say(f"warning: trained despite an error of the audit: {error}")
    images = dataset.identities(pd.Index(dataset.images["image_id"]))
    roles = [pd.DataFrame({"image_id": names, "role": role}) for role, names in ids.items()]
    seen = pd.concat(roles, ignore_index=True).merge(images, on="image_id", validate="1:1")
    synthetic = bool(dataset.synthetic[images["image_id"].isin(ids["train"])].all())
    started_from = None
    if start is not None:
        test = images[images["image_id"].isin(dataset.image_ids("test", split))]
        for warning in start.leak_warnings(seen, test):
            progress.say(warning)
        started_from = start.record()
        seen = start.merge_seen(seen)
        synthetic &= start.run is None or start.run.synthetic
    target = dataset.target(settings.data.target, option="--set data.target=NAME")
    started = StartedRun(
        name=settings.name,
        model_kind=settings.kind,
        target=target.name,
        findings=target.any_of,
        seed=settings.training.seed,
        data_set=made_on(settings, dataset),
        despite_audit=tuple(errors),
        synthetic=synthetic,
        started_from=started_from,
        precision=precision,
    )
    RunFolder.create(run.folder, config=dump_config(settings), seen=seen, started=started)


def _complete(
    run: RunFolder,
    training: TrainingSettings,
    history: History,
    trainer: Trainer,
    facts: dict[str, Any],
) -> None:
    """Put the best weights in place, draw the curves and write ``run.json``."""
    best = history.best
    history.remove_earlier_weights()
    run.write_history(history.rows)
    with atomic_path(run.folder / WEIGHTS_FILE) as temporary:
        shutil.copyfile(run.best_weights(best["epoch"]), temporary)
    draw_curves(
        history.rows,
        run.folder / "curves.png",
        monitor=training.monitor,
        best_epoch=best["epoch"],
    )
    device = trainer.strategy.root_device
    device_name = describe_device(device)
    if trainer.world_size > 1:
        device_name = f"{trainer.world_size} x {device_name}"
    run.complete(
        monitor=training.monitor,
        best_epoch=best["epoch"],
        best_value=best[training.monitor],
        best_figures={
            name: value if math.isfinite(value) else None
            for name, value in metrics_of(best).items()
        },
        epochs=len(history.rows),
        stopped_early=len(history.rows) < training.epochs,
        device=device.type,
        devices=trainer.world_size,
        device_name=device_name,
        seconds=round(history.seconds, 1),
        seconds_training=round(history.seconds - history.seconds_validation, 1),
        seconds_validation=round(history.seconds_validation, 1),
        **facts,
    )


def _launch_options(launch: Launch) -> dict[str, Any]:
    """Return the arguments of Lightning's trainer for the processes that train together."""
    if launch.launcher is None:
        return {"devices": 1}
    if launch.n_local == launch.n_processes:  # needs no network and no host name
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    n_machines = launch.n_processes // launch.n_local
    return {"devices": launch.n_local, "num_nodes": n_machines, "strategy": "ddp"}


def _launch_environment(launch: Launch) -> ClusterEnvironment:
    """Return Lightning's plugin of the launcher."""
    if launch.launcher == "torchrun":
        return TorchElasticEnvironment()
    if launch.launcher == "slurm":
        # Lightning refuses tasks without this variable, which srun --ntasks does not set.
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(launch.n_local))
        # Its checkpoint in the middle of an epoch would not be exact.
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


def require_shares(batch_size: int, n_processes: int) -> None:
    """Refuse a batch that processes cannot share: every one gets equally many images."""
    if batch_size % n_processes:
        nearest = max(n_processes, batch_size // n_processes * n_processes)
        raise InputError(
            f"--devices {n_processes}: training.batch_size = {batch_size} is the whole batch, and "
            f"does not divide by {n_processes} processes; add --set training.batch_size={nearest}"
        )


def _require_enough_images(data: ImageData, n_processes: int) -> None:
    """Refuse fewer training images than a step takes, and processes without validation images."""
    training = data.config.training
    EpochSampler(
        len(data.usable.ids["train"]), training.seed, training.batch_size * training.accumulate
    )
    n_val = len(data.usable.ids["val"])
    if n_val < n_processes:
        raise InputError(
            f"split: role 'val' has {counted(n_val, 'image')} for {n_processes} processes; start "
            "fewer, or make another split with cxr split"
        )


def _is_cuda(trainer_options: Mapping[str, Any]) -> bool:
    """Return True if the trainer will compute on a GPU."""
    return trainer_options.get("accelerator", "auto") != "cpu" and torch.cuda.is_available()


def _is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception means that memory ran out, on a CPU or a GPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    messages = ("can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in messages)


def _too_large_error(settings: TrainedConfig, devices: int) -> InputError:
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
        f"training.accumulate={accumulate}, which learns from {smaller * accumulate} images a step "
        f"(before: {training.batch_size * training.accumulate})"
    )


class _RestoreSignals(Callback):
    """The guarantee of signals: SIGTERM ends this process at once, as the program has set."""

    def __init__(self) -> None:
        self._before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handler of SIGTERM, which Lightning has just replaced."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)


_EXPECTED = (
    "does not have many workers",  # on a CPU, where all cores compute
    "in eval mode at the start of training",  # frozen batch norm
    "is not empty",  # the folder of checkpoints of a resumed training
    "isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own use of torch
    "lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)",  # the first steps in fp16
    "The `srun` command is available",  # and something else started this process
    "available but not used",  # the machine has more devices
    "You have overridden `transfer_batch_to_device`",  # the module knows its batches
    "`sync_dist=True`",  # figures are equal in all processes
)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C reach the caller; Lightning would exit the process."""
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is not interrupt:
            signal.signal(signal.SIGINT, interrupt)
        # Kernels that are chosen by their speed differ from one prediction to the next.
        torch.backends.cudnn.benchmark = False


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's messages about choices that are made on purpose here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for text in _EXPECTED:
                warnings.filterwarnings("ignore", f".*{text}")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
