"""Loggers in addition to metrics.csv, which Lightning provides: TensorBoard, MLflow and W&B."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from cxr_compare.data_prep.contracts.errors import require_packages
from cxr_compare.data_prep.contracts.own_parts import own_class
from cxr_compare.training.run_folder import RunFolder

_PROJECT = "cxr-compare"
_EVENTS = "events"


def build_loggers(names: Sequence[str], run: RunFolder) -> list[Logger]:
    """Build the Lightning loggers that a user chose; ``metrics.csv`` is written without them.

    ``tensorboard`` writes to ``events/`` in the folder of the training. ``mlflow`` writes to the
    server or file of ``MLFLOW_TRACKING_URI``, or by default to ``mlflow.db`` in the folder.
    ``wandb`` writes to ``wandb/`` in the folder, and with ``WANDB_MODE=online`` to its server. No
    data leave the machine unless the user's environment says so. A resumed training begins a new
    run in MLflow and W&B, which has the epochs since then.

    A name ``MODULE:NAME`` is a class of the user's own, which is made without arguments.
    """
    builders = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
    loggers = [build(run) for name, build in builders.items() if name in names]
    return loggers + [_own_logger(name)() for name in names if name not in builders]


def _own_logger(name: str) -> Any:
    return own_class(name, "training.loggers", Logger)


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
    return WandbLogger(
        folder.name,
        folder,
        project=_PROJECT,
        mode=mode,
        settings=settings,
    )


def finish_loggers(loggers: Sequence[Logger]) -> None:
    """End the runs of W&B, whose process may train again."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


_PACKAGES = {  # packages that each logger imports, from its pip extra
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}


def require_loggers(names: Sequence[str]) -> None:
    """Check that the loggers can be imported, before the training starts.

    Raises InputError, which names the pip extra of a missing package, also if a class of the user's
    own cannot be imported or is no logger.
    """
    for name in names:
        if name not in _PACKAGES:
            _own_logger(name)
            continue
        require_packages(f"training.loggers: {name}", name, _PACKAGES[name])
