"""The record of each epoch of a training: its figures, the best weights, and a checkpoint."""

from __future__ import annotations

import math
import shlex
import time
import tomllib
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, cast

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.training.loading import BatchLoader
from cxr_compare.training.loggers import log_row, log_start
from cxr_compare.training.loop import Loop, SentNumbers
from cxr_compare.training.optimisation import Mode, Plateau, monitor_mode
from cxr_compare.training.processes import gather
from cxr_compare.training.run_folder import RunFolder

_EXPLODED = 10.0  # factor over the losses of the first epoch
_HARMLESS = 1.0  # a loss that an untrained model has, too
_MIN_BATCHES = 20  # batches of an epoch whose first quarter has a stable median


def _usual_loss(losses: Sequence[float]) -> float:
    """Return the typical loss of a batch before a training can have diverged."""
    whole = float(np.median(losses))
    if len(losses) < _MIN_BATCHES:
        return whole
    return min(whole, float(np.median(losses[: len(losses) // 4])))


def _has_exploded(losses: Sequence[float], usual: float) -> bool:
    """Return True if every batch of an epoch has more than `_EXPLODED` times the usual loss.

    One bad batch is an image to look at; a whole epoch of them is a learning rate too high.
    """
    return min(losses, default=0.0) > max(_EXPLODED * usual, _HARMLESS)


Row = dict[str, Any]
"""Figures of an epoch by name, as in a row of `metrics.csv`."""
_Batch = tuple[SentNumbers, float]  # losses of a batch, and the number of images behind them
Metrics = Callable[[list[Any]], dict[str, float]]


def best_row(history: Sequence[Row], monitor: str, mode: Mode) -> Row:
    """Return the row of the epoch with the best value of the metric that selects the weights.

    Among equally good epochs the first one counts.

    Args:
        history: One row of metrics for each epoch, as in ``metrics.csv``.
        monitor: Name of this metric, a key of the rows, such as ``auroc``.
        mode: ``max`` if a large value is good, ``min`` if a small one is.

    Example:
        >>> best_row([{"epoch": 1, "auroc": 0.7}, {"epoch": 2, "auroc": 0.7}], "auroc", "max")
        {'epoch': 1, 'auroc': 0.7}
    """
    sign = 1 if mode == "min" else -1
    return min(history, key=lambda row: sign * row[monitor])


def _has_stalled(history: Sequence[Row], monitor: str, mode: Mode, patience: int) -> bool:
    """Return True if the figure has not improved for `patience` epochs; 0 switches this off."""
    if not patience or not history:
        return False
    return history[-1]["epoch"] - best_row(history, monitor, mode)["epoch"] >= patience


class EpochRecord(Callback):
    """Lightning callback that computes metrics after each epoch, and writes weights and checkpoint.

    The rows of all epochs (the history) are stored in the checkpoint, and every other file is
    written from it. The files of a resumed training therefore always agree with its checkpoint. The
    weights of the best epoch are kept.

    Args:
        run: Folder of the training, to which files are written.
        validation_metrics: Function that computes metrics by name from the outputs of all
            validation batches.
        settings: Settings of the training, of which ``monitor`` names the metric that selects the
            best epoch.
        progress: Function that is called with the number of batches that have been finished; None
            calls none.
        on_epoch: Function that is called with the losses, metrics and times of each epoch; None
            calls none.
    """

    def __init__(
        self,
        run: RunFolder,
        validation_metrics: Metrics,
        settings: TrainingSettings,
        *,
        progress: Callable[[int], None] | None,
        on_epoch: Callable[[Row], None] | None,
    ) -> None:
        self._run = run
        self._metrics = validation_metrics
        self._settings = settings
        self._monitor = settings.monitor
        self._mode: Mode = monitor_mode(settings.monitor)
        self._progress = progress or (lambda n: None)
        self._on_epoch = on_epoch or (lambda row: None)
        self.history: list[Row] = []
        self._usual: float | None = None  # typical loss of a batch, from the first epoch
        self._train_batches: list[_Batch] = []
        self._val_batches: list[_Batch] = []
        self._outputs: list[Any] = []
        self._start_time = 0.0  # start of the epoch, s; the other times likewise
        self._start_processor_time = 0.0
        self._trained_time = 0.0
        self._validated_time = 0.0
        self._waited = 0.0  # s waited for images, of the process that waited most

    def state_dict(self) -> dict[str, Any]:
        """Return the state for the checkpoint: the rows of all epochs, and a typical early loss.

        The typical loss is that of a batch in the first epoch. Later losses are compared with it,
        so that divergence is noticed.

        Returns:
            ``history`` (one row of metrics for each epoch) and ``usual_loss``.
        """
        return {"history": self.history, "usual_loss": self._usual}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of earlier epochs when a training is resumed.

        Args:
            state_dict: Result of `state_dict` in an earlier process.
        """
        self.history = state_dict["history"]
        self._usual = state_dict["usual_loss"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics of earlier epochs; stop at once if the training had stopped early.

        Args:
            trainer: Lightning's trainer, which runs the training.
            pl_module: Lightning's module, which holds the model and the task.
        """
        self._progress(len(self.history) * _batches_per_epoch(trainer))
        trainer.should_stop = self._has_stalled()
        log_start(trainer.loggers, tomllib.loads(self._run.config))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the timers and the sums of losses for a new epoch.

        Args:
            trainer: Lightning's trainer, which runs the training.
            pl_module: Lightning's module, which holds the model and the task.
        """
        self._start_time = time.perf_counter()
        self._start_processor_time = time.process_time()
        self._train_batches = []
        self._val_batches = []
        self._outputs = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Store the losses of a training batch.

        Args:
            trainer: Lightning's trainer, which runs the training.
            pl_module: Lightning's module, which holds the model and the task.
            outputs: Losses and number of images that `Loop.training_step` returned.
            batch: Training batch; it is not used.
            batch_idx: Number of the batch in the epoch, from 0.
        """
        self._train_batches.append((outputs["losses"], outputs["weight"]))
        self._progress(1)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time at which the training part of the epoch ended and validation begins.

        Args:
            trainer: Lightning's trainer, which runs the training.
            pl_module: Lightning's module, which holds the model and the task.
        """
        self._trained_time = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Store the losses and the output of a validation batch.

        Args:
            trainer: Lightning's trainer, which runs the training.
            pl_module: Lightning's module, which holds the model and the task.
            outputs: Losses, predictions and number of images that `Loop.validation_step` returned.
            batch: Validation batch; it is not used.
            batch_idx: Number of the batch in the epoch, from 0.
            dataloader_idx: Number of the loader, always 0, because there is only one; it is not
                used.
        """
        self._val_batches.append((outputs["losses"], outputs["weight"]))
        self._outputs.append(outputs["output"])
        self._progress(1)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the metrics of the epoch, and write its weights if they are the best so far.

        If several processes train together, the metrics are computed from the batches of all
        processes. If the training averages weights, the averaged weights are written.

        Args:
            trainer: Lightning's trainer, which runs the training.
            pl_module: Lightning's module, which holds the model and the task.

        Raises:
            InputError: The training has diverged, or the metric that selects the best epoch is not
                measured or not finite.
        """
        share = _EpochShare(
            _Means(self._train_batches),
            _Means(self._val_batches),
            self._outputs,
            cast(BatchLoader, trainer.train_dataloader).seconds_waiting,
        )
        shares = gather(share)
        self._waited = max(share.waited for share in shares)
        train = _Means.from_processes([share.train for share in shares])
        val = _Means.from_processes([share.val for share in shares])
        if self._usual is None:
            self._usual = _usual_loss(train.losses)
        losses = {**train.row("train"), **val.row("val")}
        row: Row = {"epoch": trainer.current_epoch + 1, **losses}
        row = trainer.strategy.broadcast(row)
        self._require_health(row, train.losses)  # first: scores may not be finite either
        if trainer.is_global_zero:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            figures = self._metrics([output for share in shares for output in share.outputs])
            row = {**row, **figures, "learning_rate": rate}
        row = trainer.strategy.broadcast(row)
        self._require_monitor(row)
        self.history = [*self.history, row]
        self._validated_time = time.perf_counter()
        if trainer.is_global_zero and self._best_row() is row:
            weights = cast(Loop, pl_module).model.state_dict()
            self._run.write_best(row["epoch"], weights)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint of the epoch, then all other files.

        A resumed training can write the other files again from the checkpoint. The duration in the
        checkpoint does not include the writing itself; that in the rows of the epochs does.

        Args:
            trainer: Lightning's trainer, which runs the training.
            pl_module: Lightning's module, which holds the model and the task.
        """
        row = self.history[-1]
        self._add_times(row)
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, Plateau):
                config.scheduler.observe(row[self._monitor], self._mode)
        trainer.should_stop = self._has_stalled()
        trainer.save_checkpoint(self._run.last_checkpoint)
        self._add_times(row)
        if not trainer.is_global_zero:
            return
        kept = self._run.best_weights(self._best_row()["epoch"])
        for weights in self._run.checkpoints.glob("best-*.safetensors"):
            if weights != kept:
                weights.unlink()
        self._run.write_history(self.history)
        log_row(trainer.loggers, row)
        self._on_epoch(row)

    def _best_row(self) -> Row:
        return best_row(self.history, self._monitor, self._mode)

    def _has_stalled(self) -> bool:
        return _has_stalled(self.history, self._monitor, self._mode, self._settings.patience)

    def _add_times(self, row: Row) -> None:
        """Add the seconds of the epoch so far, and of its parts other than training."""
        now = time.perf_counter()
        row["seconds"] = now - self._start_time
        row["processor_seconds"] = time.process_time() - self._start_processor_time
        row["seconds_validation"] = self._validated_time - self._trained_time
        row["seconds_checkpoint"] = now - self._validated_time
        row["seconds_waiting"] = self._waited

    def _require_health(self, row: Row, losses: list[float]) -> None:
        """Stop a training that has diverged; what was good before stays in the folder."""
        usual = cast(float, self._usual)
        if _has_exploded(losses, usual):
            problem = (
                f"every batch's loss is above {_EXPLODED:.0f} times the first epoch's {usual:.3g} "
                f"(mean {row['train_loss']:.3g})"
            )
        elif not math.isfinite(row["val_loss"]):
            problem = f"the validation loss is {row['val_loss']}"
        else:
            return
        raise InputError(
            f"epoch {row['epoch']}: the training has diverged: {problem}; {self.advice()}"
        )

    def advice(self) -> str:
        """Return advice for the user on settings of a training whose loss is no longer finite."""
        lower = "lower training.learning_rate, or set training.clip"
        if not self.history:
            return f"{lower}, and choose another --out (no epoch was good)"
        weights = self._run.best_weights(self._best_row()["epoch"])
        config = shlex.quote(str(self._run.config_file))
        start = shlex.quote(f"model.weights={weights}")
        rate = self._settings.learning_rate / 10
        return (
            f"{lower}, and start from the best weights so far: cxr train {config} --data DATA "
            f"--out NEW --set training.learning_rate={rate:g} --set {start}"
        )

    def _require_monitor(self, row: Row) -> None:
        monitor = self._monitor
        if monitor not in row:
            figures = [name for name in row if name not in ("epoch", "learning_rate")]
            raise InputError(
                f"training.monitor: '{monitor}' is not measured; choose one of {', '.join(figures)}"
            )
        if not math.isfinite(row[monitor]):
            raise InputError(
                f"training.monitor: '{monitor}' is {row[monitor]} on the validation images; does "
                "validation hold positive and negative images? Or monitor val_loss"
            )


class _Means:
    """Means over images of figures that come as means over batches."""

    def __init__(self, batches: Sequence[_Batch] = ()) -> None:
        self._sums: dict[str, float] = {}
        self._weight = 0.0
        # Sum of the losses of each batch, and its weight.
        self._batches: list[tuple[float, float]] = []
        for losses, weight in batches:
            self._add(losses.values, weight)

    @classmethod
    def from_processes(cls, shares: Sequence[_Means]) -> _Means:
        """Join the figures of several processes; batch k is the mean of their batches k."""
        whole = cls()
        for share in shares:
            for name, total in share._sums.items():
                whole._sums[name] = whole._sums.get(name, 0.0) + total
            whole._weight += share._weight
        for parts in zip_longest(*(share._batches for share in shares), fillvalue=(0.0, 0.0)):
            weight = sum(part_weight for _, part_weight in parts)
            loss = sum(part_loss * part_weight for part_loss, part_weight in parts if part_weight)
            whole._batches.append((loss / weight if weight else 0.0, weight))
        return whole

    @property
    def losses(self) -> list[float]:
        """Sum of the losses of each batch that has images."""
        return [loss for loss, weight in self._batches if weight]

    def _add(self, values: dict[str, float], weight: float) -> None:
        if weight:
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value * weight
            self._weight += weight
        self._batches.append((sum(values.values()), weight))

    def row(self, role: str) -> dict[str, float]:
        """Return the mean losses as columns of an epoch's row."""
        means = {f"{role}_{name}": total / self._weight for name, total in self._sums.items()}
        # A single loss is its own sum: naming it once is enough.
        parts = means if len(means) > 1 else {}
        return {f"{role}_loss": sum(means.values()), **parts}


class _EpochShare(NamedTuple):
    """Contribution of one process to the figures of an epoch."""

    train: _Means
    val: _Means
    outputs: list[Any]  # outputs of its validation batches
    waited: float  # s, for batches that were not loaded yet


def _batches_per_epoch(trainer: Trainer) -> int:
    """Return the number of batches of one epoch, training and validation."""
    return int(trainer.num_training_batches + sum(trainer.num_val_batches))
