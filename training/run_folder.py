"""Folder of a training: complete when ``run.json`` is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.configs.load import first_difference, parse_config
from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import (
    file_digest,
    make_folder,
    named_file,
    require_unchanged,
    write_text,
)
from cxr_compare.data_prep.base.folders import folder_state, require_folder, require_writable
from cxr_compare.data_prep.base.provenance import provenance
from cxr_compare.data_prep.base.tables import read_table, write_table
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.predictions import SEEN_FILE, MadeOn
from cxr_compare.training.run_info import (
    MODEL_FILE,
    PREPROCESS_FILE,
    WEIGHTS_FILE,
    RunInfo,
    StartedRun,
)

_CONFIG = "config.toml"
_STARTED = "started.json"
_HISTORY = "metrics.csv"
_RUN = "run.json"
_NAMED = (
    *(_CONFIG, WEIGHTS_FILE, MODEL_FILE, PREPROCESS_FILE),
    *(_HISTORY, "batch.png", "curves.png"),
)
"""Files that ``run.json`` names beside the table of the images."""
Row = dict[str, Any]
"""Losses, figures and learning rate of an epoch: a row of ``metrics.csv``."""


def figures_of(row: Row) -> dict[str, float]:
    """Return the figures on validation among the columns of an epoch."""
    others = ("epoch", "learning_rate")
    return {
        name: value
        for name, value in row.items()
        if name not in others and not name.startswith(("train_", "val_"))
    }


@dataclass(frozen=True)
class RunFolder:
    """Files of one training."""

    folder: Path

    @classmethod
    def create(
        cls, folder: Path, *, config: str, seen: pd.DataFrame, started: StartedRun
    ) -> RunFolder:
        """Begin a training in a free folder; its configuration is written last."""
        run = cls(folder)
        require_writable(folder, "run")
        make_folder(run.checkpoints)
        files = {SEEN_FILE: write_table(seen, folder / SEEN_FILE, "seen")}
        started.with_values(files=files, **provenance()).write(folder / _STARTED)
        write_text(run.config_file, config)
        return run

    @classmethod
    def started_in(cls, folder: Path) -> RunFolder | None:
        """Return the training that was started in a folder, ended or not; None without one."""
        return cls(folder) if (folder / _CONFIG).is_file() else None

    @classmethod
    def around(cls, weights: Path) -> RunFolder | None:
        """Return the training whose folder, or file of weights, this is; None of no training."""
        home = weights.resolve()
        if weights.is_file():
            home = home.parent.parent if home.parent.name == "checkpoints" else home.parent
        return cls.started_in(home)

    @classmethod
    def open(cls, folder: Path | str) -> RunFolder:
        """Open the folder of a training that has ended."""
        run = cls.started_in(Path(folder))
        if run is None:
            require_folder(Path(folder), "run")
            raise InputError(f"{folder}: holds no {_CONFIG}; give a folder that cxr train made")
        if not run.is_complete:
            raise InputError(f"{folder}: this training has not ended; the same cxr train goes on")
        return run

    @property
    def is_complete(self) -> bool:
        """True if the training has ended."""
        return folder_state(self.folder, "run") == "finished"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """Checkpoint of the last whole epoch."""
        return self.checkpoints / "last.ckpt"

    def best_weights(self, epoch: float) -> Path:
        """Return the path of the weights of an epoch, from 1, that was the best so far."""
        return self.checkpoints / f"best-{int(epoch):04d}.safetensors"

    @property
    def config_file(self) -> Path:
        """File with the configuration of the training."""
        return self.folder / _CONFIG

    @property
    def config(self) -> Config:
        """Configuration of the training."""
        if self.is_complete:
            require_unchanged(self.config_file, self.info.files.get(_CONFIG))
        return parse_config(self.config_file.read_text(encoding="utf-8"), str(self.config_file))

    @property
    def started(self) -> StartedRun:
        """Record of the start of the training."""
        return StartedRun.read(self.folder / _STARTED)

    @property
    def info(self) -> RunInfo:
        """Record of the finished training."""
        return RunInfo.read(self.folder / _RUN)

    @property
    def seen(self) -> pd.DataFrame:
        """Images from which the training learned (train), or chose its weights by (val)."""
        files = (self.info if self.is_complete else self.started).files
        return read_table(self.folder / SEEN_FILE, "seen", files=files)

    def write_history(self, rows: Sequence[Row]) -> None:
        """Write ``metrics.csv``, a row an epoch."""
        write_csv(pd.DataFrame(list(rows)), self.folder / _HISTORY, float_format="%.6g")

    def complete(self, **facts: Any) -> None:
        """Write ``run.json``, which marks the training as ended."""
        started = self.started
        values = {name: getattr(started, name) for name in started.model_fields_set}
        paths = [self.folder / name for name in _NAMED]
        files = {path.name: file_digest(path) for path in paths if path.is_file()}
        info = RunInfo(**{**values, **facts, "files": {**started.files, **files}})
        info.write(self.folder / _RUN)

    def name_files(self, *names: str) -> None:
        """Name further files of a training that has ended in ``run.json``."""
        info = self.info
        files = {name: file_digest(self.folder / name) for name in names}
        info.with_values(files={**info.files, **files}).write(self.folder / _RUN)

    def has(self, name: str) -> bool:
        """Return True if a file is there that ``run.json`` names; one that is changed is refused.

        A file that was lost, or that a stopped call left unnamed, is made again.
        """
        files = self.info.files
        is_there = name in files and (self.folder / name).is_file()
        return is_there and named_file(self.folder, name, files) is not None

    def require_same(
        self, settings: Config, dataset: DataSet, own_parts: Sequence[str] = ()
    ) -> None:
        """Refuse to go on with another configuration, on other data, or without own parts."""
        before, workers = self.config, settings.training.workers
        same = before.training.model_copy(update={"workers": workers})
        difference = first_difference(before.model_copy(update={"training": same}), settings)
        began, continued = self.started.data_set, made_on(settings, dataset)
        for key in MadeOn.model_fields:
            if difference is None and getattr(began, key) != getattr(continued, key):
                difference = f"{key} was {getattr(began, key)}, is now {getattr(continued, key)}"
        parts = [", ".join(names) or "none" for names in (self.started.own_parts, own_parts)]
        if difference is None and parts[0] != parts[1]:
            difference = f"own arguments were {parts[0]}, are now {parts[1]}"
        if difference:
            further = f" (model.weights={self.folder} begins with its weights)"
            raise InputError(
                f"{self.folder}: holds a training with other settings: {difference}; give the old "
                f"value, or choose another folder{further if self.is_complete else ''}"
            )


def made_on(settings: Config, dataset: DataSet) -> MadeOn:
    """Return the digests of a data set and its split."""
    split, ids = settings.data.split, dataset.ids
    dataset.split(split)  # refuses a name that it does not have
    return MadeOn(
        name=dataset.name,
        content_id=ids.content_id,
        labels_id=ids.labels_id,
        split=split,
        split_id=ids.split_ids[split],
    )
