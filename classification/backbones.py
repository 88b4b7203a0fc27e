"""The convolutional trunks that a classifier may stand on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import vgg

from classification.receptive_field import trace_grid
from data_prep.contracts.errors import InputError
from networks.published import build_network, find_network
from networks.registry import TIMM, Family

_STRIDES = (16, 32)
_TOPS = ("avgpool", "fc", "dropout", "AuxLogits")


class _PooledNorm(nn.Module):
    """A layer norm of pooled features, done to the maps before they are pooled.

    Its statistics are those of the pooled maps, so pooling its output is norming the pooled maps;
    class activation maps stay exact.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        plain = nn.LayerNorm(channels)
        self.weight, self.bias, self.eps = plain.weight, plain.bias, eps

    def forward(self, maps: Tensor) -> Tensor:
        """Norm float (B, C, h, w); the same shape."""
        pooled = maps.float().mean(dim=(2, 3))  # (B, C)
        spread = (pooled.var(dim=1, correction=0) + self.eps).rsqrt()[:, None, None, None]
        middle = pooled.mean(dim=1)[:, None, None, None]
        return (maps - middle) * spread * self.weight[:, None, None] + self.bias[:, None, None]


def _densenet(name: str, finer: bool) -> nn.Module:
    features = build_network(name).get_submodule("features")
    if finer:
        features.get_submodule("transition3").pool = nn.Identity()
    return features


def _resnet(name: str, finer: bool) -> nn.Module:
    network = build_network(name)
    if finer:
        first = network.get_submodule("layer4.0")
        strided = [m for m in first.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
        for layer in strided:  # one in the block, one beside it
            layer.stride = (1, 1)
    return _without_top(network)


def _inception(name: str, finer: bool) -> nn.Module:
    return _without_top(build_network(name, aux_logits=False, init_weights=True))


def _without_top(network: nn.Module) -> nn.Module:
    """ResNet and Inception have their layers at their top, in the order of the forward."""
    kept = [(name, layer) for name, layer in network.named_children() if name not in _TOPS]
    return nn.Sequential(OrderedDict(kept))


def _features(name: str, finer: bool) -> nn.Module:
    """MobileNet and EfficientNet halve by one convolution; at stride 1 padding is symmetric."""
    features = build_network(name).get_submodule("features")
    if finer:
        [*_, last] = [m for m in features.modules() if isinstance(m, nn.Conv2d) and m.stride[0] > 1]
        last.stride = (1, 1)
    return features


def _vgg(name: str, finer: bool) -> nn.Module:
    # Not by the whole network, whose first linear layer alone is 400 MB that nothing here reads.
    depth = {"vgg16": "D", "vgg19": "E"}[name.removesuffix("_bn")]
    features = vgg.make_layers(vgg.cfgs[depth], batch_norm=name.endswith("_bn"))
    for layer in features:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:  # as torchvision starts them
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    if finer:
        features[-1] = nn.Identity()
    return features


def _convnext(name: str, finer: bool) -> nn.Module:
    network = build_network(name)
    norm = cast("nn.LayerNorm", network.get_submodule("classifier.0"))
    layers = list(network.get_submodule("features").named_children())
    return nn.Sequential(
        OrderedDict([*layers, ("norm", _PooledNorm(norm.normalized_shape[0], norm.eps))])
    )


def _small_cnn(name: str, finer: bool) -> nn.Module:
    """Five blocks of convolution, rectifier, dropout, batch norm and pooling."""
    blocks: list[tuple[str, nn.Module]] = []
    before = 3
    for width, dropout in ((32, 0.0), (64, 0.1), (64, 0.0), (128, 0.2), (256, 0.2)):
        last = finer and len(blocks) == 4
        parts: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(before, width, 3, padding=1)),
            ("relu", nn.ReLU(inplace=True)),
            ("dropout", nn.Dropout(dropout)),
            ("norm", nn.BatchNorm2d(width)),
            ("pool", nn.Identity() if last else nn.MaxPool2d(2)),
        ]
        blocks.append((f"block{len(blocks) + 1}", nn.Sequential(OrderedDict(parts))))
        before = width
    return nn.Sequential(OrderedDict(blocks))


