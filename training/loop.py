"""One training step and one validation step. Losses and gradients must be finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.training.loading import errors_name_images, require_loaded
from cxr_compare.training.optimisation import build_optimiser, build_schedule
from cxr_compare.training.processes import gather, reduce_over_processes
from cxr_compare.training.task import TrainingTask


class Loop(LightningModule):
    """Lightning's module for a training task (network, images, losses, metrics) with its optimiser.

    Losses and gradients that are not finite raise an error.

    The gradient of a step is that of the mean over all images of the step, even if the images are
    divided among several processes and batches: each part is weighted by its number of images.

    Args:
        task: Network, images, losses and metrics of the training.
        settings: Optimiser, learning rate, gradient clipping and accumulated batches.
        advice: Function that returns a sentence for the user about a training whose loss is not
            finite.
        step_images: Number of images of an optimiser step: those of a batch of all processes, times
            the accumulated batches.
        ends_with_spare: Function that returns True if the last image of this process's epoch does
            not count, see `SeededSampler`.
    """

    def __init__(
        self,
        task: TrainingTask,
        settings: TrainingSettings,
        advice: Callable[[], str],
        step_images: int,
        ends_with_spare: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.model: nn.Module = task.model
        self._task = task
        self._settings = settings
        self._advice = advice  # gives a sentence for a training that cannot go on
        self._step_images = step_images  # images of a whole batch, times accumulated batches
        self._ends_with_spare = ends_with_spare  # see `SeededSampler`
        self._images_of_step: list[str] = []  # images behind the gradient
        # Numbers of the step before, which may not have arrived in main memory.
        self._previous_numbers: list[_NamedNumbers] = []
        self._current_numbers: list[_NamedNumbers] = []  # numbers of this step
        self._weight = 0.0  # images of this step so far

    def configure_optimizers(self) -> Any:
        """Build the optimiser, and a learning-rate schedule that advances with each step.

        Returns:
            Lists of the optimiser and of the schedule, as Lightning takes them.
        """
        # Fused steps unscale by themselves, too late to see whether the gradient is finite. None
        # leaves torch its own choice, one pass over all weights on a GPU; False is one for each.
        fused = True if self._scaler is None else None
        optimiser = build_optimiser(self.model, self._settings, fused=fused)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = build_schedule(optimiser, self._settings, steps)
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Send a batch to a GPU while the GPU computes; the loader has pinned its memory.

        Args:
            batch: Batch in main memory: images with labels or true boxes.
            device: Device of the model.
            dataloader_idx: Number of the loader, always 0, because there is only one; it is not
                used.

        Returns:
            The batch on the device.
        """
        if device.type != "cuda":
            return batch
        return require_loaded(batch).to(device, non_blocking=True)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Compute the losses of a batch; raise an error if a loss is not finite.

        Args:
            batch: Training batch: images with labels or true boxes.
            batch_idx: Number of the batch in the epoch, from 0.

        Returns:
            The sum of the losses (``loss``), each loss by name (``losses``), and the number of
            images by which they are weighted (``weight``).

        Raises:
            InputError: A loss is not finite, the batch could not be loaded, or its computation
                fails; the message names the images. On a GPU a loss that is not finite raises the
                error one step later.
        """
        self._images_of_step += require_loaded(batch).image_ids
        # The guarantee of bit-exact resuming. By step, not by epoch: a loader draws too when it
        # starts, a resumed one at another time.
        key = [self._settings.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        with errors_name_images(batch.image_ids, f"epoch {self.current_epoch + 1}: learning"):
            losses = self._task.training_losses(self.model, batch)
        values = SentNumbers(losses)
        self._require_finite(_NamedNumbers("loss", values, batch.image_ids))
        spare = self.trainer.is_last_batch and self._ends_with_spare()
        weight = 0.0 if spare else self._task.loss_weight(batch)
        loss = torch.stack([*losses.values()]).sum()
        if self._n_parts > 1:  # Lightning takes their mean
            self._weight += weight
            loss = loss * (weight * self._n_parts / self._step_images)
        return {"loss": loss, "losses": values, "weight": weight}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Limit the norm of the gradient.

        Args:
            optimizer: Optimiser of the training.
            gradient_clip_val: Not used; an argument of Lightning's interface. The limit is ``clip``
                in the settings.
            gradient_clip_algorithm: Not used; an argument of Lightning's interface.

        Raises:
            InputError: The gradient is not finite; the message names the images of the step.
        """
        if self._n_parts > 1:
            self._weigh_gradient()
        limit = self._settings.clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit or math.inf)
        # The guarantee of fp16: where the loss is scaled, a step that overflows is skipped and the
        # scale halved, at first several times; a gradient that overflows even at scale 1 is not
        # finite by itself.
        if self._scaler is None or self._scaler.get_scale() <= 1:
            numbers = SentNumbers({"": norm})
            self._require_finite(_NamedNumbers("gradient", numbers, self._images_of_step))
        self._check(self._previous_numbers)
        self._previous_numbers = self._current_numbers
        self._current_numbers = []
        self._images_of_step = []

    def on_validation_start(self) -> None:
        """Check that the losses and gradients of the last training steps are finite.

        Raises:
            InputError: A loss or gradient is not finite; the message names the images.
        """
        self._check(self._previous_numbers + self._current_numbers)
        self._previous_numbers = []
        self._current_numbers = []

    def _require_finite(self, numbers: _NamedNumbers) -> None:
        """Refuse numbers that are not finite: on a CPU at once, on a GPU one step later.

        To wait for them would leave the device without work. What the next step learns is lost
        without harm, because weights are saved only at the end of an epoch.
        """
        if self.device.type == "cuda":
            self._current_numbers.append(numbers)
        else:
            self._check([numbers])

    def _check(self, arrived: list[_NamedNumbers]) -> None:
        for kind, numbers, image_ids in arrived:
            values = numbers.values
            if all(map(math.isfinite, values.values())):
                continue
            if kind == "loss":
                figures = ", ".join(f"{name}={value:.4g}" for name, value in values.items())
                raise self._not_finite_error(f"loss ({figures})", image_ids)
            images = [name for share in gather(image_ids) for name in share]
            raise self._not_finite_error(kind, images)

    def _weigh_gradient(self) -> None:
        """Scale the gradient to a mean over the images of the step: the last one has fewer."""
        # The guarantee of shares: each process and batch weighs by its images, so that several
        # processes learn what one learns.
        own_weight = torch.tensor(self._weight, dtype=torch.float64)
        weight = float(reduce_over_processes(own_weight))
        self._weight = 0.0
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if gradients and weight not in (0.0, float(self._step_images)):
            torch._foreach_mul_(gradients, self._step_images / weight)

    @property
    def _n_parts(self) -> int:
        """Number of parts in which the images of a step come."""
        return int(self.trainer.world_size) * self._settings.accumulate

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Compute the losses of a batch, and the output from which the metrics are computed.

        Args:
            batch: Validation batch: images with labels or true boxes.
            batch_idx: Number of the batch in the epoch, from 0.

        Returns:
            The losses (``losses``), the output of the model (``output``), and the number of images
            by which the losses are weighted (``weight``).

        Raises:
            InputError: The batch could not be loaded, or its computation fails; the message names
                the images.
        """
        require_loaded(batch)
        with errors_name_images(batch.image_ids, f"epoch {self.current_epoch + 1}: validation"):
            losses, output = self._task.validation_step(self.model, batch)
        weight = self._task.loss_weight(batch)
        return {"losses": SentNumbers(losses), "output": output, "weight": weight}

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _not_finite_error(self, name: str, image_ids: list[str]) -> InputError:
        return InputError(
            f"epoch {self.current_epoch + 1}: the {name} is not finite on the images "
            f"{', '.join(image_ids)}; look at these images and their boxes, or {self._advice()}"
        )


class SentNumbers:
    """Numbers by name that are copied from the GPU to main memory while the GPU goes on computing.

    Args:
        numbers: Scalar tensors on the device, by name.

    Example:
        >>> SentNumbers({"box": torch.tensor(0.5), "class": torch.tensor(2.0)}).values
        {'box': 0.5, 'class': 2.0}
    """

    def __init__(self, numbers: dict[str, Tensor]) -> None:
        joined = torch.stack([number.detach().float() for number in numbers.values()])
        self._names = tuple(numbers)
        self._numbers = joined.to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if joined.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    @cached_property
    def values(self) -> dict[str, float]:
        """The numbers by name. Reading this waits until they have been copied."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self._names, self._numbers.tolist(), strict=True))


class _NamedNumbers(NamedTuple):
    """Numbers that must be finite, and the images behind them."""

    kind: Literal["loss", "gradient"]
    numbers: SentNumbers
    image_ids: list[str]
