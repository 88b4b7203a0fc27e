"""Costs are counted as stated, and measuring leaves the model as it was."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from training.cost import PeakMemory, count_flops, count_parameters, measure_latency


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


def test_flops_count_two_for_each_multiply_and_add():
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
    assert 0 < latency.low_ms <= latency.median_ms <= latency.high_ms
    assert latency.repeats == 5
    assert "threads" in latency.device
    assert net.training


MIB = 1 << 20
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of peaks")


def touch(mib: int) -> None:
    """Hold so much memory for a moment."""
    np.ones(mib * MIB, dtype=np.uint8).sum()


@on_linux
def test_memory_that_was_freed_again_counts():
    watch = PeakMemory(nn.Linear(2, 2))
    touch(96)
    seen = watch.read()
    assert seen is not None
    assert 90 * MIB < seen < 130 * MIB


@on_linux
def test_what_an_earlier_model_needed_does_not_count_for_the_next():
    touch(96)
    seen = PeakMemory(nn.Linear(2, 2)).read()
    assert seen is not None
    assert seen < 30 * MIB


@on_linux
def test_weights_that_were_there_before_count():
    model = nn.Linear(4 * MIB, 2)  # 32 MiB
    seen = PeakMemory(model).read()
    assert seen is not None
    assert 32 * MIB <= seen < 60 * MIB


@on_linux
def test_images_that_are_mapped_into_memory_do_not_count(tmp_path):
    np.save(tmp_path / "shard.npy", np.ones(96 * MIB, dtype=np.uint8))
    watch = PeakMemory(nn.Linear(2, 2))
    shard = np.load(tmp_path / "shard.npy", mmap_mode="r")
    assert shard.sum() == 96 * MIB
    seen = watch.read()
    assert seen is not None
    assert seen < 30 * MIB


def test_where_the_system_does_not_tell_the_peak_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr("training.cost._FORGET", tmp_path / "absent" / "clear_refs")
    assert PeakMemory(nn.Linear(2, 2)).read() is None
