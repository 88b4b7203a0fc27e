"""Which epoch is best, and what a training keeps of each: figures, weights, a checkpoint."""

from __future__ import annotations

import io
import math
import shlex
import time
import tomllib
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.checksums import CHECKSUM_PLACEHOLDER, require_unchanged
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.training.loading import BatchLoader
from cxr_compare.training.loggers import log_row, log_start
from cxr_compare.training.loop import Loop, Mode, Plateau, SentNumbers, monitor_mode
from cxr_compare.training.processes import gather
from cxr_compare.training.run_folder import RunFolder


class WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoint file, whole or not at all: an interruption leaves the old one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint beside the old one, then replace that."""
        # By way of memory: torch turns a full disk into an error about its own file format.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        # The file is a ZIP archive, which ends with a comment behind the two bytes of its length.
        seal = str(CHECKSUM_PLACEHOLDER).encode()
        buffer.seek(-2, io.SEEK_END)
        buffer.write(len(seal).to_bytes(2, "little") + seal)
        with atomic_path(Path(path), with_checksum=True) as temporary:
            temporary.write_bytes(buffer.getbuffer())


def require_same_architecture(module: nn.Module, checkpoint: Path) -> None:
    """Check that a checkpoint is whole and belongs to a module, before anything is loaded."""
    require_unchanged(checkpoint, "checkpoint")
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # noqa: BLE001  torch raises many kinds for a damaged file
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{checkpoint}: cannot be read ({reason}); train again in a new folder"
        ) from None
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in saved.items()}
    for name in sorted(own.keys() | theirs.keys()):
        if own.get(name) != theirs.get(name):
            raise InputError(
                f"{checkpoint}: is of another architecture: '{name.removeprefix('model.')}' has "
                f"shape {theirs.get(name)} there and {own.get(name)} in this model; train in a "
                "new folder"
            )


_EXPLODED = 10.0  # times the losses of the first epoch
_HARMLESS = 1.0  # a loss that a model which knows nothing has, too
_ENOUGH = 20  # batches of an epoch, for its first quarter to have a stable median


def _usual_loss(losses: Sequence[float]) -> float:
    """What the loss of a batch is like before any harm is done."""
    whole = float(np.median(losses))
    if len(losses) < _ENOUGH:
        return whole
    return min(whole, float(np.median(losses[: len(losses) // 4])))


def _has_exploded(losses: Sequence[float], usual: float) -> bool:
    """Whether every batch of an epoch lost more than `_EXPLODED` times what is usual.

    One bad batch is an image to look at; a whole epoch of them is a learning rate too high.
    """
    return min(losses, default=0.0) > max(_EXPLODED * usual, _HARMLESS)


Row = dict[str, Any]
_Batch = tuple[SentNumbers, float]  # losses of a batch, and how many images they are a mean of
Metrics = Callable[[list[Any]], dict[str, float]]


def best_row(history: Sequence[Row], monitor: str, mode: Mode) -> Row:
    """The epoch with the best value of the monitored figure; the first of equals.

    Example:
        >>> best_row([{"epoch": 1, "auroc": 0.7}, {"epoch": 2, "auroc": 0.7}], "auroc", "max")
        {'epoch': 1, 'auroc': 0.7}
    """
    sign = 1 if mode == "min" else -1
    return min(history, key=lambda row: sign * row[monitor])


def _has_stalled(history: Sequence[Row], monitor: str, mode: Mode, patience: int) -> bool:
    """Whether the monitored figure has not improved for `patience` epochs; 0 is never."""
    if not patience or not history:
        return False
    return history[-1]["epoch"] - best_row(history, monitor, mode)["epoch"] >= patience


class EpochRecord(Callback):
    """Measure each epoch on validation, keep the best weights, leave a resumable folder.

    The history lives in the checkpoint and every file is written from it, so a resumed training
    cannot disagree with what it resumed from.
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
        self._rule: tuple[str, Mode] = (settings.monitor, monitor_mode(settings.monitor))
        self._progress = progress or (lambda n: None)
        self._on_epoch = on_epoch or (lambda row: None)
        self.history: list[Row] = []
        self._usual: float | None = None  # loss of a batch, before any harm is done
        self._learnt: list[_Batch] = []
        self._seen: list[_Batch] = []  # in validation
        self._outputs: list[Any] = []
        self._began = 0.0, 0.0
        self._learned = self._validated = 0.0  # ends of the parts of an epoch, s
        self._waited = 0.0  # s, of the process that did most

    def state_dict(self) -> dict[str, Any]:
        """The history and the usual loss, from which all else follows."""
        return {"history": self.history, "usual_loss": self._usual}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the history of the training that is resumed."""
        self.history = state_dict["history"]
        self._usual = state_dict["usual_loss"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once where the resumed training had decided to; log what it had done."""
        self._progress(len(self.history) * _batches(trainer))
        trainer.should_stop = _has_stalled(self.history, *self._rule, self._settings.patience)
        log_start(trainer.loggers, tomllib.loads(self._run.config), self.history)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch's figures."""
        self._began = time.perf_counter(), time.process_time()
        self._learnt, self._seen, self._outputs = [], [], []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a training batch."""
        self._learnt.append((outputs["losses"], outputs["weight"]))
        self._progress(1)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All batches of the epoch are learned from."""
        self._learned = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a validation batch."""
        self._seen.append((outputs["losses"], outputs["weight"]))
        self._outputs.append(outputs["output"])
        self._progress(1)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure; keep the weights (the averaged ones, where there is an average) if best."""
        waited = cast(BatchLoader, trainer.train_dataloader).seconds_waiting
        own = _Means(self._learnt), _Means(self._seen), self._outputs, waited
        trained, validated, outputs, waits = zip(*gather(own), strict=True)
        self._waited = max(waits)
        train, val = _Means.of(trained), _Means.of(validated)
        if self._usual is None:
            self._usual = _usual_loss(train.losses)
        losses = {**train.row("train"), **val.row("val")}
        row: Row = {"epoch": trainer.current_epoch + 1, **losses}
        row = trainer.strategy.broadcast(row)
        self._require_health(row, train.losses)  # first: scores may not be finite either
        if trainer.is_global_zero:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            figures = self._metrics([output for share in outputs for output in share])
            row = {**row, **figures, "learning_rate": rate}
        row = trainer.strategy.broadcast(row)
        self._require_monitor(row)
        self.history = [*self.history, row]
        self._validated = time.perf_counter()
        if trainer.is_global_zero and best_row(self.history, *self._rule) is row:
            weights = cast(Loop, pl_module).model.state_dict()
            self._run.write_best(row["epoch"], weights)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch: checkpoint first, since a resumed training writes all else from it.

        Its own time is not known before it is written: the checkpoint has the time until then, the
        history that of the writing, too.
        """
        row = self.history[-1]
        self._add_times(row)
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, Plateau):
                config.scheduler.observe(row[self._rule[0]], self._rule[1])
        trainer.should_stop = _has_stalled(self.history, *self._rule, self._settings.patience)
        trainer.save_checkpoint(self._run.last_checkpoint)
        self._add_times(row)
        if not trainer.is_global_zero:
            return
        kept = self._run.best_weights(best_row(self.history, *self._rule)["epoch"])
        for weights in self._run.checkpoints.glob("best-*.safetensors"):
            if weights != kept:
                weights.unlink()
        self._run.write_history(self.history)
        log_row(trainer.loggers, row)
        self._on_epoch(row)

    def _add_times(self, row: Row) -> None:
        """Seconds of the whole epoch so far, and of its parts that are no learning."""
        now, (began, processor_began) = time.perf_counter(), self._began
        row["seconds"] = now - began
        row["processor_seconds"] = time.process_time() - processor_began
        row["seconds_validation"] = self._validated - self._learned
        row["seconds_checkpoint"] = now - self._validated
        row["seconds_waiting"] = self._waited

    def _require_health(self, row: Row, losses: list[float]) -> None:
        """Stop a training that only burns time; what was good before stays in the folder."""
        usual = cast(float, self._usual)
        if _has_exploded(losses, usual):
            what = (
                f"every batch's loss is above {_EXPLODED:.0f} times the first epoch's {usual:.3g} "
                f"(mean {row['train_loss']:.3g})"
            )
        elif not math.isfinite(row["val_loss"]):
            what = f"the validation loss is {row['val_loss']}"
        else:
            return
        raise InputError(
            f"epoch {row['epoch']}: the training has diverged: {what}; {self.advice()}"
        )

    def advice(self) -> str:
        """What to do when a training cannot go on as it was set, in words."""
        lower = "lower training.learning_rate, or set training.clip"
        if not self.history:
            return f"{lower}, and choose another --out (no epoch was good)"
        weights = self._run.best_weights(best_row(self.history, *self._rule)["epoch"])
        config, start = (
            shlex.quote(str(part)) for part in (self._run.config_file, f"model.weights={weights}")
        )
        rate = self._settings.learning_rate / 10
        return (
            f"{lower}, and start from the best weights so far: cxr train {config} --data DATA "
            f"--out NEW --set training.learning_rate={rate:g} --set {start}"
        )

    def _require_monitor(self, row: Row) -> None:
        monitor = self._rule[0]
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
        self._batches: list[tuple[float, float]] = []  # loss of each, its parts added, and weight
        for losses, weight in batches:
            self._add(losses.values, weight)

    @classmethod
    def of(cls, shares: Sequence[_Means]) -> _Means:
        """The figures of several processes together; batch k is the mean of their batches k."""
        whole = cls()
        for share in shares:
            for name, total in share._sums.items():
                whole._sums[name] = whole._sums.get(name, 0.0) + total
            whole._weight += share._weight
        for parts in zip_longest(*(share._batches for share in shares), fillvalue=(0.0, 0.0)):
            weight = sum(part[1] for part in parts)
            loss = sum(loss * own for loss, own in parts if own)
            whole._batches.append((loss / weight if weight else 0.0, weight))
        return whole

    @property
    def losses(self) -> list[float]:
        """Of each batch that has images, the sum of its losses."""
        return [loss for loss, weight in self._batches if weight]

    def _add(self, values: dict[str, float], weight: float) -> None:
        if weight:
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value * weight
            self._weight += weight
        self._batches.append((sum(values.values()), weight))

    def row(self, role: str) -> dict[str, float]:
        means = {f"{role}_{name}": total / self._weight for name, total in self._sums.items()}
        # A single loss is its own sum: naming it once is enough.
        parts = means if len(means) > 1 else {}
        return {f"{role}_loss": sum(means.values()), **parts}


def _batches(trainer: Trainer) -> int:
    """Batches of one epoch, training and validation."""
    return int(trainer.num_training_batches + sum(trainer.num_val_batches))
