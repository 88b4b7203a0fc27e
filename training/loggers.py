"""The loggers beside metrics.csv: TensorBoard, MLflow and Weights & Biases, by Lightning."""

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

_NOT_METRICS = (  # columns of an epoch
    "epoch", "learning_rate", "seconds", "processor_seconds", "seconds_validation",
    "seconds_checkpoint", "seconds_waiting",
)  # fmt: skip


def metrics_of(row: dict[str, Any]) -> dict[str, float]:
    """The figures of an epoch that measure the model, without losses and times."""
    return {
        name: value
        for name, value in row.items()
        if name not in _NOT_METRICS and not name.startswith(("train_", "val_"))
    }


_PROJECT = "cxr-compare"
_EVENTS = "events"
_RUN_TAG = "cxr_run"


def build_loggers(names: Sequence[str], run: RunFolder) -> list[Logger]:
    """Lightning's loggers for a run; `metrics.csv` is written whatever they are.

    ``tensorboard`` writes to ``events/`` in the folder; ``mlflow`` to what ``MLFLOW_TRACKING_URI``
    names, else to ``mlflow.db`` in the folder; ``wandb`` to ``wandb/`` in the folder, and with
    ``WANDB_MODE=online`` to its server. Nothing leaves the machine unless the user's environment
    says so. A training that is resumed goes on in the same run of each logger.
    """
    builders = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
    return [build(run) for name, build in builders.items() if name in names]


def _identity(run: RunFolder) -> str:
    """The same for a run whenever it goes on, wherever its folder is moved."""
    return hashlib.sha256(json.dumps(run.started, sort_keys=True).encode()).hexdigest()[:16]


def _tensorboard(run: RunFolder) -> Logger:
    folder = run.folder.resolve()
    for old in (folder / _EVENTS).glob("events.out.tfevents.*"):
        old.unlink()  # the next file begins with the whole history
    return TensorBoardLogger(folder, "", _EVENTS, default_hp_metric=False)


def _mlflow(run: RunFolder) -> Logger:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    folder, identity = run.folder.resolve(), _identity(run)
    server = os.environ.get("MLFLOW_TRACKING_URI")
    tracking = server or f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking)
    experiment, earlier = client.get_experiment_by_name(_PROJECT), []
    if experiment is not None:
        mine = f"tags.{_RUN_TAG} = '{identity}'"
        earlier = client.search_runs([experiment.experiment_id], mine, max_results=1)
    for run_before in earlier:
        client.update_run(run_before.info.run_id, status="RUNNING")
    return MLFlowLogger(
        _PROJECT,
        run_name=folder.name,
        tracking_uri=tracking,
        tags={_RUN_TAG: identity},
        artifact_location=None if server else (folder / "mlflow").as_uri(),
        run_id=earlier[0].info.run_id if earlier else None,
    )


def _wandb(run: RunFolder) -> Logger:
    import wandb

    class Closing(WandbLogger):
        """Ends its run with the training: the next one of this process is another."""

        def finalize(self, status: str) -> None:
            super().finalize(status)
            self.experiment.finish(exit_code=int(status != "success"))

    folder, identity = run.folder.resolve(), _identity(run)
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
        x_disable_meta=True,  # the command with its paths, and the user
        x_disable_stats=True,
        x_save_requirements=False,
    )
    return Closing(
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
    """Hand over the settings and, of a training that is resumed, the epochs that a logger lacks."""
    for logger in loggers:
        logger.log_hyperparams(settings)
        logged = _logged_epochs(logger) if history else set()
        for row in history:
            if row["epoch"] not in logged:
                log_row([logger], row)


def _logged_epochs(logger: Logger) -> set[int]:
    """The epochs that a logger's run has from before."""
    if isinstance(logger, MLFlowLogger):
        metrics = logger.experiment.get_metric_history(cast(str, logger.run_id), "train/loss")
        return {metric.step for metric in metrics}
    if isinstance(logger, WandbLogger):  # it counts rows, and each is an epoch
        return set(range(1, logger.experiment.starting_step + 1))
    return set()


def log_row(loggers: Sequence[Logger], row: dict[str, Any]) -> None:
    """Hand an epoch's figures to every logger."""
    for logger in loggers:
        logger.log_metrics(_scalars(row), step=row["epoch"])
        logger.save()


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """An epoch's finite figures as ``train/loss``, ``val/ap50``: so TensorBoard groups them."""
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
