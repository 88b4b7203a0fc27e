"""The peak of memory counts a model and its work, and nothing that was there before."""

import sys

import numpy as np
import pytest
from torch import nn

from cxr_compare.serving.peak_memory import PeakMemory

MIB = 1 << 20


def touch(mib: int) -> None:
    """Hold so much memory for a moment."""
    np.ones(mib * MIB, dtype=np.uint8).sum()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of peaks")
@pytest.mark.parametrize(
    ("before", "weights", "during", "low", "high", "why"),
    [
        (0, 0, 96, 90, 130, "what was freed again counts"),
        (96, 0, 0, 0, 30, "what an earlier model needed does not"),
        (0, 32, 0, 32, 60, "weights that were there before count"),
    ],
)
def test_peak_memory_is_of_the_weights_and_of_what_is_done(before, weights, during, low, high, why):
    touch(before)
    model = nn.Linear(max(2, weights * MIB // 8), 2)
    watch = PeakMemory(model)
    touch(during)
    assert low * MIB <= watch.read() < high * MIB, why


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of peaks")
def test_images_that_are_mapped_into_memory_do_not_count(tmp_path):
    np.save(tmp_path / "shard.npy", np.ones(96 * MIB, dtype=np.uint8))
    watch = PeakMemory(nn.Linear(2, 2))
    shard = np.load(tmp_path / "shard.npy", mmap_mode="r")
    assert shard.sum() == 96 * MIB
    assert watch.read() < 30 * MIB


def test_where_the_system_does_not_tell_the_peak_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "cxr_compare.serving.peak_memory._CLEAR_REFS", tmp_path / "absent" / "clear_refs"
    )
    assert PeakMemory(nn.Linear(2, 2)).read() is None
