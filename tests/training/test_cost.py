"""Costs are counted as stated, and measuring leaves the model as it was."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from cxr_compare.training.cost import count_flops, count_parameters, measure_latency
from cxr_compare.training.peak_memory import PeakMemory


class Net(nn.Module):
    """One convolution whose cost can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.calls = 0

    def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        assert images.dtype == torch.uint8
        assert not self.training
        self.calls += 1
        return [{"maps": self.norm(self.conv(images.float()))}]


def test_flops_count_two_a_multiply_and_add():
    net = Net()
    assert count_flops(net, 16) == 2 * 16 * 16 * 4 * 9
    assert net.training


def test_parameters_are_counted_in_all_and_those_that_learn():
    net = Net()
    net.conv.requires_grad_(False)
    assert count_parameters(net) == (36 + 8, 8)


def test_latency_is_of_single_images_after_a_warm_up():
    net = Net()
    images = torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
    latency = measure_latency(net, 16, repeats=5, images=images)
    assert net.calls == 3 + 5
    assert 0 < latency["latency_low_ms"] <= latency["latency_ms"] <= latency["latency_high_ms"]
    assert "thread" in latency["latency_device"]
    assert net.training


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
        "cxr_compare.training.peak_memory._CLEAR_REFS", tmp_path / "absent" / "clear_refs"
    )
    assert PeakMemory(nn.Linear(2, 2)).read() is None
