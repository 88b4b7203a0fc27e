"""A training small enough to be exact about, without a configuration file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningDataModule
from torch import Tensor, nn
from torch.utils.data import Dataset

from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.training.callbacks import History
from cxr_compare.training.image_data import EpochSampler, LazyLoader, SeededRows
from cxr_compare.training.module import TrainingModule
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import StartedRun
from cxr_compare.training.train import fit

N_IMAGES = 24


def training_settings(**changes: Any) -> TrainingSettings:
    """Four epochs of five steps that monitor the validation loss, with some changes."""
    usual = {"epochs": 4, "batch_size": 4, "learning_rate": 0.05, "monitor": "val_loss", "seed": 3}
    return TrainingSettings(**{**usual, **changes})


class Batch:
    """What a loader gives."""

    def __init__(self, image_ids: list[str], x: Tensor, y: Tensor) -> None:
        self.image_ids, self.x, self.y = image_ids, x, y

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device, *, non_blocking=False):
        return Batch(self.image_ids, self.x.to(device), self.y.to(device))


class Rows(Dataset):
    """Rows of somebody else, whose noise is drawn from torch's generator."""

    def __init__(self, n: int = N_IMAGES) -> None:
        generator = torch.Generator().manual_seed(5)
        self.image_ids = [f"image{row}" for row in range(n)]
        self.x = torch.randn(n, 4, generator=generator)
        self.y = (self.x[:, :1] > 0).float()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[str, Tensor, Tensor]:
        return f"image{row}", self.x[row] + 0.1 * torch.randn(4), self.y[row]


def collate(items: list[tuple[str, Tensor, Tensor]]) -> Batch:
    """A batch of rows."""
    ids, x, y = zip(*items, strict=True)
    return Batch(list(ids), torch.stack(x), torch.stack(y))


class SmallData(LightningDataModule):
    """Both roles have the same rows."""

    def __init__(self, settings: TrainingSettings, workers: int = 0) -> None:
        super().__init__()
        self.settings, self.workers = settings, workers

    def train_dataloader(self) -> LazyLoader:
        step = self.settings.batch_size * self.settings.accumulate
        return self._loader(EpochSampler(N_IMAGES, self.settings.seed, step))

    def val_dataloader(self) -> LazyLoader:
        return self._loader(range(N_IMAGES))

    def _loader(self, sampler: Any) -> LazyLoader:
        return LazyLoader(
            SeededRows(Rows()), self.settings.batch_size, sampler=sampler, collate_fn=collate,
            num_workers=self.workers, persistent_workers=self.workers > 0,
            generator=torch.Generator(),
        )  # fmt: skip


def small_model() -> nn.Module:
    """Always with the same weights; with a batch norm and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)
        )


class SmallModule(TrainingModule):
    """A network of two layers; an own loss is this one method."""

    factor: Callable[[Batch], float] = staticmethod(lambda batch: 1.0)
    figure: Callable[[], float] | None = None

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(batch.x), batch.y)
        return {"bce": loss * self.factor(batch)}

    def validate(self, batch: Batch) -> tuple[dict[str, Tensor], Any]:
        logits = self.model(batch.x)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, batch.y)
        return {"bce": loss}, (logits > 0) == (batch.y > 0)

    def figures(self, outputs: list[Any]) -> dict[str, float]:
        if self.figure is not None:
            return {"figure": self.figure()}
        return {"accuracy": torch.cat(outputs).float().mean().item()}


def run_in(folder: Path) -> RunFolder:
    """The run that was started in a folder, or a new one."""
    seen = pd.DataFrame({"image_id": ["image0"], "patient_id": ["p0"], "role": ["train"]})
    config = "[training]\nepochs = 3\n"
    started = RunFolder.started_in(folder)
    return started or RunFolder.create(
        folder, config=config, seen=seen, started=StartedRun(name="small")
    )


def fit_small(
    folder: Path,
    module: type[SmallModule] = SmallModule,
    *,
    callbacks: Sequence[Callback] = (),
    workers: int = 0,
    precision: Any = "fp32",
    loggers: Sequence[Any] = (),
    **changes: Any,
) -> History:
    """Train 24 rows; changes are of the settings."""
    settings = training_settings(**changes)
    history, _ = fit(
        module(small_model(), settings), SmallData(settings, workers), run_in(folder),
        callbacks=callbacks, loggers=loggers, precision=precision, accelerator="cpu",
    )  # fmt: skip
    return history
