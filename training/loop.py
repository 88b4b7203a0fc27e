"""One training step and one validation step, their batch norm, optimiser and learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.training.loading import naming, require_loaded
from cxr_compare.training.processes import gather, reduce_over_processes
from cxr_compare.training.task import TrainingTask


class Loop(LightningModule):
    """A task with its optimiser and a guard against losses that are not finite.

    The gradient of a step is that of the mean over all images of the step, however many processes
    and batches they came in: each share counts by its images.
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
        self._advice = advice  # what to do when the training cannot go on, in words
        self._step_images = step_images  # of a batch of all processes, times those accumulated
        self._ends_with_spare = ends_with_spare  # see `SeededSampler`
        self._since_step: list[str] = []  # images behind the gradient
        self._unread: list[_Sent] = []  # of the step before, where a GPU is still at work on it
        self._sent: list[_Sent] = []  # of this step
        self._weight = 0.0  # of them

    def configure_optimizers(self) -> Any:
        """Optimiser, and a schedule that is stepped with it."""
        # Fused steps unscale by themselves, too late to see whether the gradient is finite. None
        # leaves torch its own choice, one pass over all weights on a GPU; False is one for each.
        fused = True if self._scaler is None else None
        optimiser = build_optimiser(self.model, self._settings, fused=fused)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = _build_schedule(optimiser, self._settings, steps)
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """To a GPU while it computes: the loader has pinned the memory of the batch."""
        if device.type != "cuda":
            return batch
        return require_loaded(batch).to(device, non_blocking=True)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Losses of a batch; refuses to learn from one that is not finite."""
        self._since_step += require_loaded(batch).image_ids
        # The guarantee of bit-exact resuming. By step, not by epoch: a loader draws too when it
        # starts, a resumed one at another time.
        step = [self._settings.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(step).generate_state(1)[0]))
        with naming(batch.image_ids, f"epoch {self.current_epoch + 1}: learning"):
            losses = self._task.training_losses(self.model, batch)
        values = SentNumbers(losses)
        self._require_finite(_Sent("loss", values, batch.image_ids))
        spare = self.trainer.is_last_batch and self._ends_with_spare()
        weight = 0.0 if spare else self._task.loss_weight(batch)
        loss = torch.stack([*losses.values()]).sum()
        if self._parts > 1:  # whose mean Lightning takes
            self._weight += weight
            loss = loss * (weight * self._parts / self._step_images)
        return {"loss": loss, "losses": values, "weight": weight}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, and refuse a step whose gradient is not finite: it would destroy the weights."""
        if self._parts > 1:
            self._weigh_gradient()
        limit = self._settings.clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit or math.inf)
        # The guarantee of fp16: where the loss is scaled, a step that overflows is skipped and the
        # scale halved, at first several times; a gradient that overflows even at scale 1 is not
        # finite by itself.
        if self._scaler is None or self._scaler.get_scale() <= 1:
            self._require_finite(_Sent("gradient", SentNumbers({"": norm}), self._since_step))
        self._read(self._unread)
        self._unread, self._sent, self._since_step = self._sent, [], []

    def on_validation_start(self) -> None:
        """Read what the last steps sent, before the epoch is measured and kept."""
        self._read(self._unread + self._sent)
        self._unread, self._sent = [], []

    def _require_finite(self, sent: _Sent) -> None:
        """Refuse numbers that are not finite: on a CPU at once, of a GPU when they have arrived.

        A step later: to wait for them would leave the device without work. What the next step
        learns is thrown away, since weights are kept at the ends of epochs alone.
        """
        if self.device.type == "cuda":
            self._sent.append(sent)
        else:
            self._read([sent])

    def _read(self, arrived: list[_Sent]) -> None:
        for what, numbers, image_ids in arrived:
            values = numbers.values
            if all(map(math.isfinite, values.values())):
                continue
            if what == "loss":
                shown = ", ".join(f"{name}={value:.4g}" for name, value in values.items())
                raise self._not_finite(f"loss ({shown})", image_ids)
            images = [name for share in gather(image_ids) for name in share]
            raise self._not_finite(what, images)

    def _weigh_gradient(self) -> None:
        """Make it that of a mean over the images that there were: an epoch's last are fewer."""
        # The guarantee of shares: each process and batch weighs by its images, so that several
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

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Losses of a batch and what the metrics will need of it."""
        require_loaded(batch)
        with naming(batch.image_ids, f"epoch {self.current_epoch + 1}: validation"):
            losses, output = self._task.validation_step(self.model, batch)
        weight = self._task.loss_weight(batch)
        return {"losses": SentNumbers(losses), "output": output, "weight": weight}

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _not_finite(self, what: str, image_ids: list[str]) -> InputError:
        return InputError(
            f"epoch {self.current_epoch + 1}: the {what} is not finite on the images "
            f"{', '.join(image_ids)}; look at these images and their boxes, or {self._advice()}"
        )


class SentNumbers:
    """Scalars by name on their way to the host; the device goes on with its work.

    Example:
        >>> SentNumbers({"box": torch.tensor(0.5), "class": torch.tensor(2.0)}).values
        {'box': 0.5, 'class': 2.0}
    """

    def __init__(self, numbers: dict[str, Tensor]) -> None:
        joined = torch.stack([number.detach().float() for number in numbers.values()])
        self._names, self._numbers = tuple(numbers), joined.to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if joined.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    @cached_property
    def values(self) -> dict[str, float]:
        """The numbers, waited for where they have not arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self._names, self._numbers.tolist(), strict=True))


