"""Backbones of the classifier: networks without their head, whose output is a feature map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import lcm
from typing import Any, cast

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torchvision.models import vgg

from cxr_compare.classification.feature_grid import Grid, trace_grid
from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.data_prep.contracts.own_parts import own_class, problem_of
from cxr_compare.networks.builders import build_network, feature_layers, find_network, timm_stages
from cxr_compare.networks.layer_shapes import measure_layers
from cxr_compare.networks.registry import NETWORKS

# Children that belong to the head of a network of timm; the head begins with the first of them.
_HEAD_CHILDREN = (
    "global_pool",
    "pre_logits",
    "fc_norm",
    "attn_pool",
    "head_drop",
    "head",
    "classifier",
    "fc",
)
_PROBE_SIZE = 128  # px: every network here reads images of this size


class PooledNorm(nn.Module):
    """A layer norm of pooled features (means over the image), applied to the maps before pooling.

    The layer computes its mean and variance from the pooled maps. Therefore pooling its output
    gives the same values as normalising the pooled maps, and class activation maps stay exact.

    Example:
        >>> norm = nn.LayerNorm(8)
        >>> maps = torch.rand(1, 8, 4, 4)
        >>> pooled_after = PooledNorm(norm)(maps).mean(dim=(2, 3))
        >>> torch.allclose(pooled_after, norm(maps.mean(dim=(2, 3))), atol=1e-5)
        True
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight = norm.weight
        self.bias = norm.bias
        self.eps = norm.eps

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise maps (B, C, h, w) so that their means over cells become layer-normalised."""
        pooled = maps.float().mean(dim=(2, 3))  # (B, C)
        variance = pooled.var(dim=1, correction=0)  # (B,)
        scale = (variance + self.eps).rsqrt()[:, None, None, None]  # (B, 1, 1, 1)
        mean = pooled.mean(dim=1)[:, None, None, None]  # (B, 1, 1, 1)
        return (maps - mean) * scale * self.weight[:, None, None] + self.bias[:, None, None]


def _build_layers(name: str) -> nn.Module:
    """Build the layers of a registered network below its pooling, with random weights."""
    family = NETWORKS[name].family
    if family == "small_cnn":
        return _small_cnn()
    if family == "vgg":
        return _vgg(name)
    network = build_network(name)
    layers = feature_layers(network)
    if family == "densenet":
        # torchvision applies this rectifier as a function, behind `features`.
        layers.add_module("relu5", nn.ReLU())
    if family == "convnext":
        norm = cast("nn.LayerNorm", network.get_submodule("classifier.0"))
        layers.add_module("norm", PooledNorm(norm))
    return layers


def _small_cnn() -> nn.Module:
    """Build five blocks of convolution, rectifier, dropout, batch norm and pooling."""
    widths = (3, 32, 64, 64, 128, 256)
    blocks = nn.Sequential()
    for number, dropout in enumerate((0.0, 0.1, 0.0, 0.2, 0.2)):
        block = nn.Sequential()
        block.add_module("conv", nn.Conv2d(widths[number], widths[number + 1], 3, padding=1))
        block.add_module("relu", nn.ReLU(inplace=True))
        block.add_module("dropout", nn.Dropout(dropout))
        block.add_module("norm", nn.BatchNorm2d(widths[number + 1]))
        block.add_module("pool", nn.MaxPool2d(2))
        blocks.add_module(f"block{number + 1}", block)
    return blocks


def _vgg(name: str) -> nn.Module:
    # The whole network would have a first linear layer of 400 MB that nothing here reads.
    depth = {"vgg16": "D", "vgg19": "E"}[name.removesuffix("_bn")]
    features = vgg.make_layers(vgg.cfgs[depth], batch_norm=name.endswith("_bn"))
    for layer in features:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:  # torchvision's initial values
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return features


def _remove_last_halving(layers: nn.Module) -> None:
    """Keep the size of the maps in the last child that halves them; the weights stay."""
    halving = [
        name
        for name, layer in layers.named_modules()
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
        and layer.stride in (2, (2, 2))
    ]
    last_child = halving[-1].split(".")[0]
    for name in halving:
        if name.split(".")[0] != last_child:
            continue
        # A ResNet's block halves twice: inside, and in the shortcut beside.
        layer = layers.get_submodule(name)
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
        else:
            layers.set_submodule(name, nn.Identity())


class TimmTrunk(nn.Module):
    """A network of the package timm without its last layers; it outputs a grid of feature maps.

    The tokens of a transformer become cells of the grid. The removed last layers are called the
    head. If the head has a norm after the pooling, this norm and its published weights are kept. If
    the head reads a class token, each map has a single cell with the value of this token.

    Raises InputError if the head has a norm that cannot be applied to maps, or timm does not know
    or cannot build the network.

    Attributes:
        size_arguments: Arguments of ``timm.create_model`` for a network that is built for one image
            size, such as ``{"img_size": 384}``; empty if timm's own size is used or any size fits.
        reads_token: True if the head reads a class token instead of the map.
        stride: Distance of neighbouring cells of the map, px of the input, as timm states it.
    """

    size_arguments: dict[str, int]
    reads_token: bool
    stride: int

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        fixed_size = find_network(name, "classifier").fixed_size
        self.size_arguments = {} if fixed_size in (None, image_size) else {"img_size": image_size}
        network: Any = build_network(name, **self.size_arguments)
        norm = getattr(network, "fc_norm", getattr(getattr(network, "head", None), "norm", None))
        self.pooled_norm: nn.Module = nn.Identity()
        if isinstance(norm, nn.LayerNorm):
            self.pooled_norm = PooledNorm(norm)
        elif norm is not None and any(True for _ in norm.parameters()):
            kind = type(norm).__name__
            raise InputError(f"its head norms pooled maps by {kind}, which maps cannot")
        self.reads_token = getattr(network, "global_pool", None) == "token"
        names = [child for child, _ in network.named_children()]
        head_start = min(names.index(head) for head in _HEAD_CHILDREN if head in names)
        for child in names[head_start:]:
            setattr(network, child, nn.Identity())
        self.network = network
        self.stride = network.feature_info[-1]["reduction"]
        self._side = image_size // self.stride

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute maps (B, C, h, w), with the norm of the removed head, from pixels (B, 3, S, S).

        The pixels are normalised by mean and standard deviation.
        """
        output: Tensor = self.network.forward_features(pixels)
        if self.reads_token:
            return output[:, 0, :, None, None]  # (B, C, 1, 1)
        maps: Tensor = self.pooled_norm(self.as_maps(output))
        return maps

    def as_maps(self, output: Tensor) -> Tensor:
        """Convert the output of a timm network to maps with the channels first, (B, C, h, w).

        The output are tokens (B, N, C), of which class tokens before those of the grid are left
        out; or maps with the channels first or last.
        """
        if output.ndim == 3:
            cells = output[:, -(self._side**2) :].transpose(1, 2)  # (B, C, h * w)
            return cells.unflatten(2, (self._side, self._side))
        channels_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        return output.permute(0, 3, 1, 2) if channels_last else output

    def resize_position_embedding(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights whose position embeddings are interpolated to this network's token grid.

        `state` are the weights of the same network for images of any size.
        """
        resized = dict(state)
        own_embedding = getattr(self.network, "pos_embed", None)
        if own_embedding is None:
            return resized
        for key, value in state.items():
            if key.endswith("pos_embed") and value.ndim == own_embedding.ndim == 3:
                n_prefix_tokens = own_embedding.shape[1] - self._side**2
                grid = [self._side, self._side]
                resized[key] = resample_abs_pos_embed(
                    value, grid, num_prefix_tokens=n_prefix_tokens
                )
        return resized

    @property
    def stages(self) -> list[list[nn.Module]]:
        """Layers of the network in stages. After each stage the maps are smaller."""
        *stages, last = timm_stages(self.network)
        return [*stages, [*last, self.pooled_norm]]


@dataclass(frozen=True)
class Trunk:
    """A network without its last (classification) layer, and the geometry of its feature maps.

    `layers` compute maps, float (B, channels, h, w), from normalised pixels, float (B, 3, S, S).
    `grid` has the positions of the cells of these maps.
    """

    layers: nn.Module
    channels: int
    grid: Grid


def build_trunk(name: str, last_stride: int | None, image_size: int = _PROBE_SIZE) -> Trunk:
    """Build a network without its classification layer, with random weights.

    `name` is of `networks.registry.NETWORKS`, ``timm:NAME`` or ``MODULE:NAME``. The stride is the
    distance of neighbouring cells of the last maps in px of the input: 16 removes the last halving
    of the maps; None keeps that of the network, usually 32. Raises InputError if there is no such
    network, the images are too small for it, or it has no maps of this stride.

    Example:
        >>> build_trunk("resnet18", 16, 64).grid
        Grid(stride=16, centre=0.5)
    """
    network = find_network(name, "classifier")
    if image_size < network.min_size:
        smallest = -(-network.min_size // 32) * 32  # sizes of pixel stores are multiples of 32
        raise InputError(
            f"{name}: needs images of at least {network.min_size} px, but gets {image_size}; set "
            f"data.image_size = {smallest}"
        )
    if network.family == "timm":
        trunk = _build_timm_trunk(name, image_size)
    elif network.family == "own":
        trunk = _build_own_trunk(name, image_size)
    else:
        layers = _build_layers(name)
        if last_stride == 16 and network.strides == (16, 32):
            _remove_last_halving(layers)
        grid, channels = trace_grid(layers, image_size)
        if network.family == "efficientnet_lite":
            # It pads to the right and below, by half a cell in all, for which its published
            # weights make up: maps of mirrored images are mirrored if the cells tile the image.
            grid = grid.tiling()
        trunk = Trunk(layers, channels, grid)
    if last_stride not in (None, trunk.grid.stride):
        raise InputError(
            f"last_stride: {name} has cells of {trunk.grid.stride} px, not {last_stride}; set "
            "model.last_stride = none, which takes the network's own"
        )
    return trunk


def _build_timm_trunk(name: str, image_size: int) -> Trunk:
    try:
        layers = TimmTrunk(name, image_size)
        grid, channels = trace_grid(layers, image_size)
    except InputError as error:
        raise InputError(f"{name}: {error}; choose another network") from None
    except Exception as error:  # noqa: BLE001  networks of timm raise any kind on what they cannot read
        raise InputError(
            f"{name}: cannot read images of {image_size} px ({first_line(error)}); choose another "
            "data.image_size, or another network"
        ) from None
    if grid.stride < layers.stride:
        # Swin merges neighbours by slicing, which is not traced: its cells tile the image.
        grid = Grid(layers.stride).tiling()
    if image_size % grid.stride:
        step = lcm(grid.stride, 32)  # sizes of pixel stores are multiples of 32
        raise InputError(
            f"{name}: its cells of {grid.stride} px do not tile images of {image_size} px; set "
            f"data.image_size = {max(step, round(image_size / step) * step)}"
        )
    return Trunk(layers, channels, grid)


def _build_own_trunk(name: str, image_size: int) -> Trunk:
    layers_of = own_class(name, "model.backbone", nn.Module)
    try:
        layers = layers_of()
        grid, channels = trace_grid(layers, image_size)
    except Exception as error:
        raise InputError(
            f"model.backbone: {name}: {problem_of(error)}; it is made without arguments, and maps "
            f"pixels (B, 3, {image_size}, {image_size}) to maps (B, C, h, h)"
        ) from error
    return Trunk(layers, channels, grid)


@cache
def trunk_stages(name: str) -> list[list[str]]:
    """Group the names of a network's layers into stages; at each new stage the maps are smaller.

    The layers are the children of the network without its pooling and last layer. A layer without
    weights belongs to the stage before it.

    The network is one of `networks.registry.NETWORKS`, not of timm. Stages go from the input on.

    Example:
        >>> trunk_stages("small_cnn")[0]
        ['block1']
    """
    with torch.device("meta"):
        layers = _build_layers(name)
    stages: list[list[str]] = []
    last = 0
    for child, stride, _ in measure_layers(layers, _PROBE_SIZE):
        if stride > last and any(True for _ in layers.get_submodule(child).parameters()):
            stages.append([])
            last = stride
        stages[-1].append(child)
    return stages
