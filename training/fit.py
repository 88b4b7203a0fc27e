"""The training loop with Lightning: one call trains a model and writes a resumable run folder."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.networks.model_files import read_weights
from cxr_compare.training.batch_norm import share_batch_statistics
from cxr_compare.training.checkpoint_file import AtomicCheckpointIO, require_same_architecture
from cxr_compare.training.ema import WeightAverage
from cxr_compare.training.epoch_record import EpochRecord, Row, best_row
from cxr_compare.training.hardware import Precision
from cxr_compare.training.loading import BatchLoader
from cxr_compare.training.loop import Loop
from cxr_compare.training.optimisation import monitor_mode
from cxr_compare.training.rank import Rank
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.sampling import SeededSampler
from cxr_compare.training.task import TrainingTask


def _build_trainer(
    folder: Path,
    *,
    callbacks: list[Callback],
    loggers: Sequence[Logger],
    epochs: int,
    accumulate: int,
    precision: Precision,
    accelerator: str,
    rank: Rank | None,
) -> Trainer:
    """Build Lightning's trainer; its own logging, progress and saving are switched off."""
    plugins: list[Any] = [AtomicCheckpointIO()]
    if precision == "fp16":  # by name: on a CPU Lightning would take bf16 in its place
        scaler = torch.amp.GradScaler(accelerator)
        plugins.append(MixedPrecision("16-mixed", accelerator, scaler))
    strategy: Any = "auto"
    if rank is not None:
        # By name: Lightning would ask SLURM, also where SLURM started something else.
        plugins.append(_TorchrunEnvironment())
        # All validate with the first process's batch norm: DDP sends its statistics before each
        # training batch and the first validation batch, and not before the others, of which
        # processes have different numbers.
        strategy = DDPStrategy()
    return Trainer(
        accelerator=accelerator,
        devices=1 if rank is None else rank.local_world_size,
        strategy=strategy,
        # fp16 is set by the plugin.
        precision={"fp32": "32-true", "bf16": "bf16-mixed"}.get(precision),  # type: ignore[arg-type]
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        plugins=plugins,
        callbacks=callbacks,
        benchmark=accelerator == "cuda",  # all batches have one size: the fastest kernels stay
        default_root_dir=folder,
        logger=list(loggers),
        log_every_n_steps=1,  # nothing is logged, but fewer steps than this would be warned of
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # SeededSampler shares the rows itself
    )


class _TorchrunEnvironment(TorchElasticEnvironment):
    """torchrun's variables, which `Processes` has set whatever started this process."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Check nothing: nodes may have different numbers of processes."""


