"""Callbacks of a training: history, best and averaged weights, early stop, first words."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, WeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.networks.model_files import write_weights
from cxr_compare.training.optim import monitor_mode
from cxr_compare.training.plots import draw_training_batch
from cxr_compare.training.run_folder import Row, RunFolder, metrics_of


class History(Callback):
    """Writer of ``metrics.csv`` and of the weights of the best epoch.

    The rows of all epochs are stored in the checkpoint, and the files are written from them, so
    both always agree. The rows hold no times: equal trainings write equal files.

    `monitor` is the figure that selects the best epoch; ``epoch`` keeps the last. The weights that
    are kept are those of `average`, or the network's own. `say` takes a line for the user after
    each epoch.
    """

    def __init__(
        self,
        run: RunFolder,
        monitor: str,
        average: WeightAverage | None,
        say: Callable[[str], None],
    ) -> None:
        self.run = run
        self.monitor = monitor
        self.average = average
        self.say = say
        self.rows: list[Row] = []
        self.seconds = 0.0  # of all epochs
        self.seconds_validation = 0.0
        self._line = ""  # of the last epoch
        self._epoch_began = 0.0
        self._validation_began = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the rows and the times for the checkpoint."""
        return {
            "rows": self.rows,
            "seconds": self.seconds,
            "seconds_validation": self.seconds_validation,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows and the times of the earlier epochs."""
        self.rows = state_dict["rows"]
        self.seconds = state_dict["seconds"]
        self.seconds_validation = state_dict["seconds_validation"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self._epoch_began = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the time of the validation."""
        self.seconds_validation += time.perf_counter() - self._validation_began

    @property
    def best(self) -> Row:
        """Row of the best epoch; the first one of equals."""
        sign = 1 if monitor_mode(self.monitor) == "min" else -1
        return min(self.rows, key=lambda row: sign * row[self.monitor])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row, and write the weights if they are the best; the checkpoint comes next."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        losses = {name: figures[name] for name in sorted(figures, key=_column)}
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        row = {"epoch": trainer.current_epoch + 1, **losses, "learning_rate": rate}
        self._require_finite(row)
        self.rows = [*self.rows, row]
        if trainer.is_global_zero:
            if self.best is row:
                model: Any = pl_module.model if self.average is None else self.average.model
                state = {name: value.contiguous() for name, value in model.state_dict().items()}
                write_weights(state, self.run.best_weights(row["epoch"]))
            self.run.write_history(self.rows)
        seconds = time.perf_counter() - self._epoch_began
        self._epoch_began = time.perf_counter()
        self.seconds += seconds
        shown = "  ".join(f"{name} {value:.3f}" for name, value in metrics_of(row).items())
        self._line = (
            f"epoch {row['epoch']} of {trainer.max_epochs}: loss {row['train_loss']:.3f}, "
            f"validation {row['val_loss']:.3f}  {shown}  ({seconds:.0f} s)"
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove weights that are no longer the best: the checkpoint that says so is written."""
        self._say_line()
        if trainer.is_global_zero and self.rows:
            self.remove_earlier_weights()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say the figures of the last epoch."""
        self._say_line()

    def _say_line(self) -> None:
        """Say the figures of an epoch, of which the checkpoint is written."""
        if self._line:
            self.say(self._line)
        self._line = ""

    def remove_earlier_weights(self) -> None:
        """Remove the weights of all epochs but the best."""
        kept = self.run.best_weights(self.best["epoch"])
        for path in list(self.run.checkpoints.glob("best-*.safetensors")):
            if path != kept:
                path.unlink()

    def _require_finite(self, row: Row) -> None:
        """Refuse a validation loss that is not finite, and a monitored figure that is undefined."""
        epoch = row["epoch"]
        if not math.isfinite(row["val_loss"]):
            raise InputError(
                f"epoch {epoch}: the validation loss is {row['val_loss']}: the training has "
                "diverged; lower training.learning_rate, or set training.clip, and choose another "
                "--out"
            )
        if self.monitor not in row:
            names = [name for name in row if name not in ("epoch", "learning_rate")]
            raise InputError(
                f"training.monitor: '{self.monitor}' is not measured; choose one of "
                f"{', '.join(names)}"
            )
        if not math.isfinite(row[self.monitor]):
            raise InputError(
                f"training.monitor: '{self.monitor}' is {row[self.monitor]} on the validation "
                "images; does validation hold positive and negative images? Or monitor val_loss"
            )


def _column(name: str) -> tuple[int, bool]:
    """Return the position of a figure in a row: losses of training, of validation, figures."""
    group = next((n for n, role in enumerate(("train_", "val_")) if name.startswith(role)), 2)
    return group, group < 2 and not name.endswith("_loss")


class WeightAverage(WeightAveraging):
    """Lightning's moving average of the weights, computed without waiting for the GPU.

    `decay` is the weight of the old average in each step, in [0, 1), such as 0.999.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay

    @property
    def model(self) -> nn.Module:
        """The network with the averaged weights."""
        return self._average_model.module.model  # type: ignore[union-attr, return-value]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the moving average of the weights on the device of the model."""
        self._average_model = RampedAverage(pl_module, self._decay)
        self._average_model.module.to(pl_module.device)  # its layers are not on the device yet


class RampedAverage(AveragedModel):
    """A moving average of the weights whose decay rises to its final value.

    At first the decay is small and the average follows the weights quickly, so that the random
    initial weights do not dominate the average of early epochs. The number of steps is stored in
    main memory, where it can be read without waiting for the GPU.

    Source:
        TensorFlow's ``ExponentialMovingAverage(num_updates=...)``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average in place with the present weights of the model."""
        n = float(self.n_averaged)
        # The first update copies the model.
        share = 1 - min(self._decay, (1 + n) / (10 + n)) if n else 1.0
        averages = [*self.module.parameters(), *self.module.buffers()]
        current = [*model.parameters(), *model.buffers()]
        pairs = list(zip(averages, current, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_(
            [average for average, _ in floats], [value for _, value in floats], share
        )
        for average, value in pairs:
            if not average.is_floating_point():  # a batch norm's counter
                average.copy_(value)
        self.n_averaged += 1


class StopEarly(EarlyStopping):
    """Lightning's early stopping, which also ends a training that was killed after it stopped."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once where the checkpoint says so."""
        trainer.should_stop = self.wait_count >= self.patience


class FiniteLoss(Callback):
    """Check that ends the training at a loss that is not finite, and names the batch's images.

    On a GPU the loss of a step is read one step later, so that the GPU is never waited for.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, Any, list[str]]] = []  # loss, event of its arrival, images
        self._images_before: list[str] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss of the step before on a GPU, at that of this step on a CPU."""
        loss = outputs["loss"].detach()
        sent = loss.to("cpu", non_blocking=True)
        arrived = torch.cuda.Event() if loss.is_cuda else None
        if arrived is not None:
            arrived.record()
        self._waiting.append((sent, arrived, batch.image_ids))
        self._check(keep=int(loss.is_cuda), epoch=trainer.current_epoch + 1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last loss of the epoch."""
        self._check(keep=0, epoch=trainer.current_epoch + 1)

    def _check(self, keep: int, epoch: int) -> None:
        while len(self._waiting) > keep:
            loss, arrived, image_ids = self._waiting.pop(0)
            if arrived is not None:
                arrived.synchronize()
            if not math.isfinite(loss):
                earlier = ", ".join(self._images_before)
                before = f" or at those of the step before ({earlier})," if earlier else ""
                raise InputError(
                    f"epoch {epoch}: the loss is not finite ({float(loss)}) on the images "
                    f"{', '.join(image_ids)}; look at them and their boxes,{before} or lower "
                    "training.learning_rate or set training.clip and choose another --out (the "
                    "last whole epoch is kept)"
                )
            self._images_before = image_ids


class Bar(Callback):
    """Progress over all batches of a training, of training and validation."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stack = ExitStack()
        self._advance: Callable[..., None] = lambda *_: None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, at the epoch from which the training goes on."""
        per_epoch = int(trainer.num_training_batches + sum(trainer.num_val_batches))
        track = self._progress.track("Training, batches", (trainer.max_epochs or 1) * per_epoch)
        self._advance = self._stack.enter_context(track)
        self._advance(trainer.current_epoch * per_epoch)

    def on_train_batch_end(self, *_: Any) -> None:
        """Count a training batch."""
        self._advance(1)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Count a validation batch."""
        self._advance(1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End."""
        self._stack.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End."""
        self._stack.close()


class FirstBatch(Callback):
    """Drawing of the first training batch, and the line on how long the training will take here.

    Two steps are taken on a copy of the network, of which the second is timed.
    """

    def __init__(self, run: RunFolder, say: Callable[[str], None]) -> None:
        self.run = run
        self.say = say

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the batch and say the time; all processes compute, for synchronised batch norms."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        began = time.perf_counter()
        batch = data.first_batch()
        reading = time.perf_counter() - began
        if trainer.is_global_zero and trainer.current_epoch == 0:
            draw_training_batch(batch, data.findings, self.run.folder / "batch.png")
        n_epochs = (trainer.max_epochs or 1) - trainer.current_epoch
        if n_epochs <= 0 or trainer.should_stop:
            return
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            learning, validating = _step_seconds(trainer, pl_module, batch)
        learning += reading / max(1, data.n_workers)
        seconds = trainer.num_training_batches * learning + sum(
            n_batches * (validating + reading) for n_batches in trainer.num_val_batches
        )
        epochs = counted(n_epochs, "epoch")
        self.say(
            f"about {_duration(seconds * n_epochs)} on this machine: {epochs} of about "
            f"{_duration(seconds)}"
        )


def _step_seconds(trainer: Trainer, module: LightningModule, batch: Any) -> tuple[float, float]:
    """Return the seconds of a training step and of a validation step, on a copy of the module."""
    trial: Any = copy.deepcopy(module).train()
    trial.trainer = trainer  # a copy has none, and losses of the user's own may read it
    trial.log = trial.log_dict = lambda *_, **__: None
    device = module.device
    there = trial.transfer_batch_to_device(batch, device, 0)
    learning = validating = 0.0
    with trainer.precision_plugin.train_step_context():
        for _ in range(2):  # the first one chooses kernels
            began = time.perf_counter()
            loss = torch.stack([*trial.losses(there).values()]).sum()
            if loss.requires_grad:
                loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            learning = time.perf_counter() - began
        began = time.perf_counter()
        trial.validate(there)
        validating = time.perf_counter() - began
    return learning, validating


def _duration(seconds: float) -> str:
    """Return a time in a unit that suits it.

    Example:
        >>> _duration(45.2), _duration(600), _duration(9000)
        ('45 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
