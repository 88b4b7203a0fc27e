"""Draw the negative images again on which the model is most wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

HARDEST = 0.2
"""Share of the negatives seen so far that count as hard: those with the highest scores."""
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
        hard = order[: max(1, round(HARDEST * len(known)))]
        weights = np.where(self._negative, self._weights * (1 - self._share), self._weights)
        weights[hard] += self._share * mass / len(hard)
        return weights

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settle before the checkpoint is written: this callback comes before the record."""
        self.settle()

    def state_dict(self) -> dict[str, Any]:
        """The scores, for the checkpoint."""
        return {"scores": self._scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scores of the training that is resumed."""
        self._scores = state_dict["scores"]
