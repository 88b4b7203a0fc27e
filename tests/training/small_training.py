"""A training small enough to be exact about, without a configuration file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.training.fit import FitResult, fit
from cxr_compare.training.loading import BatchLoader
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import StartedRun
from cxr_compare.training.sampling import SeededSampler


def training_settings(**changes: Any) -> TrainingSettings:
    """One epoch that monitors the validation loss, with some changes."""
    usual = {"epochs": 1, "batch_size": 1, "learning_rate": 1e-3, "monitor": "val_loss"}
    return TrainingSettings(**{**usual, **changes})


@dataclass
class Batch:
    """What a loader gives."""

    image_ids: list[str]
    x: Tensor
    y: Tensor

    def to(self, device, *, non_blocking=False):
        x, y = (table.to(device, non_blocking=non_blocking) for table in (self.x, self.y))
        return Batch(self.image_ids, x, y)


class Rows(Dataset):
    """Rows whose noise is drawn from the pair's seed, as an augmentation's is."""

    def __init__(self, n: int) -> None:
        generator = torch.Generator().manual_seed(5)
        self.image_ids = [f"image{row}" for row in range(n)]
        self.x = torch.randn(n, 4, generator=generator)
        self.y = (self.x[:, :1] > 0).float()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int | tuple[int, int]) -> tuple[str, Tensor, Tensor]:
        row, seed = index if isinstance(index, tuple) else (index, 0)
        noise = torch.randn(4, generator=torch.Generator().manual_seed(seed)) * 0.1
        return f"image{row}", self.x[row] + noise, self.y[row]


def collate(items: list[tuple[str, Tensor, Tensor]]) -> Batch:
    """A batch of rows."""
    ids, x, y = zip(*items, strict=True)
    return Batch(list(ids), torch.stack(x), torch.stack(y))


def small_model() -> nn.Module:
    """Always with the same weights; with a batch norm and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)
        )


def losses_of(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The loss of a training step."""
    return {"bce": nn.functional.binary_cross_entropy_with_logits(model(batch.x), batch.y)}


def validate(model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """The loss of a validation step, and which rows are right."""
    logits = model(batch.x)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, batch.y)
    return {"bce": loss}, (logits > 0) == (batch.y > 0)


def _accuracy(outputs: list[Tensor]) -> dict[str, float]:
    return {"accuracy": torch.cat(outputs).float().mean().item()}


def run_in(folder: Path) -> RunFolder:
    """The run that was started in a folder, or a new one."""
    started = RunFolder.started_in(folder)
    seen = pd.DataFrame({"image_id": ["image0"], "patient_id": ["p0"], "role": ["train"]})
    config = "[training]\nepochs = 3\n"
    return started or RunFolder.create(
        folder, config=config, seen=seen, started=StartedRun(name="small")
    )


@dataclass
class Task:
    """What is trained."""

    model: nn.Module
    training_losses: Callable[..., Any] = losses_of
    validation_step: Callable[..., Any] = validate
    validation_metrics: Callable[..., Any] = _accuracy
    callbacks: tuple[Any, ...] = ()

    def loss_weight(self, batch: Batch) -> float:
        return len(batch.image_ids)


_TASK_OPTIONS = ("training_losses", "validation_step", "validation_metrics")
_SETTING_NAMES = ("monitor", "epochs", "patience")


def fit_small(
    folder: Path,
    model: nn.Module | None = None,
    settings: TrainingSettings = training_settings(learning_rate=0.05),  # noqa: B008  frozen
    **changes: Any,
) -> FitResult:
    """Four epochs on 24 rows; changes are of the task, of the settings, or arguments of `fit`."""
    rows = Rows(24)
    task = Task(
        model or small_model(), **{k: changes.pop(k) for k in _TASK_OPTIONS if k in changes}
    )
    settings_here = {k: changes.pop(k) for k in _SETTING_NAMES if k in changes}
    sampler = SeededSampler(24, seed=3)
    loaders = {
        "train_loader": BatchLoader(rows, collate, 5, sampler),
        "val_loader": BatchLoader(rows, collate, 8, range(24)),
    }
    settings = settings.model_copy(update={"epochs": 4, **settings_here})
    return fit(task, settings, run=run_in(folder), **{**loaders, **changes})
