"""Loggers in addition to metrics.csv, which Lightning provides: TensorBoard, MLflow and W&B."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from typing import Any, cast

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
_RUN_TAG = "cxr_run"


def build_loggers(names: Sequence[str], run: RunFolder) -> list[Logger]:
    """Build the Lightning loggers that a user chose; ``metrics.csv`` is written without them.

    ``tensorboard`` writes to ``events/`` in the folder of the training. ``mlflow`` writes to the
    server or file of ``MLFLOW_TRACKING_URI``, or by default to ``mlflow.db`` in the folder.
    ``wandb`` writes to ``wandb/`` in the folder, and with ``WANDB_MODE=online`` to its server. No
    data leave the machine unless the user's environment says so. A resumed training continues the
    same run in each logger.

    Args:
        names: Names of the loggers, such as ``["tensorboard"]``.
        run: Folder of the training.

    Returns:
        One logger of Lightning for each name; empty if none was chosen.
    """
    builders = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
    return [build(run) for name, build in builders.items() if name in names]


def _identity(run: RunFolder) -> str:
    """Return an id that stays when the run is resumed or its folder is moved."""
    return hashlib.sha256(json.dumps(run.started, sort_keys=True).encode()).hexdigest()[:16]


def _tensorboard(run: RunFolder) -> Logger:
    folder = run.folder.resolve()
    for old in (folder / _EVENTS).glob("events.out.tfevents.*"):
        old.unlink()  # the next file begins with the whole history
    return TensorBoardLogger(folder, "", _EVENTS, default_hp_metric=False)


def _mlflow(run: RunFolder) -> Logger:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    folder = run.folder.resolve()
    identity = _identity(run)
    server = os.environ.get("MLFLOW_TRACKING_URI")
    tracking = server or f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking)
    experiment = client.get_experiment_by_name(_PROJECT)
    earlier_runs = []
    if experiment is not None:
        same_identity = f"tags.{_RUN_TAG} = '{identity}'"
        earlier_runs = client.search_runs([experiment.experiment_id], same_identity, max_results=1)
    for earlier_run in earlier_runs:
        client.update_run(earlier_run.info.run_id, status="RUNNING")
    return MLFlowLogger(
        _PROJECT,
        run_name=folder.name,
        tracking_uri=tracking,
        tags={_RUN_TAG: identity},
        artifact_location=None if server else (folder / "mlflow").as_uri(),
        run_id=earlier_runs[0].info.run_id if earlier_runs else None,
    )


def _wandb(run: RunFolder) -> Logger:
    import wandb

    class ClosingWandbLogger(WandbLogger):
        """A logger that ends its run with the training: this process may train again."""

        def finalize(self, status: str) -> None:
            super().finalize(status)
            self.experiment.finish(exit_code=int(status != "success"))

    folder = run.folder.resolve()
    identity = _identity(run)
    mode = os.environ.get("WANDB_MODE", "offline")
    online = mode == "online"
    for old in (folder / "wandb").glob(f"offline-run-*-{identity}"):
        shutil.rmtree(old)  # the next one begins with the whole history
    settings = wandb.Settings(
        console="off",  # its lines may name images
        disable_git=True,
        host="",
        save_code=False,
        silent=not online,
        x_disable_machine_info=True,
        x_disable_meta=True,  # it would contain the command with its paths, and the user
        x_disable_stats=True,
        x_save_requirements=False,
    )
    return ClosingWandbLogger(
        folder.name,
        folder,
        id=identity,
        project=_PROJECT,
        mode=mode,
        resume="allow" if online else None,
        settings=settings,
    )


def log_start(
    loggers: Sequence[Logger], settings: dict[str, Any], history: Sequence[dict[str, Any]]
) -> None:
    """Log the settings of a training, and the earlier epochs that a logger lacks.

    There are earlier epochs if the training was interrupted and is now resumed.

    Args:
        loggers: Loggers of the training; there may be none.
        settings: Content of the configuration, by section and key.
        history: One row of metrics for each earlier epoch; empty for a new training.
    """
    for logger in loggers:
        logger.log_hyperparams(settings)
        logged = _logged_epochs(logger) if history else set()
        for row in history:
            if row["epoch"] not in logged:
                log_row([logger], row)


def _logged_epochs(logger: Logger) -> set[int]:
    """Return the epochs that a logger's run has from before."""
    if isinstance(logger, MLFlowLogger):
        metrics = logger.experiment.get_metric_history(cast(str, logger.run_id), "train/loss")
        return {metric.step for metric in metrics}
    if isinstance(logger, WandbLogger):  # it counts rows, one for each epoch
        return set(range(1, logger.experiment.starting_step + 1))
    return set()


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
