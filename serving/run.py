"""A run that was trained: what its training says, and its answers, for which it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from serving.answer import Answer, LoadedRun
from training.run_folder import RunFolder


@dataclass
class Run:
    """A complete run; its model is loaded when it is first asked about an image.

    Attributes:
        folder: Where it lies.
        device: ``auto``, ``cpu`` or ``cuda``: what it answers on.
        next_steps: Commands that usually follow.
    """

    folder: Path
    device: str = "auto"
    next_steps: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto") -> Run:
        """Open a complete run.

        Raises:
            InputError: There is no run, or its training has not ended.
        """
        return cls(RunFolder.open(folder).folder, device)

    @cached_property
    def loaded(self) -> LoadedRun:
        """The run with its model."""
        return LoadedRun.open(self.folder, device=self.device)

    def __str__(self) -> str:
        return str(RunFolder(self.folder))

    def __repr__(self) -> str:
        return repr(RunFolder(self.folder))

    def to_dict(self) -> dict[str, Any]:
        """What ``run.json`` says."""
        return RunFolder(self.folder).info

    def predict(self, image: str | Path | np.ndarray) -> Answer:
        """Answer for one image; as `LoadedRun.predict`."""
        return self.loaded.predict(image)

    def predict_many(self, images: Iterable[str | Path | np.ndarray]) -> Iterator[Answer]:
        """Answer for images one after another, in their order."""
        return self.loaded.predict_many(images)
