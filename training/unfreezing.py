"""Parts of a model that begin to learn later than others."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from data_prep.contracts.errors import InputError


class Unfreezing(Callback):
    """Settles at the beginning of each epoch which parts learn.

    The optimiser knows all of them from the start, so that a training can be resumed in any epoch;
    it leaves those alone that have no gradient.

    Args:
        settle: Freezes and unfreezes the model for an epoch, counted from 0.
    """

    def __init__(self, settle: Callable[[int], None]) -> None:
        self._settle = settle

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse several devices; settle for an epoch that is resumed, which has no start.

        Raises:
            InputError: Several devices share a batch: they agree once which gradients to expect.
        """
        if trainer.world_size > 1:
            raise InputError(
                "model.trainable: parts cannot be unfrozen while several devices share a batch; "
                "train on one device, or choose trainable = 'all' or 'head'"
            )
        self._settle(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze and unfreeze."""
        self._settle(trainer.current_epoch)
