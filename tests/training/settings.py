"""Settings of a training without a configuration file."""

from __future__ import annotations

from typing import Any

from configs.settings import TrainingSettings


def training_settings(**changes: Any) -> TrainingSettings:
    """One epoch that monitors the validation loss, with some changes."""
    usual = {"epochs": 1, "batch_size": 1, "learning_rate": 1e-3, "monitor": "val_loss"}
    return TrainingSettings(**{**usual, **changes})
