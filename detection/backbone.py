"""The convolutional bodies that a detector may stand on, and their norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from timm.layers import BatchNormAct2d, GroupNormAct
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.networks.inference import measure_layers
from cxr_compare.networks.published import build_network, features_of, find_network, timm_stages
from cxr_compare.networks.registry import NETWORKS, TIMM

_CHANNELS_PER_GROUP = 8  # as torchvision's RetinaNet v2 head has: 32 groups of 256 channels
_MAX_GROUPS = 32
_PROBE = 64  # px: the smallest side that the largest stride, 32, divides into more than one place


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with 8 channels a group and at most 32 groups (Wu and He 2018).

    32 groups would leave one or two values a group on a small model's P7, which erases them.
    """
    if channels < _CHANNELS_PER_GROUP or channels % _CHANNELS_PER_GROUP:
        raise InputError(
            f"group norm needs a multiple of {_CHANNELS_PER_GROUP} channels, but got {channels}"
        )
    most = min(_MAX_GROUPS, channels // _CHANNELS_PER_GROUP)
    groups = next(n for n in range(most, 0, -1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)


class _FrozenNorm(FrozenBatchNorm2d):
    """torchvision's frozen batch norm, but bfloat16 and float16 maps keep their type.

    The parent's float32 constants would turn them into float32 maps of twice the memory. The
    epsilon stays, which MobileNet and EfficientNet-Lite have of their own, and so does what timm's
    batch norm does behind it.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, eps=norm.eps)
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) of any precision to maps of the same."""
        if x.dtype not in (torch.bfloat16, torch.float16):
            return self.act(super().forward(x))
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = map(self.get_buffer, names)
        return self.act(functional.batch_norm(x, mean, variance, weight, bias, eps=self.eps))


def _to_groups(norm: nn.BatchNorm2d) -> nn.Module:
    """Group norm in place of a batch norm, with the activation that timm's has behind it."""
    groups = group_norm(norm.num_features)
    if not isinstance(norm, BatchNormAct2d):
        return groups
    with_act = GroupNormAct(groups.num_channels, groups.num_groups, apply_act=False)
    with_act.act = norm.act
    return with_act


_NORMS: dict[str, Callable[[nn.BatchNorm2d], nn.Module]] = {
    "frozen": _FrozenNorm,
    "batch": lambda norm: norm,
    "group": _to_groups,
}


def build_body(name: str, norm: str) -> nn.Module:
    """A detector's backbone without pooling and classifier, random, with a kind of normalisation.

    It must build on torch's meta device, and its children must be its layers in forward order, but
    for timm's. A network without batch norm keeps its own norm, which is ``batch`` here.
    """
    if find_network(name, "detector").fixed_size:
        raise InputError(
            f"backbone: {name} takes images of one size; choose a network that takes any"
        )
    if norm not in _NORMS:
        raise InputError(f"norm: expected one of {', '.join(_NORMS)}, but got {norm!r}")
    network = build_network(name)
    layers = [*network.named_modules()]
    norms = [(place, layer) for place, layer in layers if isinstance(layer, nn.BatchNorm2d)]
    if norm != "batch" and not norms:
        raise InputError(
            f"norm: {name} has no batch norm to make {norm}; set model.norm = batch, which leaves "
            "its own norm as it is"
        )
    for place, layer in norms:
        network.set_submodule(place, _NORMS[norm](layer))
    return network if name.startswith(TIMM) else features_of(network)


@cache
def _body_layers(name: str) -> list[tuple[str, int, int]]:
    """Name, stride and channels of a body's children; no random number is drawn."""
    with torch.device("meta"):
        return measure_layers(build_body(name, "batch"), _PROBE)


_DENSE_TAPS = {4: "transition1", 8: "transition2", 16: "transition3", 32: "norm5"}


class _DenseFeatures(nn.ModuleDict):
    """DenseNet's features at some strides, each normalised and rectified; names stay its own.

    They are taken behind the transition's norm, for a dense block's parts differ in scale; C5
    behind ``norm5``.
    """

    def __init__(self, features: nn.Module, strides: Sequence[int]) -> None:
        super().__init__(dict(features.named_children()))
        self._taps = [_DENSE_TAPS[stride] for stride in strides]

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Map float (B, 3, S, S) to maps from fine to coarse, at least 0, under ``0``, ``1``, .."""
        maps = {}
        for name, layer in self.items():
            if name.startswith("transition"):
                norm, rectifier, convolution, pool = layer.children()
                maps[name] = rectifier(norm(pixels))
                pixels = pool(convolution(maps[name]))
            else:
                pixels = layer(pixels)
        maps["norm5"] = pixels.relu()
        return {str(level): maps[tap] for level, tap in enumerate(self._taps)}


class _TimmFeatures(nn.Module):
    """Maps of a network of timm's behind some of its stages, and no layer that they do not need."""

    def __init__(self, model: Any, taps: list[int]) -> None:
        super().__init__()
        model.prune_intermediate_layers(taps, prune_norm=True, prune_head=True)
        self.model, self._taps = model, taps

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Map float (B, 3, S, S) to maps from fine to coarse, under ``0``, ``1``, ..."""
        maps = self.model.forward_intermediates(
            pixels, indices=self._taps, intermediates_only=True, output_fmt="NCHW"
        )
        return {str(level): found for level, found in enumerate(maps)}


def body_stages(name: str, body: nn.Module) -> list[list[nn.Module]]:
    """Layers of the body under a pyramid by the stride at which they work: 2, 4, 8, 16, 32.

    timm's by its own stages, of which ConvNeXt has none of 2 px.
    """
    if name.startswith(TIMM):
        return timm_stages(body.get_submodule("model"))
    stages: dict[int, list[nn.Module]] = {}
    for layer, stride, _ in _body_layers(name):
        stages.setdefault(stride, []).append(body.get_submodule(layer))
    return [stages[stride] for stride in sorted(stages)]


class DetectorStart(NamedTuple):
    """What every detector is built on; `detection.model.build_detector` hands it to each."""

    backbone: str  # name of the body's network
    norm: str  # its normalisation: ``frozen``, ``batch`` or ``group``
    body: nn.Module  # random, or with published weights
    preprocess: Preprocess  # size and normalisation of the pixels that it reads
    n_findings: int

    def pyramid(
        self,
        channels: int,
        *,
        p6_from_c5: bool = False,
        strides: Sequence[int] = (8, 16, 32),
        pooled_top: bool = False,
    ) -> BackboneWithFPN:
        """Put a feature pyramid, P3 to P7 (strides 8 to 128), on the body (Lin et al. 2017).

        Each level starts from the deepest layer of its stride; P2 would hold 3/4 of all anchors. P6
        starts from C5 (torchvision's v2) or from P5 (v1), or is all there is on top, P5's every
        second place, where `pooled_top` (Faster R-CNN's).

        Raises:
            InputError: The network has no maps of one of the strides.
        """
        name, body = self.backbone, self.body
        # A stage or layer and its channels, the deepest by stride.
        places: dict[int, tuple[Any, int]]
        if name.startswith(TIMM):
            info: Any = body.feature_info
            places = {stage["reduction"]: (n, stage["num_chs"]) for n, stage in enumerate(info)}
        else:
            places = {stride: (layer, width) for layer, stride, width in _body_layers(name)}
        if not places.keys() >= set(strides):
            raise InputError(
                f"backbone: a pyramid needs maps of {', '.join(map(str, strides))} px a cell, and "
                f"{name} has {', '.join(map(str, sorted(places)))}; choose another network"
            )
        taps, widths = map(list, zip(*(places[stride] for stride in strides), strict=True))
        top: Any = LastLevelMaxPool()
        if not pooled_top:
            top = LastLevelP6P7(widths[-1] if p6_from_c5 else channels, channels)
            # torchvision guesses this from the channel counts, which may be equal by chance.
            top.use_P5 = not p6_from_c5
        levels = {tap: str(level) for level, tap in enumerate(taps) if isinstance(tap, str)}
        pyramid = BackboneWithFPN(body, levels, widths, channels, extra_blocks=top)
        if name.startswith(TIMM):
            pyramid.body = _TimmFeatures(body, taps)  # type: ignore[assignment]
        elif NETWORKS[name].family == "densenet":
            pyramid.body = _DenseFeatures(body, strides)  # type: ignore[assignment]
        return pyramid

    def maps(self, *strides: int) -> tuple[nn.Module, list[int]]:
        """The body alone, which gives its maps at these strides, px, and their channels."""
        pyramid: Any = self.pyramid(8, strides=strides)  # its random values are part of a seed's
        return pyramid.body, [block[0].in_channels for block in pyramid.fpn.inner_blocks]
