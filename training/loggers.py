"""Loggers in addition to metrics.csv, which Lightning provides: TensorBoard, MLflow and W&B."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from cxr_compare.training.run_folder import RunFolder

_NOT_METRICS = (  # columns of an epoch that do not measure the model
    "epoch",
    "learning_rate",
    "seconds",
    "processor_seconds",
    "seconds_validation",
    "seconds_checkpoint",
    "seconds_waiting",
)


def metrics_of(row: dict[str, Any]) -> dict[str, float]:
    """Return those figures of an epoch that measure the model, without losses, times and the rate.

    Args:
        row: All figures of the epoch by their names in ``metrics.csv``.

    Returns:
        Metrics by name, such as ``auroc`` or ``ap50``.

    Example:
        >>> metrics_of({"epoch": 1, "train_loss": 0.7, "auroc": 0.8, "seconds": 3.0})
        {'auroc': 0.8}
    """
    return {
        name: value
        for name, value in row.items()
        if name not in _NOT_METRICS and not name.startswith(("train_", "val_"))
    }


_PROJECT = "cxr-compare"
_EVENTS = "events"


def build_loggers(names: Sequence[str], run: RunFolder) -> list[Logger]:
    """Build the Lightning loggers that a user chose; ``metrics.csv`` is written without them.

    ``tensorboard`` writes to ``events/`` in the folder of the training. ``mlflow`` writes to the
    server or file of ``MLFLOW_TRACKING_URI``, or by default to ``mlflow.db`` in the folder.
    ``wandb`` writes to ``wandb/`` in the folder, and with ``WANDB_MODE=online`` to its server. No
    data leave the machine unless the user's environment says so. A resumed training begins a new
    run in MLflow and W&B, which has the epochs since then.

    Args:
        names: Names of the loggers, such as ``["tensorboard"]``.
        run: Folder of the training.

    Returns:
        One logger of Lightning for each name; empty if none was chosen.
    """
    builders = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
    return [build(run) for name, build in builders.items() if name in names]


def _tensorboard(run: RunFolder) -> Logger:
    return TensorBoardLogger(run.folder.resolve(), "", _EVENTS, default_hp_metric=False)


def _mlflow(run: RunFolder) -> Logger:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    folder = run.folder.resolve()
    server = os.environ.get("MLFLOW_TRACKING_URI")
    return MLFlowLogger(
        _PROJECT,
        run_name=folder.name,
        tracking_uri=server or f"sqlite:///{folder / 'mlflow.db'}",
        artifact_location=None if server else (folder / "mlflow").as_uri(),
    )


def _wandb(run: RunFolder) -> Logger:
    import wandb

    class ClosingWandbLogger(WandbLogger):
        """A logger that ends its run with the training: this process may train again."""

        def finalize(self, status: str) -> None:
            super().finalize(status)
            self.experiment.finish(exit_code=int(status != "success"))

    folder = run.folder.resolve()
    mode = os.environ.get("WANDB_MODE", "offline")
    settings = wandb.Settings(
        console="off",  # its lines may name images
        disable_git=True,
        host="",
        save_code=False,
        silent=mode != "online",
        x_disable_machine_info=True,
        x_disable_meta=True,  # it would contain the command with its paths, and the user
        x_disable_stats=True,
        x_save_requirements=False,
    )
    return ClosingWandbLogger(
        folder.name,
        folder,
        project=_PROJECT,
        mode=mode,
        settings=settings,
    )


def log_start(loggers: Sequence[Logger], settings: dict[str, Any]) -> None:
    """Log the settings of a training.

    Args:
        loggers: Loggers of the training; there may be none.
        settings: Content of the configuration, by section and key.
    """
    for logger in loggers:
        logger.log_hyperparams(settings)


def log_row(loggers: Sequence[Logger], row: dict[str, Any]) -> None:
    """Log the figures of an epoch with every logger: losses, metrics, learning rate and times.

    Figures that are not finite are left out.

    Args:
        loggers: Loggers of the training; there may be none.
        row: Values of the epoch, by their names in ``metrics.csv``.
    """
    for logger in loggers:
        logger.log_metrics(_scalars(row), step=row["epoch"])
        logger.save()


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """Return an epoch's finite figures as ``train/loss``, ``val/ap50``: TensorBoard groups them."""
    named = {}
    for key, value in row.items():
        group, _, rest = key.partition("_")
        if key == "epoch" or not math.isfinite(value):
            continue
        if group in ("train", "val") and rest:
            named[f"{group}/{rest}"] = value
        else:
            named[key if key in _NOT_METRICS else f"val/{key}"] = value
    return named
