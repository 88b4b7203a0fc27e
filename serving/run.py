"""A run that was trained: what its training says, and its answers, for which it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.contracts.folders import read_json
from evaluation.decisions.decision import Decision
from serving.answer import Answer, LoadedRun
from serving.backends import is_export
from serving.trained_model import Precision
from training.run_folder import RunFolder


@dataclass
class Run:
    """A complete run, or an export of one; its model is loaded for the first image.

    Attributes:
        folder: Where it lies.
        device: ``auto``, ``cpu`` or ``cuda``: what it answers on.
        precision: What it computes in; an export has its own.
        next_steps: Commands that usually follow.

    Example:
        >>> Run.open("no-such-folder")
        Traceback (most recent call last):
        ...
        data_prep.store.folder_kinds.WrongFolderError: no-such-folder: no such folder; ...
    """

    folder: Path
    device: str = "auto"
    precision: Precision = "fp32"
    next_steps: tuple[str, ...] = ()

    @classmethod
    def open(
        cls, folder: str | Path, *, device: str = "auto", precision: Precision = "fp32"
    ) -> Run:
        """Open a complete run or export.

        Raises:
            InputError: There is none, or its training has not ended.
        """
        folder = Path(folder)
        if not is_export(folder):
            folder = RunFolder.open(folder).folder
        return cls(folder, device, precision)

    @cached_property
    def system(self) -> LoadedRun:
        """The run with its model, its decision and its guard."""
        return LoadedRun.open(self.folder, device=self.device, precision=self.precision)

    def __str__(self) -> str:
        return repr(self) if is_export(self.folder) else str(RunFolder(self.folder))

    def __repr__(self) -> str:
        loaded = self.__dict__.get("system")
        if loaded is None and not is_export(self.folder):
            return repr(RunFolder(self.folder)).replace("RunFolder", "Run")
        return repr(loaded or self.folder).replace("LoadedRun", "Run")

    def to_dict(self) -> dict[str, Any]:
        """What ``run.json`` says, or ``export.json``."""
        if is_export(self.folder):
            return read_json(self.folder / "export.json", "export")
        return RunFolder(self.folder).info

    @property
    def decision(self) -> Decision | None:
        """What validation images chose; `None` where nothing could be chosen."""
        return self.system.decision

    def predict(self, image: str | Path | np.ndarray) -> Answer:
        """Answer for one image; as `LoadedRun.predict`."""
        return self.system.predict(image)

    def predict_many(self, images: Iterable[str | Path | np.ndarray]) -> Iterator[Answer]:
        """Answer for images one after another, in their order."""
        return self.system.predict_many(images)
