"""The folder that a training writes: resumable at any time, complete once `run.json` is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import LOCK, atomic_path, make_folder, provenance
from data_prep.contracts.tables import read_json, read_table, write_json, write_table

_CONFIG, _STARTED, _RUN = "config.toml", "started.json", "run.json"


@dataclass(frozen=True)
class RunFolder:
    """A run: its configuration, what it saw, its history, checkpoints and weights.

    Args:
        folder: Where it lies.
    """

    folder: Path

    @classmethod
    def create(
        cls, folder: Path, *, config: str, seen: pd.DataFrame, started: dict[str, Any]
    ) -> RunFolder:
        """Start a run.

        Args:
            folder: A new or empty folder.
            config: The resolved configuration, TOML.
            seen: Every image used to fit or to select: ``image_id, patient_id, role``.
            started: What a resumed training must find unchanged, such as the data set's ids.

        Raises:
            InputError: The folder holds something already, or the table breaks a rule.
        """
        cls.require_free(folder)
        run = cls(folder)
        make_folder(run.checkpoints)
        write_table(seen, folder / "seen.parquet", "seen")
        write_json(folder / _STARTED, "started_run", {**started, **provenance()})
        run._write_text(_CONFIG, config)
        return run

    @staticmethod
    def require_free(folder: Path) -> None:
        """Refuse a folder that holds anything.

        Raises:
            InputError: It holds a run, or something else; the message says which.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: a file stands where a folder is needed")
        if (folder / _CONFIG).exists():
            raise InputError(
                f"{folder}: holds a run already; leave out --no-resume to go on with it, or "
                "choose another --out"
            )
        # A start that was interrupted before its last file left only these: it may start again.
        own = {"checkpoints", "seen.parquet", _STARTED, LOCK}
        foreign = [p.name for p in folder.glob("*") if p.name not in own] if folder.is_dir() else []
        if foreign:
            raise InputError(
                f"{folder}: is not empty (it holds '{sorted(foreign)[0]}') and is not a run; "
                "choose another --out"
            )

    @classmethod
    def started_in(cls, folder: Path) -> RunFolder | None:
        """The run that was started in a folder, complete or not; None where there is none."""
        return cls(folder) if (folder / _CONFIG).is_file() else None

    @classmethod
    def open(cls, folder: Path) -> RunFolder:
        """Open a complete run.

        Raises:
            InputError: There is no run, or its training has not ended.
        """
        run = cls.started_in(folder)
        if run is None:
            raise InputError(f"{folder}: holds no run (no {_CONFIG}); give a folder of cxr train")
        if not run.is_complete:
            kept = max(run.checkpoints.glob("best-*.safetensors"), default=None)
            start = "" if kept is None else f", or start another with --set model.weights={kept}"
            raise InputError(
                f"{folder}: this training has not ended (no {_RUN}); run the same cxr train "
                f"again to go on{start}"
            )
        return run

    @property
    def is_complete(self) -> bool:
        """Whether the training ended and the weights are in place."""
        return (self.folder / _RUN).is_file()

    @property
    def checkpoints(self) -> Path:
        """Folder of what a resumed training needs."""
        return self.folder / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """State at the end of the last whole epoch."""
        return self.checkpoints / "last.ckpt"

    def best_weights(self, epoch: int) -> Path:
        """Weights of an epoch that was the best so far."""
        return self.checkpoints / f"best-{epoch:04d}.safetensors"

    @property
    def config_file(self) -> Path:
        """Where the resolved configuration lies."""
        return self.folder / _CONFIG

    @property
    def config(self) -> str:
        """The resolved configuration, TOML."""
        return self.config_file.read_text(encoding="utf-8")

    @property
    def started(self) -> dict[str, Any]:
        """What was recorded at the start."""
        return read_json(self.folder / _STARTED, "started_run")

    @property
    def info(self) -> dict[str, Any]:
        """What was recorded at the end."""
        return read_json(self.folder / _RUN, "run")

    @property
    def seen(self) -> pd.DataFrame:
        """Every image used to fit or to select: ``image_id, patient_id, role``."""
        return read_table(self.folder / "seen.parquet", "seen")

    def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write `metrics.csv`, one row per epoch."""
        with atomic_path(self.folder / "metrics.csv") as temporary:
            pd.DataFrame(list(rows)).to_csv(temporary, index=False, float_format="%.6g")

    def complete(self, payload: dict[str, Any]) -> None:
        """Write `run.json`, which marks the run complete.

        Args:
            payload: Results and settings; what was recorded at the start is added.
        """
        write_json(self.folder / _RUN, "run", {**self.started, **payload})

    def _write_text(self, name: str, text: str) -> None:
        with atomic_path(self.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
