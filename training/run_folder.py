"""The folder that a training writes. It is resumable at any time, and complete with `run.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.configs.load import first_difference, parse_config
from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.checksums import file_digest, require_unchanged
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.data_prep.store.prediction_info import MadeOn
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.networks.model_files import WEIGHTS_FILE
from cxr_compare.training.run_info import RunInfo, StartedRun

_CONFIG = "config.toml"
_STARTED = "started.json"
_RUN = "run.json"
_SEEN = "seen.parquet"

Row = dict[str, Any]
"""Losses, metrics and learning rate of an epoch by name: a row of ``metrics.csv``."""


def metrics_of(row: Row) -> dict[str, float]:
    """Return those figures of an epoch that measure the model, without losses and the rate.

    Example:
        >>> metrics_of({"epoch": 1, "train_loss": 0.7, "auroc": 0.8, "learning_rate": 0.1})
        {'auroc': 0.8}
    """
    return {
        name: value
        for name, value in row.items()
        if name not in ("epoch", "learning_rate") and not name.startswith(("train_", "val_"))
    }


@dataclass(frozen=True)
class RunFolder:
    """The folder of a training (a run): configuration, used images, metrics and weights."""

    folder: Path

    def __repr__(self) -> str:
        if not self.is_complete:
            return f"<RunFolder: its training has not ended, {self.folder}>"
        info = self.info
        if info.penalties is not None:
            return f"<RunFolder of '{info.name}': probe of {info.target}, {self.folder}>"
        kept = f"{info.model_kind} of {info.target}, epoch {info.best_epoch} kept"
        return f"<RunFolder of '{info.name}': {kept}, {self.folder}>"

    def __str__(self) -> str:
        """Return a summary of a complete training: best epoch, metric, and paths of the figures."""
        info = self.info
        if info.penalties is not None:
            figure = self.folder / "curves.png"
            return f"{_probe_line(info)}\nRun:      {self.folder}\nFigures:  {figure}"
        if info.monitor == "epoch":  # the last epoch counts as the best, or images are too few
            kept = f"Kept the weights of the last epoch, {info.best_epoch}"
        else:
            kept = (
                f"Best epoch {info.best_epoch} of {info.epochs}: {info.monitor} "
                f"{info.best_value:.3f} on validation"
            )
        figures = f"{self.folder / 'curves.png'}  {self.folder / 'batch.png'}"
        return f"{kept}\nRun:      {self.folder}\nFigures:  {figures}"

    @classmethod
    def create(
        cls, folder: str | Path, *, config: str, seen: pd.DataFrame, started: StartedRun
    ) -> RunFolder:
        """Start a training in a new or empty folder.

        The folder is made if necessary. `config` is complete, in TOML. `seen` has ``image_id,
        patient_id, role`` of the images that the training uses, where the role is ``train``
        (learned from) or ``val`` (used to select the weights). `started` must be unchanged when the
        training is resumed. Raises InputError if the folder holds another training or other files.
        """
        folder = Path(folder)
        cls.require_free(folder)
        run = cls(folder)
        make_folder(run.checkpoints)
        files = {_SEEN: write_table(seen, folder / _SEEN, "seen")}
        started.with_values(files=files, **provenance()).write(folder / _STARTED)
        write_text(run.config_file, config)
        return run

    @staticmethod
    def require_free(folder: str | Path) -> None:
        """Raise InputError if a folder holds a training or other files."""
        folder = Path(folder)
        if (folder / _CONFIG).exists():
            raise InputError(
                f"{folder}: holds a run already; the same cxr train goes on with it; or choose "
                "another --out"
            )
        # A start that was interrupted before its last file left only these: it may start again.
        require_only_files(folder, {"checkpoints", _SEEN, _STARTED}, "run")

    @classmethod
    def started_in(cls, folder: str | Path) -> RunFolder | None:
        """Return the training that was started in a folder, ended or not; None if there is none."""
        folder = Path(folder)
        return cls(folder) if (folder / _CONFIG).is_file() else None

    @classmethod
    def open(cls, folder: str | Path) -> RunFolder:
        """Open the folder of a training that has ended.

        Raises InputError if there is no training in the folder, or it has not ended.
        """
        run = cls.started_in(folder)
        if run is None:
            require_kind(Path(folder), "run")
            raise InputError(f"{folder}: holds no {_CONFIG}; give a folder that cxr train made")
        if not run.is_complete:
            best = max(run.checkpoints.glob("best-*.safetensors"), default=None)
            start = "" if best is None else f", or start another with --set model.weights={best}"
            raise InputError(
                f"{folder}: this training has not ended (no {_RUN}); run the same cxr train "
                f"again to go on{start}"
            )
        return run

    @property
    def is_complete(self) -> bool:
        """True if the training ended and the weights are in place."""
        return (self.folder / _RUN).is_file()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoint files, from which an interrupted training is resumed."""
        return self.folder / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """Path of the checkpoint of the last complete epoch."""
        return self.checkpoints / "last.ckpt"

    def best_weights(self, epoch: float) -> Path:
        """Return the path of the weights of an epoch that was the best so far.

        Epochs count from 1.
        """
        return self.checkpoints / f"best-{int(epoch):04d}.safetensors"

    @property
    def validation(self) -> Path:
        """Folder with the predictions for validation images, and the decision rule chosen on them.

        The decision rule says how a score becomes a decision, by a threshold, a calibration and
        others.
        """
        return self.folder / "validation"

    def decision_file(self, target: str) -> Path:
        """Return the path of the stored decision rule: thresholds, calibration and further rules.

        The file need not exist.
        """
        return self.validation / "decisions" / f"{target}.json"

    @property
    def config_file(self) -> Path:
        """Path of the file with the complete configuration of the training."""
        return self.folder / _CONFIG

    @property
    def config(self) -> str:
        """Complete configuration of the training as TOML text."""
        if self.is_complete:
            require_unchanged(self.config_file, self.info.files.get(_CONFIG))
        try:
            return self.config_file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.config_file}: {error}; bring back an unchanged copy") from None

    @property
    def started(self) -> StartedRun:
        """Facts that were recorded at the start of the training, such as ids of the data set."""
        return StartedRun.read(self.folder / _STARTED)

    @property
    def info(self) -> RunInfo:
        """Content of ``run.json``: facts about the finished training, such as its best epoch."""
        return RunInfo.read(self.folder / _RUN)

    @property
    def seen(self) -> pd.DataFrame:
        """Table of the images from which the training learned (train) or selected weights (val).

        Its columns are ``image_id``, ``patient_id`` and ``role``. The columns ``pixel_sha256``
        (equal for equal pixels) and ``perceptual_hash`` (similar for copies of an image) serve to
        recognise copies of these images.
        """
        info = self.info if self.is_complete else self.started
        return read_table(self.folder / _SEEN, "seen", files=info.files)

    @property
    def synthetic(self) -> bool:
        """True if the network and its initial weights learned from synthetic images only."""
        info = self.info if self.is_complete else self.started
        return info.synthetic

    def write_history(self, rows: Sequence[Row]) -> None:
        """Write ``metrics.csv``, with a row of losses, metrics and learning rate for each epoch."""
        write_csv(pd.DataFrame(list(rows)), self.folder / "metrics.csv", float_format="%.6g")

    def complete(self, **facts: Any) -> None:
        """Write ``run.json``, whose presence marks the training as complete.

        `facts` are values of `RunInfo` in addition to those that `create` recorded.
        """
        started = self.started
        values = {name: getattr(started, name) for name in started.model_fields_set}
        names = [name for name in (_CONFIG, WEIGHTS_FILE) if (self.folder / name).is_file()]
        files = {name: file_digest(self.folder / name, "sha256") for name in names}
        info = RunInfo(**{**values, **facts, "files": {**started.files, **files}})
        info.write(self.folder / _RUN)

    def require_weights(self) -> None:
        """Check that the weights of a complete training are those that it wrote."""
        digest = self.info.files.get(WEIGHTS_FILE)
        require_unchanged(self.folder / WEIGHTS_FILE, digest)


