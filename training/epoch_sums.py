"""Counts of a whole epoch, summed over its batches and over all processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer


class EpochSums(Callback):
    """Adds up counts while an epoch trains; they are there when its figures are measured.

    Args:
        names: What is counted.

    Example:
        >>> sums = EpochSums(["boxes", "dropped"])
        >>> sums.add({"boxes": 3, "dropped": 1})
        >>> sums.add({"boxes": 2})
        >>> sums.join()
        {'boxes': 5, 'dropped': 1}
    """

    def __init__(self, names: list[str]) -> None:
        self._counts = dict.fromkeys(names, 0)
        self.joined: dict[str, int] = dict(self._counts)

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of a batch."""
        for name, count in counts.items():
            self._counts[name] += count

    def join(self) -> dict[str, int]:
        """The sums so far, over all processes; they begin anew afterwards."""
        counts = torch.tensor(list(self._counts.values()), dtype=torch.int64)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
            counts = counts.to(device)
            torch.distributed.all_reduce(counts)
        self.joined = dict(zip(self._counts, counts.tolist(), strict=True))
        self._counts = dict.fromkeys(self._counts, 0)
        return self.joined

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join before the record asks for the figures: this callback comes before it."""
        self.join()
