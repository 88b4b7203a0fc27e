"""The convolutional trunks that a classifier may stand on, and where their maps lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import lcm
from typing import Any, cast

import torch
from timm.layers import resample_abs_pos_embed, to_2tuple
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models import vgg

from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.networks.inference import measure_layers, shapes_of
from cxr_compare.networks.published import build_network, features_of, find_network, timm_stages
from cxr_compare.networks.registry import NETWORKS

# Where the head of a network of timm's begins: the first of these.
_HEADS = (
    "global_pool", "pre_logits", "fc_norm", "attn_pool", "head_drop", "head", "classifier", "fc"
)  # fmt: skip
_PROBE = 128  # px: every network here takes it


class _PooledNorm(nn.Module):
    """A layer norm of pooled features, done to the maps before they are pooled.

    Its statistics are those of the pooled maps, so pooling its output is norming the pooled maps;
    class activation maps stay exact.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, maps: Tensor) -> Tensor:
        """Norm float (B, C, h, w); the same shape."""
        pooled = maps.float().mean(dim=(2, 3))  # (B, C)
        spread = (pooled.var(dim=1, correction=0) + self.eps).rsqrt()[:, None, None, None]
        middle = pooled.mean(dim=1)[:, None, None, None]
        return (maps - middle) * spread * self.weight[:, None, None] + self.bias[:, None, None]


def _build_layers(name: str) -> nn.Module:
    """The layers of a network of the registry below its pooling, random."""
    family = NETWORKS[name].family
    if family == "small_cnn":
        return _small_cnn()
    if family == "vgg":
        return _vgg(name)
    network = build_network(name)
    layers = features_of(network)
    if family == "densenet":
        layers.add_module("relu5", nn.ReLU())  # a function behind `features` in torchvision
    if family == "convnext":
        norm = cast("nn.LayerNorm", network.get_submodule("classifier.0"))
        layers.add_module("norm", _PooledNorm(norm))
    return layers


def _small_cnn() -> nn.Module:
    """Five blocks of convolution, rectifier, dropout, batch norm and pooling."""
    widths, blocks = (3, 32, 64, 64, 128, 256), nn.Sequential()
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
    # Not by the whole network, whose first linear layer alone is 400 MB that nothing here reads.
    depth = {"vgg16": "D", "vgg19": "E"}[name.removesuffix("_bn")]
    features = vgg.make_layers(vgg.cfgs[depth], batch_norm=name.endswith("_bn"))
    for layer in features:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:  # as torchvision starts them
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return features


def _leave_out_last_halving(layers: nn.Module) -> None:
    """Keep the size of the maps in the last child that halves them; no weight moves."""
    halving = [
        name
        for name, layer in layers.named_modules()
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
        and layer.stride in (2, (2, 2))
    ]
    child = halving[-1].split(".")[0]
    for name in (name for name in halving if name.split(".")[0] == child):
        layer = layers.get_submodule(name)  # of a ResNet's block one within it and one beside it
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
        else:
            layers.set_submodule(name, nn.Identity())


