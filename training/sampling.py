"""Which rows an epoch draws, in which order, and the seed of each row's augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Sampler

from training.processes import reduce_over_processes


class EpochSums(Callback):
    """Adds up counts while an epoch trains; they are there when its figures are measured.

    Attributes:
        joined: The sums of the last epoch, over all processes.
    """

    def __init__(self, names: list[str]) -> None:
        self._counts = dict.fromkeys(names, 0)
        self._before = self._counts
        self.joined: dict[str, int] = dict(self._counts)

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of a batch."""
        for name, count in counts.items():
            self._counts[name] += count

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
        counts = reduce_over_processes(torch.tensor([*self._counts.values()], dtype=torch.int64))
        self.joined = dict(zip(self._counts, counts.tolist(), strict=True))


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
        >>> hard.end_epoch()
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
        """Take the scores of some negative images of a batch, in [0, 1]; NaN is left aside."""
        rows = self._image_ids.get_indexer(pd.Index(image_ids))
        finite = scores.detach().double().cpu().nan_to_num(nan=_UNSEEN)
        np.maximum.at(self._new.numpy(), rows, finite.numpy())

    def end_epoch(self) -> None:
        """Let the scores of this epoch replace the older ones; all processes then know the same."""
        new = reduce_over_processes(self._new, largest=True)
        self._scores = torch.where(new > _UNSEEN, new, self._scores)
        self._new = torch.full_like(self._new, _UNSEEN)

    def weights(self) -> np.ndarray:
        """How often to draw each row in the next epoch, for `SeededSampler`, ``(N,)``."""
        scores = self._scores.numpy()
        seen = np.flatnonzero(self._negative & (scores > _UNSEEN))
        mass = self._weights[self._negative].sum()
        if not len(seen) or not mass:
            return self._weights
        # Stable: among equal scores the earlier row is the harder one, on every machine.
        order = seen[np.argsort(-scores[seen], kind="stable")]
        hard = order[: max(1, round(_HARDEST * len(seen)))]
        weights = np.where(self._negative, self._weights * (1 - self._share), self._weights)
        weights[hard] += self._share * mass / len(hard)
        return weights

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget scores from outside of an epoch, such as of a search of the batch size."""
        self._new = torch.full_like(self._new, _UNSEEN)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the checkpoint is written: this callback comes before the record."""
        self.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """The scores, so that a resumed training draws what it would have drawn."""
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
        rank: Of this process among several.
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
        rank: int = 0,
        world_size: int = 1,
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
        most = -(-self._n_rows // self._world_size)
        own = len(range(self._rank, self._n_rows, self._world_size))
        return own < most and own % self._share == 0

    def __len__(self) -> int:
        return len(range(self._rank, self._n_rows, self._world_size)) + self.ends_with_spare()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # Of seed and epoch alone: what makes a resumed training, and one on another number of
        # processes, draw the same.
        rng = np.random.default_rng([self._seed, self._epoch])
        shares = self._shares if self._weights is None else _shares(self._weights(), self._n_rows)
        if shares is None:
            rows = rng.permutation(self._n_rows)
        else:
            rows = rng.choice(self._n_rows, size=self._n_rows, p=shares)
        seeds = rng.integers(2**63, size=self._n_rows)
        end = self._rank + len(self) * self._world_size
        for position in range(self._rank, end, self._world_size):
            drawn = min(position, self._n_rows - 1)  # of a spare: the last one
            yield int(rows[drawn]), int(seeds[drawn])


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
