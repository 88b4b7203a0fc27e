"""Random draws of the rows of an epoch, by seed and with a share of positives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class SeededSampler(Sampler[tuple[int, int]]):
    """Sampler of ``(row, seed)`` pairs that depend only on its random seed and the epoch.

    The seed of a pair determines the random augmentation of its image. A training therefore gets
    the same images for any number of loading processes, and also after it was resumed. Several
    processes together draw the batches that one process would draw. Without `weights`, no row is
    drawn twice in an epoch, except as `ends_with_spare` says.

    Args:
        n_rows: Number of rows N.
        seed: Random seed of the draws.
        weights: Weights of the rows, shape (N,), for draws with replacement; None draws each row
            once.
        rank: Number of this process among those that train together, from 0.
        world_size: Number of processes that train together.
        share: Number of images of each batch that one process gets.

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
        weights: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
        share: int = 1,
    ) -> None:
        if n_rows < 1:
            raise ValueError("Expected at least one row to draw but got none")
        self._n_rows = n_rows
        self._seed = seed
        self._probabilities = None if weights is None else _probabilities(weights, n_rows)
        self._rank = rank
        self._world_size = world_size
        self._share = share
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch that the next iteration draws; Lightning calls this.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self._epoch = epoch

    def ends_with_spare(self) -> bool:
        """Return True if this process must ignore the last row that it draws.

        All processes take part in each step. A process without a row for the last batch draws one
        that another process has as well. The loss must leave this row out.
        """
        most = -(-self._n_rows // self._world_size)
        n_own = len(range(self._rank, self._n_rows, self._world_size))
        return n_own < most and n_own % self._share == 0

    def __len__(self) -> int:
        return len(range(self._rank, self._n_rows, self._world_size)) + self.ends_with_spare()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # Seed and epoch alone: a resumed training, and one on another number of processes, draw
        # the same.
        rng = np.random.default_rng([self._seed, self._epoch])
        if self._probabilities is None:
            rows = rng.permutation(self._n_rows)
        else:
            rows = rng.choice(self._n_rows, size=self._n_rows, p=self._probabilities)
        seeds = rng.integers(2**63, size=self._n_rows)
        end = self._rank + len(self) * self._world_size
        for position in range(self._rank, end, self._world_size):
            drawn = min(position, self._n_rows - 1)  # the last row for a spare one
            yield int(rows[drawn]), int(seeds[drawn])


def _probabilities(weights: np.ndarray, n_rows: int) -> np.ndarray:
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n_rows,):
        raise ValueError(f"Expected {n_rows} weights but got shape {values.shape}")
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() == 0:
        raise ValueError("Expected finite weights of at least 0, one above 0")
    return values / values.sum()


def balancing_weights(positive: np.ndarray, positive_share: float) -> np.ndarray:
    """Compute draw weights with which positive images make up a given share of the draws.

    Args:
        positive: True for a positive image (one with the finding), bool (N,).
        positive_share: Share of positive images in the draws, between 0 and 1 (both excluded).

    Returns:
        Weight of each image, shape (N,). All are equal if there are only positive or only negative
        images.

    Raises:
        ValueError: `positive_share` is not between 0 and 1.

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
