"""Which rows an epoch draws, in which order, and the seed of each row's augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Sampler


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
        self._before = self._counts
        self.joined: dict[str, int] = dict(self._counts)

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of a batch."""
        for name, count in counts.items():
            self._counts[name] += count

    def join(self) -> dict[str, int]:
        """The sums so far, over all processes."""
        counts = torch.tensor(list(self._counts.values()), dtype=torch.int64)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
            counts = counts.to(device)
            torch.distributed.all_reduce(counts)
        self.joined = dict(zip(self._counts, counts.tolist(), strict=True))
        return self.joined

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew: what was added before, such as by a search of the batch size, is no part."""
        self._counts = dict.fromkeys(self._counts, 0)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the counts before the batch."""
        self._before = dict(self._counts)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Forget a batch that only filled a process's empty share: it counts elsewhere."""
        if not outputs["weight"]:
            self._counts = self._before

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join before the record reads the figures: this callback comes before it."""
        self.join()


_HARDEST = 0.2  # share of the negatives seen so far that count as hard
_UNSEEN = -1.0


class HardNegatives(Callback):
    """Remembers what the model said about negative images, and draws the worst more often.

    While an epoch trains, each negative image leaves its false-positive score: the most confident
    finding on it, as the forward pass of the training step gave it, so it costs nothing. At the
    end of the epoch these scores replace the older ones; the best of several draws counts. The
    next epoch gives a share of all draws of negatives to the fifth of them with the highest
    scores, evenly, and the rest of these draws to all negatives, as without hard negatives.
    Positive images keep their share. In the first epoch nothing is known and nothing is hard.

    Scores change at the end of an epoch only, before its checkpoint is written, and live in it: a
    resumed training draws what it would have drawn. With several processes the scores of all of
    them are joined first, so that all draw alike.

    Args:
        image_ids: The rows of the training set.
        negative: Which rows have no finding, bool, shape ``(N,)``.
        weights: How often rows are drawn otherwise, shape ``(N,)``.
        share: Of the draws of negatives that the hard ones get, in [0, 1].

    Source:
        Shrivastava, Gupta and Girshick 2016, online hard example mining, by image and by epoch.

    Example:
        >>> ids = pd.Index(["a", "b", "c"])
        >>> hard = HardNegatives(ids, np.array([False, True, True]), np.ones(3), share=0.5)
        >>> hard.see(["b", "c"], torch.tensor([0.9, 0.2]))
        >>> hard.settle()
        >>> hard.weights().tolist()
        [1.0, 1.5, 0.5]
    """

    def __init__(
        self, image_ids: pd.Index, negative: np.ndarray, weights: np.ndarray, share: float
    ) -> None:
        self._image_ids = image_ids
        self._negative = np.asarray(negative, dtype=bool)
        self._weights = np.asarray(weights, dtype=np.float64)
        self._share = share
        self._scores = torch.full((len(image_ids),), _UNSEEN, dtype=torch.float64)
        self._new = self._scores.clone()

    def see(self, image_ids: Sequence[str], scores: Tensor) -> None:
        """Take the scores of some negative images of a batch.

        Args:
            image_ids: Which.
            scores: Their most confident finding, in [0, 1], shape ``(B,)``; one that is not
                finite is left aside.
        """
        rows = self._image_ids.get_indexer(pd.Index(image_ids))
        found = scores.detach().double().cpu().nan_to_num(nan=_UNSEEN)
        np.maximum.at(self._new.numpy(), rows, found.numpy())

    def settle(self) -> None:
        """Let the scores of this epoch count; called at its end."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
            joined = self._new.to(device)
            torch.distributed.all_reduce(joined, torch.distributed.ReduceOp.MAX)
            self._new = joined.cpu()
        self._scores = torch.where(self._new > _UNSEEN, self._new, self._scores)
        self._new = torch.full_like(self._new, _UNSEEN)

    def weights(self) -> np.ndarray:
        """How often to draw each row in the next epoch, for `SeededSampler`, ``(N,)``."""
        scores = self._scores.numpy()
        known = np.flatnonzero(self._negative & (scores > _UNSEEN))
        mass = self._weights[self._negative].sum()
        if not len(known) or not mass:
            return self._weights
        # Stable: among equal scores the earlier row is the harder one, on every machine.
        order = known[np.argsort(-scores[known], kind="stable")]
        hard = order[: max(1, round(_HARDEST * len(known)))]
        weights = np.where(self._negative, self._weights * (1 - self._share), self._weights)
        weights[hard] += self._share * mass / len(hard)
        return weights

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget scores from outside of an epoch, such as of a search of the batch size."""
        self._new = torch.full_like(self._new, _UNSEEN)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settle before the checkpoint is written: this callback comes before the record."""
        self.settle()

    def state_dict(self) -> dict[str, Any]:
        """The scores, for the checkpoint."""
        return {"scores": self._scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scores of the training that is resumed."""
        self._scores = state_dict["scores"]


class SeededSampler(Sampler[tuple[int, int]]):
    """Draw ``(row, seed)`` pairs that depend on nothing but the seed and the epoch.

    A data set that augments with the pair's seed gives the same image again however many
    workers load it, and a training that resumes at an epoch sees what it would have seen.

    Args:
        n_rows: Rows of the data set.
        seed: Seed of the whole training.
        weights: How often to draw each row relative to the others, shape ``(n_rows,)``, finite
            and at least 0; rows are then drawn with replacement. None draws each row once. A
            function is called for them at the start of each epoch.
        rank: Index of this process; None takes that of `torch.distributed` when the epoch starts.
        world_size: Number of processes. Together they draw each batch that one process would
            draw, and nothing twice but what `ends_with_spare` says.
        share: Images of a batch that each process gets.

    Raises:
        ValueError: There are no rows, or the weights do not fit.

    Example:
        >>> sampler = SeededSampler(3, seed=0)
        >>> first = list(sampler)
        >>> sampler.set_epoch(1)
        >>> first == list(sampler), sorted(row for row, _ in first)
        (False, [0, 1, 2])
    """

    def __init__(
        self,
        n_rows: int,
        *,
        seed: int,
        weights: np.ndarray | Callable[[], np.ndarray] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        share: int = 1,
    ) -> None:
        if n_rows < 1:
            raise ValueError("Expected at least one row to draw but got none")
        self._n_rows = n_rows
        self._seed = seed
        self._weights = weights if callable(weights) else None
        self._shares = None if weights is None or callable(weights) else _shares(weights, n_rows)
        self._rank = rank
        self._world_size = world_size
        self._share = share
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws; Lightning calls this."""
        self._epoch = epoch

    def ends_with_spare(self) -> bool:
        """Whether this process has no image of an epoch's last batch, and draws one of another.

        All processes must take each step. The one row that such a process draws beyond its share
        is in the last batch already, so the loss must leave it out.
        """
        rank, world_size = self._process()
        most = -(-self._n_rows // world_size)
        own = len(range(rank, self._n_rows, world_size))
        return own < most and own % self._share == 0

    def __len__(self) -> int:
        rank, world_size = self._process()
        return len(range(rank, self._n_rows, world_size)) + self.ends_with_spare()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, world_size = self._process()
        rng = np.random.default_rng([self._seed, self._epoch])
        shares = self._shares if self._weights is None else _shares(self._weights(), self._n_rows)
        if shares is None:
            rows = rng.permutation(self._n_rows)
        else:
            rows = rng.choice(self._n_rows, size=self._n_rows, p=shares)
        seeds = rng.integers(2**63, size=self._n_rows)
        for position in range(rank, rank + len(self) * world_size, world_size):
            drawn = min(position, self._n_rows - 1)  # of a spare: the last one
            yield int(rows[drawn]), int(seeds[drawn])

    def _process(self) -> tuple[int, int]:
        # Read late: Lightning starts the process group after the loaders are built.
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, world_size = self._rank, self._world_size
        if rank is None:
            rank = torch.distributed.get_rank() if running else 0
        if world_size is None:
            world_size = torch.distributed.get_world_size() if running else 1
        return rank, world_size


def _shares(weights: np.ndarray, n_rows: int) -> np.ndarray:
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n_rows,):
        raise ValueError(f"Expected {n_rows} weights but got shape {values.shape}")
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() == 0:
        raise ValueError("Expected finite weights of at least 0, one above 0")
    return values / values.sum()


def balancing_weights(positive: np.ndarray, positive_share: float) -> np.ndarray:
    """Weights that make positives the wanted share of what is drawn.

    Args:
        positive: True for each row of the rarer kind, shape ``(N,)``.
        positive_share: Wanted share, between 0 and 1, both excluded.

    Returns:
        Weights for `SeededSampler`, shape ``(N,)``; all equal where one kind is absent.

    Raises:
        ValueError: The share lies outside (0, 1).

    Example:
        >>> balancing_weights(np.array([True, False, False]), 0.5).tolist()
        [0.5, 0.25, 0.25]
    """
    if not 0 < positive_share < 1:
        raise ValueError(f"Expected a share between 0 and 1 but got {positive_share}")
    positive = np.asarray(positive, dtype=bool)
    n_positive = int(positive.sum())
    if n_positive in (0, len(positive)):
        return np.ones(len(positive))
    negative_weight = (1 - positive_share) / (len(positive) - n_positive)
    return np.where(positive, positive_share / n_positive, negative_weight)
