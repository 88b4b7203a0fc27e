"""What is unfrozen later is settled at each epoch, and refused where devices share a batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from data_prep.contracts.errors import InputError
from training.optimisation import Unfreezing


def test_each_epoch_is_settled_once_it_begins_or_is_resumed() -> None:
    settled: list[int] = []
    callback = Unfreezing(settled.append)
    trainer: Any = SimpleNamespace(world_size=1, current_epoch=3)
    callback.on_train_start(trainer, None)
    trainer.current_epoch = 4
    callback.on_train_epoch_start(trainer, None)
    assert settled == [3, 4]


def test_several_devices_are_refused_before_anything_is_settled() -> None:
    settled: list[int] = []
    trainer: Any = SimpleNamespace(world_size=2, current_epoch=0)
    with pytest.raises(InputError, match="parts cannot be unfrozen while several devices share"):
        Unfreezing(settled.append).on_train_start(trainer, None)
    assert settled == []