class _Sent(NamedTuple):
    """Numbers that must be finite, and the images behind them."""

    what: Literal["loss", "gradient"]
    numbers: SentNumbers
    image_ids: list[str]


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


Mode = Literal["min", "max"]
_MILESTONES = (0.67, 0.92)  # of ``step``: two thirds and eleven twelfths, RetinaNet's own
_FALL = 0.1  # what ``step`` and ``plateau`` multiply the rate by
_PLATEAU_PATIENCE = 3  # epochs without improvement before ``plateau`` falls


def monitor_mode(monitor: str) -> Mode:
    """Whether a small or a large value of the monitored figure is good."""
    return "min" if monitor == "val_loss" else "max"


def build_optimiser(
    model: nn.Module, settings: TrainingSettings, *, fused: bool | None = True
) -> Optimizer:
    """Make the optimiser over all parameters that learn."""
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise ValueError("Expected a model with parameters that learn but all are frozen")
    # Decaying a norm's scale or a bias only fights the loss: it does not make the net smoother.
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate, momentum = settings.learning_rate, settings.momentum
    # Fused: half the time of a step on small CPUs, where it is a tenth of all (measured).
    if settings.optimiser == "sgd":
        nesterov = momentum > 0
        return torch.optim.SGD(groups, rate, momentum, nesterov=nesterov, fused=fused)
    if settings.optimiser == "rmsprop":
        # Smoothed over ten steps, as Keras does, from where the recipes with it come.
        return torch.optim.RMSprop(groups, rate, alpha=0.9, momentum=momentum)
    adam = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return adam(groups, rate, fused=fused)


def _build_schedule(optimiser: Optimizer, settings: TrainingSettings, steps: int) -> LRScheduler:
    """Make the learning-rate schedule, stepped after each optimiser step.

    ``one_cycle`` falls to almost 0 after the warm-up, ``cosine`` to 0 along a cosine, ``step`` to
    a tenth after two thirds and again after eleven twelfths of the training, ``plateau`` to a
    tenth whenever the monitored figure has not improved for 3 epochs; ``constant`` stays.
    """
    if settings.schedule == "one_cycle":
        # At least one falling step: OneCycleLR divides by the length of the fall.
        rise = min(max(settings.warmup_epochs / settings.epochs, 1 / steps), 0.9)
        return OneCycleLR(
            optimiser, max_lr=settings.learning_rate, total_steps=steps + 1, pct_start=rise
        )
    warmup = round(settings.warmup_epochs / settings.epochs * steps)
    if settings.schedule == "plateau":
        return Plateau(optimiser, warmup, patience=_PLATEAU_PATIENCE, factor=_FALL)
    name = settings.schedule
    return LambdaLR(optimiser, lambda step: _learning_rate_factor(step, steps, warmup, name))


class Plateau(LRScheduler):
    """Warms up step by step, then lowers the rate when a figure stops improving.

    All that it remembers is in its state, so a resumed training goes on as it would have. As
    torch's ``ReduceLROnPlateau`` with a threshold of 0 and a patience of one less: here, as in
    early stopping, the fall comes in the epoch that makes `patience` full.

    Example:
        >>> optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = Plateau(optimiser, 0, patience=2, factor=0.5)
        >>> for loss in (0.9, 0.8, 0.8, 0.85):
        ...     schedule.observe(loss, "min")
        >>> schedule.get_last_lr()
        [0.5]
    """

    def __init__(self, optimiser: Optimizer, warmup: int, *, patience: int, factor: float) -> None:
        self._warmup, self._patience, self._factor = warmup, patience, factor
        self._best: float | None = None
        self._stalled = 0  # epochs since the best, or since the last fall
        self._falls = 0
        super().__init__(optimiser)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group at the present step."""
        rise = min(1.0, (self.last_epoch + 1) / self._warmup) if self._warmup else 1.0
        return [base * rise * self._factor**self._falls for base in self.base_lrs]

    def observe(self, value: float, mode: Mode) -> None:
        """Take an epoch's figure, and lower the rate at once where it is time."""
        loss = value if mode == "min" else -value
        if self._best is None or loss < self._best:
            self._best, self._stalled = loss, 0
            return
        self._stalled += 1
        if self._stalled < self._patience:
            return
        self._stalled, self._falls = 0, self._falls + 1
        # The rate of the next step was set before this epoch was validated.
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def _learning_rate_factor(step: int, steps: int, warmup: int, schedule: str) -> float:
    """Share of the peak learning rate at a step, in [0, 1]."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        fallen = sum(step >= round(share * steps) for share in _MILESTONES)
        return round(_FALL**fallen, 12)
    done = (step - warmup) / max(steps - warmup, 1)
    return round(0.5 * (1 + math.cos(math.pi * min(done, 1.0))), 12)
