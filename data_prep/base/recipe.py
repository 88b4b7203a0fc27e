"""The recipe of a training, which its predictions keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from cxr_compare.data_prep.base.records import Record


class Recipe(Record):
    """Settings and facts of a training, and the square by which its network predicts.

    Attributes:
        network: Name of the trunk, or words for a network of the user's own.
        size: Side of the square that it sees, in px.
        start: Name of the start weights.
        monitor: Figure by which the kept epoch was chosen; ``epoch`` for the last.
        config: Sections of the configuration, without folders of the user.
    """

    network: str
    size: int
    start: str
    model_kind: str
    n_train: int
    n_val: int
    n_boxes: int | None
    epochs: int
    monitor: str
    best_epoch: int
    synthetic: bool
    config: dict[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self | None:
        """Return the recipe in the record of a system, which other software has not."""
        stored = record.get("recipe")
        return cls(**stored) if stored else None
