"""Costs are counted as stated, and measuring leaves the model as it was."""

import torch
from torch import nn

from cxr_compare.networks.cost import count_flops, count_parameters, measure_latency


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
    net.norm.eval()  # a frozen part
    assert count_flops(net, 16) == 2 * 16 * 16 * 4 * 9
    assert net.training
    assert not net.norm.training


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