class _RestoreSignals(Callback):
    """The guarantee of signals: SIGTERM ends this process at once, as the program has set.

    Lightning would first talk to the other processes, which may be in the middle of something else.
    """

    def __init__(self) -> None:
        self._before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the handler of SIGTERM, which Lightning has just replaced."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C reach the caller; Lightning would exit the process."""
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
    """Silence Lightning's warnings about choices that are made on purpose here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _EXPECTED:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


_EXPECTED = (
    # On a CPU, where all cores compute, so that this process loads the images itself.
    r".*does not have many workers.*",
    # Frozen batch norm stays in evaluation mode.
    r".*module\(s\) in eval mode at the start of training.*",
    # Resuming starts at an epoch's end, where nothing of the loader's state is left.
    r".*You're resuming from a checkpoint that ended before the epoch ended.*",
    # Lightning's own use of a torch interface that torch renamed.
    r".*isinstance\(treespec, LeafSpec\)` is deprecated.*",
    # In fp16 the first steps are skipped until the scale of the loss is low enough.
    r".*lr_scheduler.step\(\)` before `optimizer.step\(\).*",
    # `srun` is available, and something else started this process.
    r".*The `srun` command is available.*",
    # The machine has more devices than are used.
    r".*available but not used.*",
)


@dataclass(frozen=True)
class FitResult:
    """Result of a training: the best epoch, its metric, and the metrics of all epochs.

    Attributes:
        best_epoch: Epoch whose weights were kept, from 1.
        best_value: Value of the metric that selects the weights (``monitor`` in the configuration)
            in that epoch.
        history: One row of metrics for each epoch, as in ``metrics.csv``.
        stopped_early: True if the training ended before its last epoch because the metric did not
            improve.
    """

    best_epoch: int
    best_value: float
    history: list[Row]
    stopped_early: bool


def fit(  # noqa: PLR0913 - hooks of one training
    task: TrainingTask,
    settings: TrainingSettings,
    *,
    train_loader: BatchLoader,
    val_loader: BatchLoader,
    run: RunFolder,
    precision: Precision = "fp32",
    resume: bool = False,
    accelerator: Literal["cpu", "cuda"] = "cpu",
    rank: Rank | None = None,
    loggers: Sequence[Logger] = (),
    progress: Callable[[int], None] | None = None,
    on_epoch: Callable[[Row], None] | None = None,
) -> FitResult:
    """Train a model, validate it after each epoch, and load the weights of its best epoch.

    The state is saved after each epoch. A training that was interrupted continues from there if
    ``resume`` is True. On a CPU it then ends with exactly the weights of an uninterrupted training.
    Weights are stored in the layout channels_last, which is faster on CPUs and GPUs.

    If several processes train together, `Processes` has connected them, and each calls this
    function with loaders for its share of each batch. Gradients and figures are those of the whole
    batch. The statistics of unfrozen batch norms are those of the whole batch on CUDA, and those of
    each process on CPUs.

    Args:
        task: Network, images, losses and metrics of the training.
        settings: Epochs, optimiser, learning rate, and the metric that selects the best epoch.
        train_loader: Batches of the training images.
        val_loader: Batches of the validation images.
        run: Run folder that is written.
        precision: ``fp32``, or ``bf16`` or ``fp16`` by autocast, with weights in float32.
        resume: True continues from the checkpoint of the run folder, if there is one.
        accelerator: ``cpu`` or ``cuda``.
        rank: This process among several that train together; None if it trains alone.
        loggers: Loggers of Lightning, from `build_loggers`.
        progress: Function that is called with the number of batches finished since its last call,
            in training and validation.
        on_epoch: Function that is called with the metrics of each epoch, by name.

    Returns:
        The best epoch, its metric, and the metrics of all epochs.

    Raises:
        InputError: A loss or gradient is not finite or a batch fails (the message names the
            images), the training diverges, the monitored figure is unknown or undefined, the
            checkpoint is damaged or belongs to another architecture, or the disk is full.
        torch.OutOfMemoryError: A step did not fit in memory.
        KeyboardInterrupt: The user interrupted. The folder can be resumed.
    """
    model = task.model
    record = EpochRecord(
        run, task.validation_metrics, settings, progress=progress, on_epoch=on_epoch
    )
    model.to(memory_format=torch.channels_last)
    world_size = 1 if rank is None else rank.world_size
    if rank is not None and accelerator == "cuda":
        share_batch_statistics(model.train())
    step_images = int(train_loader.batch_size or 1) * world_size * settings.accumulate
    sampler = train_loader.sampler
    ends_with_spare: Callable[[], bool] = lambda: False  # noqa: E731
    if isinstance(sampler, SeededSampler):
        ends_with_spare = sampler.ends_with_spare
    loop = Loop(task, settings, record.advice, step_images, ends_with_spare)
    checkpoint = run.last_checkpoint if resume and run.last_checkpoint.exists() else None
    if checkpoint is not None:
        require_same_architecture(loop, checkpoint)
    cuda_devices = range(torch.cuda.device_count()) if accelerator == "cuda" else ()
    with (
        _quiet(),
        _interruptible(),
        torch.random.fork_rng(cuda_devices),
    ):
        averaging = [WeightAverage(settings.ema_decay)] if settings.ema_decay else []
        trainer = _build_trainer(
            run.folder,
            # The record comes before the average: it must see averaged weights before they are
            # swapped back. And after the others, whose state it saves.
            callbacks=[_RestoreSignals(), *task.callbacks, record, *averaging],
            loggers=loggers,
            epochs=settings.epochs,
            accumulate=settings.accumulate,
            precision=precision,
            accelerator=accelerator,
            rank=rank,
        )
        # The guarantee of bit-exact resuming: all state comes from the checkpoint of a whole epoch.
        try:
            trainer.fit(loop, train_loader, val_loader, ckpt_path=checkpoint, weights_only=True)
        finally:  # kernels that are chosen by their speed differ from one prediction to the next
            torch.backends.cudnn.benchmark = False
    best = best_row(record.history, settings.monitor, monitor_mode(settings.monitor))
    model.load_state_dict(read_weights(run.best_weights(best["epoch"])))
    model.eval()
    return FitResult(
        best_epoch=best["epoch"],
        best_value=best[settings.monitor],
        history=record.history,
        stopped_early=len(record.history) < settings.epochs,
    )