def _probe_line(info: RunInfo) -> str:
    """Return the summary of a probe: the figures of its penalties on validation."""
    names = {"auroc": "AUROC", "average_precision": "average precision"}
    figures = [
        f"{names.get(name, name)} {value:.3f}"
        for name, value in info.best_figures.items()
        if value is not None
    ]
    penalties = ", ".join(f"{value:g}" for value in (info.penalties or {}).values())
    return f"Probe with penalty {penalties}: {', '.join(figures) or 'no figure'} on validation"


def is_ended(settings: Config, dataset: DataSet, run: RunFolder, progress: Progress) -> bool:
    """Return True if nothing is left to train; refuse what cannot be started or resumed."""
    if RunFolder.started_in(run.folder) is None:
        RunFolder.require_free(run.folder)
        return False
    before = parse_config(run.config, str(run.config_file))
    difference = first_difference(resumable(before, settings), settings)
    if difference:
        raise InputError(
            f"{run.folder}: cannot be resumed with another configuration: {difference}; give the "
            "old value, or choose another --out"
        )
    began_on = run.started.data_set
    now = made_on(settings, dataset)
    for key in MadeOn.model_fields:
        if getattr(began_on, key, None) != getattr(now, key):
            raise InputError(
                f"{run.folder}: cannot be resumed with other data: {key} was "
                f"'{getattr(began_on, key, None)}', is now '{getattr(now, key)}'; give the old "
                "--data, or choose another --out"
            )
    if run.is_complete:
        progress.say(f"{run.folder}: this training has ended before")
    return run.is_complete


def resumable(before: Config, now: Config) -> Config:
    """Return a stored configuration with those new settings that change no figure."""
    keys = [key for key in ("workers", "loggers") if key in type(before.training).model_fields]
    changed: dict[str, Any] = {
        key: getattr(now.training, key, getattr(before.training, key)) for key in keys
    }
    return before.model_copy(update={"training": before.training.model_copy(update=changed)})


def made_on(settings: Config, dataset: DataSet) -> MadeOn:
    """Return the digests of a data set and its split, which a resumed training must find again."""
    split = settings.data.split
    dataset.split(split)  # refuses a name that it does not have
    ids = dataset.ids
    return MadeOn(
        name=dataset.name,
        content_id=ids.content_id,
        labels_id=ids.labels_id,
        split=split,
        split_id=ids.split_ids[split],
    )
