"""Callbacks of a training: its history with the best weights, averaged weights, a failed loss."""

from __future__ import annotations

import io
import math
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cxr_compare.data_prep.base.errors import InputError, counted, first_line
from cxr_compare.data_prep.base.files import atomic_path
from cxr_compare.data_prep.parallel import Progress
from cxr_compare.training.model_files import limited_memory, write_weights
from cxr_compare.training.optim import monitor_mode
from cxr_compare.training.run_folder import Row, RunFolder, figures_of


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint so that it is there whole, or not at all."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint; a damaged one is one line."""
        try:
            with zipfile.ZipFile(path) as archive:  # torch checks no CRC when it reads
                damaged = archive.testzip()
            if damaged:
                raise ValueError(f"the CRC of {damaged} differs")
            with limited_memory(path):
                content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - of a damaged file
            raise InputError(
                f"{path}: the checkpoint is damaged ({first_line(error)}); train in a new folder"
            ) from None
        return content


class History(Callback):
    """Keeps a row an epoch, and the weights of the best one; a checkpoint carries both on."""

    def __init__(
        self, run: RunFolder, monitor: str, average: WeightAverage | None, progress: Progress
    ) -> None:
        self.run, self.monitor, self.average = run, monitor, average
        self.progress = progress
        self.rows: list[Row] = []
        self.seconds = 0.0
        self._began = 0.0
        self._stack = ExitStack()
        self._advance: Callable[..., None] = lambda *_: None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint has kept."""
        self.rows, self.seconds = state_dict["rows"], state_dict["seconds"]

    @property
    def best(self) -> Row:
        """The best epoch so far, the earliest of equal ones."""
        sign = 1 if monitor_mode(self.monitor) == "min" else -1
        return min(self.rows, key=lambda row: sign * row[self.monitor])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar."""
        self._began = time.perf_counter()
        per_epoch = int(trainer.num_training_batches)
        total = (trainer.max_epochs or 1) * per_epoch
        described = f"Training, {counted(trainer.max_epochs or 1, 'epoch')} in batches"
        self._advance = self._stack.enter_context(self.progress.track(described, total))
        self._advance(trainer.current_epoch * per_epoch)

    def on_train_batch_end(self, *_: Any) -> None:
        """Advance the bar."""
        self._advance(1)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove weights that are not the best any more: the checkpoint knows those that are."""
        if trainer.is_global_zero and self.rows:
            self.remove_earlier_weights()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row of an epoch, and write its weights if it is the best."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        columns = {name: figures[name] for name in sorted(figures, key=_column)}
        row = {"epoch": trainer.current_epoch + 1, **columns, "learning_rate": rate}
        if self.monitor not in row:
            names = ", ".join(("val_loss", *figures_of(row)))
            raise InputError(f"training.monitor: {self.monitor} is not measured; there are {names}")
        for name in ("val_loss", self.monitor):
            if not math.isfinite(row[name]):
                raise InputError(
                    f"epoch {row['epoch']}: {name} is {row[name]}; lower training.learning_rate, "
                    "or set training.clip, and choose another folder"
                )
        self.rows = [*self.rows, row]
        now = time.perf_counter()
        self.seconds, self._began = self.seconds + now - self._began, now
        if not trainer.is_global_zero:
            return
        if self.best is row:
            model: Any = pl_module.model if self.average is None else self.average.model
            state = {name: value.contiguous() for name, value in model.state_dict().items()}
            write_weights(state, self.run.best_weights(row["epoch"]))
        self.run.write_history(self.rows)
        texts = "  ".join(f"{name} {value:.3f}" for name, value in figures_of(row).items())
        self.progress.say(
            f"epoch {row['epoch']} of {trainer.max_epochs}: loss {row['train_loss']:.3f}, "
            f"validation {row['val_loss']:.3f}  {texts}"
        )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the bar."""
        self._stack.close()

    def remove_earlier_weights(self) -> None:
        """Remove the weights of epochs that were the best before."""
        best = self.run.best_weights(self.best["epoch"])
        for path in list(self.run.checkpoints.glob("best-*.safetensors")):
            if path != best:
                path.unlink()


def _column(name: str) -> tuple[int, bool]:
    group = next((n for n, role in enumerate(("train_", "val_")) if name.startswith(role)), 2)
    return group, group < 2 and not name.endswith("_loss")


class WeightAverage(WeightAveraging):
    """Averages the weights over the steps, and computes the figures with the average."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay

    @property
    def model(self) -> nn.Module:
        """The network with averaged weights."""
        return self._average_model.module.model  # type: ignore[union-attr, return-value]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average."""
        self._average_model = _RampedAverage(pl_module, self._decay)
        self._average_model.module.to(pl_module.device)


class _RampedAverage(AveragedModel):
    """Exponential average whose decay rises from 0.1, so that the first steps are forgotten."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the weights of a step."""
        n = float(self.n_averaged)
        share = 1 - min(self._decay, (1 + n) / (10 + n)) if n else 1.0
        averaged = [*self.module.parameters(), *self.module.buffers()]
        pairs = list(zip(averaged, [*model.parameters(), *model.buffers()], strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        averages, values = [pair[0] for pair in floats], [pair[1] for pair in floats]
        torch._foreach_lerp_(averages, values, share)
        for average, value in pairs:
            if not average.is_floating_point():  # a batch norm's counter
                average.copy_(value)
        self.n_averaged += 1


class StopEarly(EarlyStopping):
    """Ends a training without improvement; one that is resumed after its end ends at once."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop where the checkpoint is of the last epoch."""
        trainer.should_stop = self.wait_count >= self.patience


class FiniteLoss(Callback):
    """Names the images of a batch whose loss is not finite."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss of a step; on a GPU every 16th step, as it waits for the card."""
        loss = outputs["loss"]
        if (loss.is_cuda and batch_idx % 16) or math.isfinite(float(loss)):
            return
        raise InputError(
            f"epoch {trainer.current_epoch + 1}: the loss is {float(loss)} on the images "
            f"{', '.join(batch.image_ids)}; look at them and their boxes, or lower "
            "training.learning_rate or set training.clip, and choose another folder (the last "
            "whole epoch is kept)"
        )