class TimmTrunk(nn.Module):
    """A network of timm's without its head, whose output is a map: tokens are cells of a grid.

    Where the head is a norm behind the pooling, its published weights are kept. Where it reads a
    class token, the map is that token in a single cell.
    """

    sized: dict[str, int]  # what timm is told of the images, where it builds for one size
    reads_token: bool  # whether the head reads a class token
    stride: int  # input px from one cell to the next, as timm says

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        fixed = find_network(name, "classifier").fixed_size
        self.sized = {} if fixed in (None, image_size) else {"img_size": image_size}
        network: Any = build_network(name, **self.sized)
        norm = getattr(network, "fc_norm", getattr(getattr(network, "head", None), "norm", None))
        self.pooled_norm: nn.Module = nn.Identity()
        if isinstance(norm, nn.LayerNorm):
            self.pooled_norm = _PooledNorm(norm)
        elif norm is not None and any(True for _ in norm.parameters()):
            kind = type(norm).__name__
            raise InputError(f"its head norms pooled maps by {kind}, which maps cannot")
        self.reads_token = getattr(network, "global_pool", None) == "token"
        names = [child for child, _ in network.named_children()]
        for child in names[min(names.index(head) for head in _HEADS if head in names) :]:
            setattr(network, child, nn.Identity())
        self.network = network
        self.stride = network.feature_info[-1]["reduction"]
        self._side = image_size // self.stride

    def forward(self, pixels: Tensor) -> Tensor:
        """Map float (B, 3, S, S) to maps (B, C, h, w), normed as the head would."""
        found: Tensor = self.network.forward_features(pixels)
        if self.reads_token:
            return found[:, 0, :, None, None]
        maps: Tensor = self.pooled_norm(self.as_maps(found))
        return maps

    def as_maps(self, found: Tensor) -> Tensor:
        """Tokens (B, N, C), less those before the grid, or maps of any layout, as (B, C, h, w)."""
        if found.ndim == 3:
            cells = found[:, -(self._side**2) :].transpose(1, 2)
            return cells.unflatten(2, (self._side, self._side))
        last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        return found.permute(0, 3, 1, 2) if last else found

    def fit_places(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights with the embedding of places, where there is one, interpolated to its grid."""
        fitted, own = dict(state), getattr(self.network, "pos_embed", None)
        for key, value in state.items():
            if key.endswith("pos_embed") and own is not None and value.ndim == own.ndim == 3:
                others, grid = own.shape[1] - self._side**2, [self._side, self._side]
                fitted[key] = resample_abs_pos_embed(value, grid, num_prefix_tokens=others)
        return fitted

    @property
    def stages(self) -> list[list[nn.Module]]:
        """Layers in stages, each of which ends where the next maps are smaller."""
        *stages, last = timm_stages(self.network)
        return [*stages, [*last, self.pooled_norm]]


@dataclass(frozen=True)
class Trunk:
    """A convolutional network without its classification layer."""

    layers: nn.Module  # maps float (B, 3, S, S) to float (B, channels, h, w)
    channels: int  # of the last maps
    grid: Grid  # of their cells


def build_trunk(name: str, last_stride: int | None, image_size: int = _PROBE) -> Trunk:
    """Build a network without its classifier, random; None: with its own cells, the coarsest."""
    network = find_network(name, "classifier")
    if image_size < network.min_size:
        raise InputError(
            f"{name}: needs images of at least {network.min_size} px, but gets {image_size}; set "
            "data.image_size"
        )
    if network.family == "timm":
        trunk = _timm_trunk(name, image_size)
    else:
        layers = _build_layers(name)
        if last_stride == 16 and network.strides == (16, 32):
            _leave_out_last_halving(layers)
        grid, channels = trace_grid(layers, image_size)
        if network.family == "efficientnet_lite":
            # It pads to the right and below, half a cell in all; its published weights make up for
            # it: maps of mirrored images are mirrored where the cells tile the image.
            grid = grid.tiling()
        trunk = Trunk(layers, channels, grid)
    if last_stride not in (None, trunk.grid.stride):
        raise InputError(
            f"last_stride: {name} has cells of {trunk.grid.stride} px, not {last_stride}; leave "
            "model.last_stride out"
        )
    return trunk


def _timm_trunk(name: str, image_size: int) -> Trunk:
    try:
        layers = TimmTrunk(name, image_size)
        grid, channels = trace_grid(layers, image_size)
    except InputError as error:
        raise InputError(f"{name}: {error}; choose another network") from None
    except Exception as error:  # noqa: BLE001  what they cannot read is an error of any kind
        raise InputError(
            f"{name}: cannot read images of {image_size} px ({first_line(error)}); choose another "
            "data.image_size, or another network"
        ) from None
    if grid.stride < layers.stride:
        # Swin puts neighbours together by slicing, which is not followed: its cells tile the image.
        grid = Grid(layers.stride).tiling()
    if image_size % grid.stride:
        step = lcm(grid.stride, 32)  # a pixel store has multiples of 32
        raise InputError(
            f"{name}: its cells of {grid.stride} px do not tile images of {image_size} px; set "
            f"data.image_size = {max(step, round(image_size / step) * step)}"
        )
    return Trunk(layers, channels, grid)


@cache
def trunk_stages(name: str) -> list[list[str]]:
    """Names of a trunk's children in stages: each begins where the maps get smaller.

    A child without weights belongs to the stage before.
    """
    with torch.device("meta"):
        layers = _build_layers(name)
    stages: list[list[str]] = []
    last = 0
    for child, stride, _ in measure_layers(layers, _PROBE):
        if stride > last and any(True for _ in layers.get_submodule(child).parameters()):
            stages.append([])
            last = stride
        stages[-1].append(child)
    return stages


# What each function that moves or spreads the cells is called with, in order, after its input.
_SLIDING = {
    "conv2d": ("weight", "bias", "stride", "padding", "dilation"),
    "max_pool2d": ("kernel_size", "stride", "padding", "dilation"),
    "avg_pool2d": ("kernel_size", "stride", "padding"),
}
_PLACELESS = {"adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax", "sum"}
_NO_GRID = "its output is not a grid of square cells over the image"


@dataclass(frozen=True)
class Grid:
    """How the cells of a feature map lie over the image, down as across."""

    stride: int = 1  # input px from one cell to the next
    centre: float = 0.5  # px from the edge to the middle of the first cell's field; of a pixel 0.5

    def tiling(self) -> Grid:
        """The same cells where they tile the image."""
        return Grid(self.stride, self.stride / 2)

    def frame(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Outer frame of so many cells, ``x1, y1, x2, y2`` in px."""
        start = self.centre - self.stride / 2
        return start, start, start + width * self.stride, start + height * self.stride


def trace_grid(layers: nn.Module, image_size: int) -> tuple[Grid, int]:
    """Follow a network's layers from the image to its maps' cells and channels, without computing.

    Of branches that look at different places, as in ResNet-D, the middle between them is taken.
    """
    pixels = torch.zeros(1, 3, image_size, image_size, device="meta")
    pixels.grid = Grid()  # type: ignore[attr-defined]
    with torch.no_grad(), _Following():
        maps = shapes_of(layers).eval()(pixels)
    grid = getattr(maps, "grid", None)
    if grid is None or maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
        raise InputError(_NO_GRID)
    return grid, maps.shape[1]


class _Following(TorchFunctionMode):
    """Hands the grid on from each function's inputs to its outputs."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        inputs = _tensors([*args, *kwargs.values()])
        grids = [tensor.grid for tensor in inputs if hasattr(tensor, "grid")]  # not of weights
        out = func(*args, **kwargs)
        if grids and name not in _PLACELESS:
            stride = max(grid.stride for grid in grids)  # they meet in the coarsest
            centres = [grid.centre for grid in grids if grid.stride == stride]
            before = Grid(stride, (min(centres) + max(centres)) / 2)
            after = _slide(name, before, args, kwargs)
            for tensor in _tensors([out]):
                tensor.grid = after  # type: ignore[attr-defined]
        return out


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _slide(name: str, grid: Grid, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Grid:
    """The grid behind a function (Araujo, Norris and Sim 2019), as it is down the rows."""
    if name == "pad":
        edges = args[1] if len(args) > 1 else kwargs["pad"]  # left, right, top, bottom
        top = edges[2] if len(edges) > 2 else 0
        if edges[0] != top:  # of tokens in a row, not of maps
            raise InputError(_NO_GRID)
        return Grid(grid.stride, grid.centre - top * grid.stride)
    if name not in _SLIDING:
        return grid
    given = {**dict(zip(_SLIDING[name], args[1:], strict=False)), **kwargs}
    is_conv = name == "conv2d"
    kernel = given["weight"].shape[2] if is_conv else to_2tuple(given["kernel_size"])[0]
    stride = to_2tuple(given.get("stride") or (1 if is_conv else kernel))[0]
    dilation, padding = to_2tuple(given.get("dilation", 1))[0], given.get("padding", 0)
    if isinstance(padding, str):
        padding = dilation * (kernel - 1) // 2 if padding == "same" else 0
    moved = (dilation * (kernel - 1) / 2 - to_2tuple(padding)[0]) * grid.stride
    return Grid(grid.stride * stride, grid.centre + moved)
