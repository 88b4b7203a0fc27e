"""The greatest memory is that of the work, not of what the process did before."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from training.cost import PeakMemory

MIB = 1 << 20
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of peaks")


def touch(mib: int) -> None:
    """Hold so much memory for a moment."""
    np.ones(mib * MIB, dtype=np.uint8).sum()


@on_linux
def test_memory_that_was_freed_again_counts() -> None:
    watch = PeakMemory(nn.Linear(2, 2))
    touch(96)
    seen = watch.read()
    assert seen is not None
    assert 90 * MIB < seen < 130 * MIB


@on_linux
def test_what_an_earlier_model_needed_does_not_count_for_the_next() -> None:
    touch(96)
    seen = PeakMemory(nn.Linear(2, 2)).read()
    assert seen is not None
    assert seen < 30 * MIB


@on_linux
def test_weights_that_were_there_before_count() -> None:
    model = nn.Linear(4 * MIB, 2)  # 32 MiB
    seen = PeakMemory(model).read()
    assert seen is not None
    assert 32 * MIB <= seen < 60 * MIB


@on_linux
def test_pictures_that_are_mapped_into_memory_do_not_count(tmp_path: Path) -> None:
    np.save(tmp_path / "shard.npy", np.ones(96 * MIB, dtype=np.uint8))
    watch = PeakMemory(nn.Linear(2, 2))
    shard = np.load(tmp_path / "shard.npy", mmap_mode="r")
    assert shard.sum() == 96 * MIB
    seen = watch.read()
    assert seen is not None
    assert seen < 30 * MIB


def test_where_the_system_does_not_tell_the_peak_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("training.cost._FORGET", tmp_path / "absent" / "clear_refs")
    assert PeakMemory(nn.Linear(2, 2)).read() is None
