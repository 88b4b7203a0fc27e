"""One training step and one validation step, as Lightning wants them, and their batch norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from configs.settings import TrainingSettings
from data_prep.contracts.errors import InputError
from training.loading import naming, require_loaded
from training.optimisation import build_optimiser, build_schedule
from training.processes import gather, reduce_over_processes

Losses = dict[str, Tensor]


class Batch(Protocol):
    """What the loop reads of a batch, whatever the model."""

    image_ids: list[str]

    def to(self, device: torch.device, non_blocking: bool = False) -> Any:
        """The same batch on a device."""


class Task(Protocol):
    """A model with its ways to learn and to be measured."""

    @property
    def model(self) -> nn.Module:
        """The network, initialised; its weights are trained in place."""

    @property
    def callbacks(self) -> Sequence[Callback]:
        """Called before the record of each epoch; their state lives in the checkpoint."""

    def training_losses(self, model: Any, batch: Any) -> Losses:
        """Scalars whose sum is minimised, of the model or of a copy of it."""

    def loss_weight(self, batch: Any) -> float:
        """How many images the losses of a batch are a mean of.

        Where they are a mean of known answers, an image with half of them unknown is half a one.
        """

    def validation_step(self, model: Any, batch: Any) -> tuple[Losses, Any]:
        """Losses and output of a batch, in eval mode and without gradient."""

    def validation_metrics(self, outputs: list[Any]) -> dict[str, float]:
        """Figures by name, from the outputs of all validation batches."""


class Loop(LightningModule):
    """A task with its optimiser and a guard against losses that are not finite.

    The gradient of a step is that of the mean over all images of the step, however many processes
    and batches they came in: each share counts by its images.

    Args:
        task: What is learned.
        settings: How.
        advice: What to do when the training cannot go on, in words.
        step_images: Images of a whole step: of a batch of all processes, times the batches that
            are accumulated.
        ends_with_spare: Whether the last batch of an epoch only fills this process's empty share.
    """

    def __init__(
        self,
        task: Task,
        settings: TrainingSettings,
        advice: Callable[[], str],
        step_images: int,
        ends_with_spare: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.model: nn.Module = task.model
        self._task = task
        self._settings = settings
        self._advice = advice
        self._step_images = step_images
        self._ends_with_spare = ends_with_spare
        self._since_step: list[str] = []  # images behind the gradient
        self._weight = 0.0  # of them

    def configure_optimizers(self) -> Any:
        """Optimiser, and a schedule that is stepped with it."""
        # Fused steps unscale by themselves, too late to see whether the gradient is finite.
        optimiser = build_optimiser(self.model, self._settings, fused=self._scaler is None)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = build_schedule(optimiser, self._settings, steps)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """To a GPU while it computes: the loader has pinned the memory of the batch."""
        if device.type != "cuda":
            return batch
        return require_loaded(batch).to(device, non_blocking=True)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Losses of a batch; refuses to learn from one that is not finite."""
        self._since_step += require_loaded(batch).image_ids
        # The promise of bit-exact resuming. By step, not by epoch: a loader draws too when it
        # starts, a resumed one at another time.
        step = [self._settings.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(step).generate_state(1)[0]))
        with naming(batch.image_ids, f"epoch {self.current_epoch + 1}: learning"):
            losses = self._task.training_losses(self.model, batch)
            values = read_losses(losses)
        if not all(math.isfinite(value) for value in values.values()):
            raise self._not_finite(f"loss ({_shown(values)})", batch.image_ids)
        spare = self.trainer.is_last_batch and self._ends_with_spare()
        weight = 0.0 if spare else self._task.loss_weight(batch)
        loss = torch.stack([*losses.values()]).sum()
        if self._parts > 1:  # whose mean Lightning takes
            self._weight += weight
            loss = loss * (weight * self._parts / self._step_images)
        return {"loss": loss, "losses": values, "weight": weight}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, and refuse a step whose gradient is not finite: it would destroy the weights."""
        if self._parts > 1:
            self._weigh_gradient()
        limit = self._settings.clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit or math.inf)
        # The promise of fp16: where the loss is scaled, a step that overflows is skipped and the
        # scale halved, at first several times; a gradient that overflows even at scale 1 is not
        # finite by itself.
        skipped = self._scaler is not None and self._scaler.get_scale() > 1
        if not bool(torch.isfinite(norm)) and not skipped:
            images = [name for share in gather(self._since_step) for name in share]
            raise self._not_finite("gradient", images)
        self._since_step = []

    def _weigh_gradient(self) -> None:
        """Make it that of a mean over the images that there were: an epoch's last are fewer."""
        # The promise of shares: each process and batch weighs by its images, so that several
        # processes learn what one learns.
        own = torch.tensor(self._weight, dtype=torch.float64)
        weight, self._weight = float(reduce_over_processes(own)), 0.0
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if gradients and weight not in (0.0, float(self._step_images)):
            torch._foreach_mul_(gradients, self._step_images / weight)

    @property
    def _parts(self) -> int:
        """In how many parts the images of a step come."""
        return int(self.trainer.world_size) * self._settings.accumulate

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Losses of a batch and what the metrics will need of it."""
        require_loaded(batch)
        with naming(batch.image_ids, f"epoch {self.current_epoch + 1}: validation"):
            losses, output = self._task.validation_step(self.model, batch)
        weight = self._task.loss_weight(batch)
        return {"losses": read_losses(losses), "output": output, "weight": weight}

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _not_finite(self, what: str, image_ids: list[str]) -> InputError:
        return InputError(
            f"epoch {self.current_epoch + 1}: the {what} is not finite on the images "
            f"{', '.join(image_ids)}; look at these images and their boxes, or {self._advice()}"
        )


def read_losses(losses: Losses) -> dict[str, float]:
    """Losses as plain numbers, in one transfer from the device.

    Example:
        >>> read_losses({"box": torch.tensor(0.5), "class": torch.tensor(2.0)})
        {'box': 0.5, 'class': 2.0}
    """
    values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
    return dict(zip(losses, values, strict=True))


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name}={value:.4g}" for name, value in values.items())


def has_live_batch_norm(model: nn.Module) -> bool:
    """Whether a model in training mode has batch norms that are not frozen."""
    return any(isinstance(layer, _BatchNorm) and layer.training for layer in model.modules())


def share_batch_statistics(model: nn.Module) -> nn.Module:
    """Make live batch norms measure the batch of all processes; for CUDA alone, as torch's are.

    Norms that are in evaluation mode are frozen and stay as they are. Names of weights do not
    change.

    Example:
        >>> layers = nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()
        >>> net = share_batch_statistics(nn.Sequential(*layers))
        >>> [type(layer).__name__ for layer in net]
        ['SyncBatchNorm', 'BatchNorm2d']
    """
    for name, child in model.named_children():
        if not isinstance(child, _BatchNorm):
            share_batch_statistics(child)
        elif child.training:
            setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    return model
