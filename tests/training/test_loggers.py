"""Loggers beside `metrics.csv`: Lightning's own, each real one where it is installed."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.training.loggers import build_loggers, require_loggers
from cxr_compare.training.run_folder import RunFolder
from tests.training.small_training import fit_small, run_in


def _fit(folder: Path, loggers: list[Logger], **changes: Any) -> None:
    """Three epochs."""
    for logger in loggers:
        logger.log_hyperparams({"training": {"epochs": 3}})
    fit_small(folder, loggers=loggers, **{"epochs": 3, **changes})


class _StopAfterTwo(Callback):
    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


class _Kept(Logger):
    """A logger of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self.settings: Any = None

    name, version = "kept", 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(metrics)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.settings = params


def test_logger_gets_settings_and_every_epoch_once_and_changes_nothing(tmp_path):
    logger = _Kept()
    _fit(tmp_path / "plain", [])
    _fit(tmp_path / "logged", [logger])
    tables = [tmp_path / name / "metrics.csv" for name in ("plain", "logged")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert logger.settings == {"training": {"epochs": 3}}
    losses = [row["train_loss"] for row in logger.rows if "train_loss" in row]
    assert losses == pytest.approx(pd.read_csv(tables[1])["train_loss"].tolist(), rel=1e-5)


def test_logger_of_a_resumed_training_gets_the_epochs_since_then(tmp_path):
    first, second = _Kept(), _Kept()
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path, [first], callbacks=[_StopAfterTwo()])
    _fit(tmp_path, [second])
    assert sum("val_loss" in row for row in first.rows) == 2
    assert sum("val_loss" in row for row in second.rows) == 1


@pytest.mark.parametrize(
    "package",
    [None, SimpleNamespace(origin=None)],
    ids=["nothing", "the folder wandb/ of an earlier run"],
)
def test_logger_without_its_package_is_refused_in_one_line(package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    with pytest.raises(InputError, match=r"pip install .*\[wandb\]") as caught:
        require_loggers(["wandb"])
    assert "\n" not in str(caught.value)
    require_loggers([])


def test_tensorboard_reads_a_resumed_training_whole_and_once(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    run = run_in(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        _fit(run.folder, build_loggers(["tensorboard"], run), callbacks=[_StopAfterTwo()])
    _fit(run.folder, build_loggers(["tensorboard"], run))
    files = sorted((run.folder / "events").glob("events.*"))
    steps = [
        event.step
        for file in files
        for event in loader.EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tag == "train_loss"
    ]
    assert steps == [5, 11, 17]  # the last of six steps an epoch


def _trained(folder: Path, logger: str) -> tuple[RunFolder, pd.DataFrame]:
    """Three epochs, with what `metrics.csv` says of them."""
    run = run_in(folder)
    _fit(folder, build_loggers([logger], run))
    return run, pd.read_csv(folder / "metrics.csv")


@pytest.mark.filterwarnings("default")  # of mlflow's own libraries
def test_mlflow_gets_one_run_with_every_epoch(tmp_path):
    tracking = pytest.importorskip("mlflow.tracking")
    run, table = _trained(tmp_path / "run", "mlflow")
    client = tracking.MlflowClient(f"sqlite:///{run.folder / 'mlflow.db'}")
    (mlflow_run,) = client.search_runs([client.get_experiment_by_name("cxr-compare").experiment_id])
    assert (mlflow_run.info.run_name, mlflow_run.info.status) == ("run", "FINISHED")
    assert mlflow_run.data.params["training/epochs"] == "3"
    losses = client.get_metric_history(mlflow_run.info.run_id, "val_loss")
    assert [metric.step for metric in losses] == [5, 11, 17]  # each once
    assert [m.value for m in losses] == pytest.approx(table["val_loss"].tolist(), rel=1e-5)


def _wandb_records(file: Path) -> Iterator[Any]:
    """The records of a `.wandb` file: a LevelDB log of protocol buffers in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    content, position, record = file.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:  # no head fits into the rest of the block
            position += 32768 - position % 32768
            continue
        length, kind = (
            int.from_bytes(content[position + 4 : position + 6], "little"),
            content[position + 6],
        )
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


@pytest.mark.filterwarnings("default")  # of wandb's own libraries
def test_wandb_writes_offline_into_one_run_and_names_no_folder(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run, table = _trained(tmp_path / "run", "wandb")
    assert wandb.run is None  # the next training of this process begins its own
    (file,) = (run.folder / "wandb").glob("offline-run-*/*.wandb")
    records = list(_wandb_records(file))
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
        for items in (record.history.item for record in records)
        if items
    ]
    losses = [row["val_loss"] for row in rows if "val_loss" in row]
    assert losses == pytest.approx(table["val_loss"].tolist(), rel=1e-5)
    assert [(r.run.host, r.run.project) for r in records if r.run.run_id] == [("", "cxr-compare")]
    for path in (str(tmp_path), sys.executable):
        assert path.encode() not in file.read_bytes()
