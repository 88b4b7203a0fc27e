"""What is trained: a model with its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from configs.settings import ClassifierConfig, DetectorConfig
from data_prep.contracts.errors import InputError
from training.loop import Task

if TYPE_CHECKING:
    from data_prep.augment.mosaic import DroppedBoxes
    from training.starting_weights import Start

Config = DetectorConfig | ClassifierConfig


class ImageRows(Protocol):
    """A data set of torch whose rows are images."""

    image_ids: pd.Index

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, key: Any) -> Any:
        """One sample, by row or by (row, seed)."""


class TrainingTask(Task, Protocol):
    """A model, its images, and its ways to learn and to be measured.

    Attributes:
        findings: What it learns to find, in the order of its outputs.
        positive: Which training images have a finding, bool, shape ``(len(train),)``.
        draw_weights: How often each training image is drawn, for `SeededSampler`; None: once.
        start: The weights that it starts from; None for random or published ones.
        notes: What to know of its model, a line each.
    """

    findings: tuple[str, ...]
    positive: np.ndarray
    draw_weights: Any
    start: Start | None
    notes: list[str]

    @property
    def train(self) -> ImageRows:
        """Training images; takes ``(row, seed)``."""

    @property
    def val(self) -> ImageRows:
        """Validation images."""

    def collate(self, samples: Sequence[Any]) -> Any:
        """Samples to a batch."""

    def describe(self, batch: Any) -> tuple[list[str], list[np.ndarray] | None]:
        """Captions and boxes for the figure of a batch."""

    def dropped_boxes(self, history: Sequence[dict[str, Any]]) -> DroppedBoxes | None:
        """What became of the training boxes under augmentation; None where none were counted."""


def require_both_kinds(positive: pd.Series, role: str, what: str) -> None:
    """Check that a role has images with and without a finding."""
    if positive.any() and not positive.all():
        return
    lack = "no images" if positive.empty else f"only {'positive' if positive.any() else 'negative'}"
    raise InputError(
        f"split: role '{role}' has {lack}{'' if positive.empty else ' images'} ({what}); "
        "make another split with cxr split"
    )