# Takes the network's name, and whether to leave out the last halving, which moves no weight.
_BUILDERS: dict[Family, Callable[[str, bool], nn.Module]] = {
    "densenet": _densenet,
    "resnet": _resnet,
    "inception": _inception,
    "mobilenet": _features,
    "efficientnet": _features,
    "efficientnet_lite": _features,
    "vgg": _vgg,
    "convnext": _convnext,
    "squeezenet": lambda name, finer: build_network(name).get_submodule("features"),
    "small_cnn": _small_cnn,
    "timm": lambda name, finer: build_network(name, global_pool=""),
}
RENAMED: dict[Family, dict[str, str]] = {"convnext": {"classifier.0.": "norm."}}
"""Beginnings of names in torchvision's whole network that are others in a trunk, by family."""
_PROBE = 128  # px: every network here takes it


@dataclass(frozen=True)
class Trunk:
    """A convolutional network without its classification layer."""

    layers: nn.Module  # maps float (B, 3, S, S) to float (B, channels, h, w)
    channels: int  # of the last maps
    stride: int  # input px from one cell of the last maps to the next
    centre: float  # px from the left or upper edge to the middle of what the first cell sees
    rectify: bool = False  # whether a rectifier follows that is no layer of the network
    tiles: bool = False  # whether cells tile the image, whatever the arithmetic of padding says


def build_trunk(name: str, last_stride: int, image_size: int = _PROBE) -> Trunk:
    """Build a network without its classifier, with random weights."""
    network = find_network(name, "classifier")
    if last_stride not in _STRIDES:
        raise InputError(f"last_stride: expected 16 or 32, but got {last_stride}")
    if network.strides and last_stride not in network.strides:
        raise InputError(
            f"last_stride: {name} has cells of {network.strides[0]} px only; set model.last_stride "
            f"= {network.strides[0]}"
        )
    if image_size < network.min_size:
        raise InputError(
            f"{name}: needs images of at least {network.min_size} px, but gets {image_size}; set "
            "data.image_size"
        )
    layers = _BUILDERS[network.family](name, last_stride == 16)
    try:
        grid, channels, _ = trace_grid(layers, image_size, whole=network.fixed_size is not None)
    except InputError as error:
        raise InputError(f"{name}: {error}; choose a convolutional network") from None
    except Exception as error:  # networks of one size say so by errors of many kinds
        if not name.startswith(TIMM):
            raise
        raise _other_size(name, layers, image_size, network.fixed_size, _reason(error)) from None
    if grid.stride != last_stride:
        raise InputError(
            f"last_stride: {name} has cells of {grid.stride} px, not {last_stride}"
            + (f"; set model.last_stride = {grid.stride}" if grid.stride in _STRIDES else "")
        )
    # The rectifier behind DenseNet's last norm is no layer of it.
    rectify = network.family == "densenet"
    # EfficientNet-Lite pads to the right and below, half a cell in all; its published weights make
    # up for it: maps of mirrored images are mirrored where the cells tile the image.
    tiles = network.family == "efficientnet_lite"
    centre = grid.stride / 2 if tiles else grid.centre
    return Trunk(layers, channels, grid.stride, centre, rectify, tiles)


def _other_size(
    name: str, layers: nn.Module, image_size: int, takes: int | None, reason: str
) -> InputError:
    """The line for images of a size that a network does not take."""
    if takes is None or takes == image_size:
        return InputError(
            f"{name}: cannot read images of {image_size} px ({reason}); choose another "
            "data.image_size, or another network"
        )
    told = f"{name}: takes images of {takes} px only, but gets {image_size}"
    try:
        trace_grid(layers, takes, whole=True)
    except InputError as error:  # else its user would be sent from one error to the next
        return InputError(f"{told}, and {error}; choose a convolutional network")
    if takes % 32:
        return InputError(f"{told}, and no pixel store has {takes}; choose another network")
    return InputError(f"{told}; set data.image_size = {takes}")


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


@cache
def trunk_stages(name: str) -> tuple[tuple[str, ...], ...]:
    """Names of a trunk's children in stages: each begins where the maps get smaller.

    A child without weights belongs to the stage before.
    """
    with torch.random.fork_rng(devices=()):
        network = find_network(name, "classifier")
        layers = _BUILDERS[network.family](name, False)
    size, whole = network.fixed_size or _PROBE, network.fixed_size is not None
    stages: list[list[str]] = [[]]
    last = 0
    for child, stride in trace_grid(layers, size, whole=whole)[2].items():
        learns = any(True for _ in layers.get_submodule(child).parameters())
        if stride > last and learns and last:
            stages.append([])
        last = stride if learns else last
        stages[-1].append(child)
    return tuple(tuple(stage) for stage in stages)
