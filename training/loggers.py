"""The loggers beside metrics.csv: TensorBoard, MLflow and Weights & Biases, by Lightning."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from data_prep.contracts.errors import InputError
from training.run_folder import RunFolder

_PROJECT = "cxr-compare"
_EVENTS = "events"


def require_loggers(names: Sequence[str]) -> None:
    """Refuse a logger whose package is not installed, before anything is trained.

    Args:
        names: Of ``training.loggers``; each is the name of its package and of its pip extra.

    Raises:
        InputError: A package is missing.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"training.loggers: needs the package {name}, which is not installed; "
                f"pip install 'cxr-compare[{name}]', or take '{name}' out"
            )


def build_loggers(names: Sequence[str], run: RunFolder) -> list[Logger]:
    """Lightning's loggers for a run; `metrics.csv` is written whatever they are.

    Each gets the configuration and the whole history: of a training that is resumed, TensorBoard's
    events replace those of its first part, and MLflow and W&B begin another run of the same name.

    Args:
        names: ``tensorboard`` writes to ``events/`` in the folder; ``mlflow`` to what
            ``MLFLOW_TRACKING_URI`` names, else to ``mlflow.db`` in the folder; ``wandb`` to where
            its own settings say, with its files in ``wandb/`` in the folder.
        run: Gives the folder and the name.
    """
    folder = run.folder.resolve()
    loggers: list[Logger] = []
    if "tensorboard" in names:
        _remove_events(folder / _EVENTS)
        loggers.append(TensorBoardLogger(folder, "", _EVENTS, default_hp_metric=False))
    if "mlflow" in names:
        tracking = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        loggers.append(
            MLFlowLogger(
                _PROJECT,
                run_name=folder.name,
                tracking_uri=tracking,
                artifact_location=None
                if os.environ.get("MLFLOW_TRACKING_URI")
                else (folder / "mlflow").as_uri(),
            )
        )
    if "wandb" in names:
        loggers.append(WandbLogger(folder.name, folder, project=_PROJECT))
    return loggers


@rank_zero_only
def _remove_events(folder: Path) -> None:
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()


def log_row(loggers: Sequence[Logger], row: dict[str, Any]) -> None:
    """Hand an epoch's figures to every logger."""
    for logger in loggers:
        logger.log_metrics(_scalars(row), step=row["epoch"])
        logger.save()


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """An epoch's finite figures under the names by which TensorBoard groups them.

    Example:
        >>> _scalars({"epoch": 1, "train_loss": 0.5, "val_loss": 0.6, "ap50": 0.1, "seconds": 9.0})
        {'train/loss': 0.5, 'val/loss': 0.6, 'val/ap50': 0.1, 'seconds': 9.0}
    """
    named = {}
    for key, value in row.items():
        group, _, rest = key.partition("_")
        if key == "epoch" or not math.isfinite(value):
            continue
        if group in ("train", "val") and rest:
            named[f"{group}/{rest}"] = value
        else:
            named[key if key in ("learning_rate", "seconds") else f"val/{key}"] = value
    return named
