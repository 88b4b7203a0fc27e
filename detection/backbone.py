"""Backbones of the detectors: networks without their head, normalisation, and feature pyramids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from timm.layers import BatchNormAct2d, GroupNormAct
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.networks.builders import build_network, feature_layers, find_network, timm_stages
from cxr_compare.networks.layer_shapes import MeasuredLayer, measure_layers
from cxr_compare.networks.registry import NETWORKS, TIMM

_CHANNELS_PER_GROUP = 8  # as torchvision's RetinaNet v2 head has: 32 groups of 256 channels
_MAX_GROUPS = 32
_PROBE_SIZE = 64  # px: the smallest side that gives more than one cell at the largest stride, 32


def group_norm(channels: int) -> nn.GroupNorm:
    """Build a group normalisation with 8 channels in each group and at most 32 groups.

    With a fixed number of 32 groups, a small model would have only one or two values in a group on
    the coarsest level (P7) of the feature pyramid, and normalising so few values would erase them.

    `channels` must be a positive multiple of 8, or InputError is raised.

    Source:
        Wu and He 2018, Group Normalization.
    """
    if channels < _CHANNELS_PER_GROUP or channels % _CHANNELS_PER_GROUP:
        raise InputError(
            f"group norm needs a multiple of {_CHANNELS_PER_GROUP} channels, but got {channels}"
        )
    most_groups = min(_MAX_GROUPS, channels // _CHANNELS_PER_GROUP)
    n_groups = next(n for n in range(most_groups, 0, -1) if channels % n == 0)
    return nn.GroupNorm(n_groups, channels)


class _FrozenNorm(FrozenBatchNorm2d):
    """torchvision's frozen batch norm, which keeps the type of bfloat16 and float16 maps.

    The parent's float32 constants would turn them into float32 maps of twice the memory. The
    epsilon, which differs in MobileNet and EfficientNet-Lite, is kept, and so is the activation
    that timm's batch norm applies behind it.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, eps=norm.eps)
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) of any precision to maps of the same precision."""
        if x.dtype not in (torch.bfloat16, torch.float16):
            return self.act(super().forward(x))
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = map(self.get_buffer, names)
        return self.act(functional.batch_norm(x, mean, variance, weight, bias, eps=self.eps))


def _group_norm_from_batch_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """Build a group norm for a batch norm, with the activation that timm's has behind it."""
    groups = group_norm(norm.num_features)
    if not isinstance(norm, BatchNormAct2d):
        return groups
    with_activation = GroupNormAct(groups.num_channels, groups.num_groups, apply_act=False)
    with_activation.act = norm.act
    return with_activation


NORMS: dict[str, Callable[[nn.BatchNorm2d], nn.Module]] = {
    "frozen": _FrozenNorm,
    "batch": lambda norm: norm,
    "group": _group_norm_from_batch_norm,
}
"""Kinds of normalisation, and what each makes of a batch norm."""


def build_body(name: str, norm: str) -> nn.Module:
    """Build the backbone of a detector: a network without pooling and classifier, untrained.

    `name` is of `networks.registry.NETWORKS`, or ``timm:NAME``. The layers of the network must be
    its children in forward order, and it must be possible to build it on torch's meta device.
    `norm` is ``frozen`` (batch norm with fixed statistics and weights), ``batch`` (which learns,
    and leaves a network without batch norm as it is) or ``group``. Raises InputError if there is no
    such network or norm, the network accepts images of one size only, or has no batch norm to
    freeze or replace.
    """
    if find_network(name, "detector").fixed_size:
        raise InputError(
            f"backbone: {name} takes images of one size; choose a network that takes any"
        )
    if norm not in NORMS:
        raise InputError(f"norm: expected one of {', '.join(NORMS)}, but got {norm!r}")
    network = build_network(name)
    batch_norms = [
        (path, layer)
        for path, layer in network.named_modules()
        if isinstance(layer, nn.BatchNorm2d)
    ]
    if norm != "batch" and not batch_norms:
        raise InputError(
            f"norm: {name} has no batch norm to make {norm}; set model.norm = batch, which leaves "
            "its own norm as it is"
        )
    for path, layer in batch_norms:
        network.set_submodule(path, NORMS[norm](layer))
    return network if name.startswith(TIMM) else feature_layers(network)


@cache
def _body_layers(name: str) -> list[MeasuredLayer]:
    """Measure the children of a body; no random number is drawn."""
    with torch.device("meta"):
        return measure_layers(build_body(name, "batch"), _PROBE_SIZE)


# Child of DenseNet after whose norm the features of each stride are taken.
_DENSE_TAPS = {4: "transition1", 8: "transition2", 16: "transition3", 32: "norm5"}


class _DenseFeatures(nn.ModuleDict):
    """DenseNet's features at some strides, normalised and rectified, under DenseNet's own names.

    They are taken behind the norm of each transition, because the parts of a dense block differ in
    scale; C5 is taken behind ``norm5``.
    """

    def __init__(self, features: nn.Module, strides: Sequence[int]) -> None:
        super().__init__(dict(features.named_children()))
        self._taps = [_DENSE_TAPS[stride] for stride in strides]

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Map float (B, 3, S, S) to maps from fine to coarse, at least 0, named ``0``, ``1``, .."""
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
    """Maps behind some stages of a timm network, without the layers that they do not need."""

    def __init__(self, model: Any, taps: list[int]) -> None:
        super().__init__()
        model.prune_intermediate_layers(taps, prune_norm=True, prune_head=True)
        self.model = model
        self._taps = taps

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Map float (B, 3, S, S) to maps from fine to coarse, named ``0``, ``1``, ..."""
        maps = self.model.forward_intermediates(
            pixels, indices=self._taps, intermediates_only=True, output_fmt="NCHW"
        )
        return {str(level): level_maps for level, level_maps in enumerate(maps)}


def body_stages(name: str, body: nn.Module) -> list[list[nn.Module]]:
    """Group the layers of a detector's backbone by their stride: 2, 4, 8, 16 and 32 px.

    Networks of timm keep their own stages; for example, ConvNeXt has no stage of 2 px.

    The layers are in forward order, and are those of `body`, not copies.
    """
    if name.startswith(TIMM):
        return timm_stages(body.get_submodule("model"))
    stages: dict[int, list[nn.Module]] = {}
    for layer, stride, _ in _body_layers(name):
        stages.setdefault(stride, []).append(body.get_submodule(layer))
    return [stages[stride] for stride in sorted(stages)]


class DetectorStart(NamedTuple):
    """Backbone and settings from which `build_detector` builds every detector.

    Attributes:
        backbone: Name of the network, such as ``resnet50``.
        norm: Normalisation of its layers: ``frozen`` (batch norm with fixed statistics and
            weights), ``batch`` (batch norm that learns) or ``group`` (group norm).
        body: Network without its classification layer, with random or published weights.
        preprocess: Size and normalisation of the pixels that the network reads.
        n_findings: Number of findings (disease signs) that the detector predicts.
    """

    backbone: str
    norm: str
    body: nn.Module
    preprocess: Preprocess
    n_findings: int

    def pyramid(
        self,
        channels: int,
        *,
        p6_from_c5: bool = False,
        strides: Sequence[int] = (8, 16, 32),
        pooled_top: bool = False,
    ) -> BackboneWithFPN:
        """Return the backbone with a feature pyramid, by default P3 to P7 (strides 8 to 128 px).

        A level Pn has stride 2^n px, and Cn are the maps of the backbone with this stride. Each
        level takes the maps of the deepest layer of its stride. By default there is no level P2,
        because it would have 3/4 of all anchors.

        Args:
            channels: Number of channels of every level.
            p6_from_c5: True computes P6 from C5, as version 2 of torchvision's RetinaNet does;
                False computes P6 from P5, as version 1 does.
            strides: Strides of the levels that are computed from maps of the backbone, px.
            pooled_top: True adds a single level above these, which takes every second cell of the
                highest of them, as in Faster R-CNN; False adds P6 and P7.

        Returns:
            The backbone and the pyramid as one module, which maps pixels to the maps of each level.

        Raises:
            InputError: The network has no maps of one of the strides.

        Source:
            Lin et al. 2017, Feature Pyramid Networks for Object Detection.
        """
        features, widths = self.maps(*strides)
        top: Any = LastLevelMaxPool()
        if not pooled_top:
            top = LastLevelP6P7(widths[-1] if p6_from_c5 else channels, channels)
            # torchvision guesses this from the channel counts, which may be equal by chance.
            top.use_P5 = not p6_from_c5
        pyramid = BackboneWithFPN(self.body, {}, widths, channels, extra_blocks=top)
        pyramid.body = features  # type: ignore[assignment]  # instead of torchvision's own
        return pyramid

    def maps(self, *strides: int) -> tuple[nn.Module, list[int]]:
        """Return the backbone as a network that outputs its feature maps of some strides.

        Args:
            *strides: Strides of the maps, one or several of 2, 4, 8, 16 and 32: distance of
                neighbouring cells of a map, in px of the input image.

        Returns:
            The network, which returns a dictionary of maps from fine to coarse, and the number of
            channels of the maps of each stride.

        Raises:
            InputError: The backbone has no maps of a stride, which the message names.
        """
        strides = tuple(sorted(set(strides)))
        taps, widths = self._taps(strides)
        if self.backbone.startswith(TIMM):
            return _TimmFeatures(self.body, taps), widths
        if NETWORKS[self.backbone].family == "densenet":
            return _DenseFeatures(self.body, strides), widths
        levels = {tap: str(level) for level, tap in enumerate(taps)}
        return IntermediateLayerGetter(self.body, levels), widths

    def _taps(self, strides: Sequence[int]) -> tuple[list[Any], list[int]]:
        """Return the deepest stage (of timm) or layer of each stride, and its channels."""
        name = self.backbone
        by_stride: dict[int, tuple[Any, int]]
        if name.startswith(TIMM):
            info: Any = self.body.feature_info
            by_stride = {
                stage["reduction"]: (number, stage["num_chs"]) for number, stage in enumerate(info)
            }
        else:
            layers = _body_layers(name)
            if NETWORKS[name].family == "densenet":
                layers = [layer for layer in layers if layer.stride in _DENSE_TAPS]
            by_stride = {layer.stride: (layer.name, layer.channels) for layer in layers}
        missing = [stride for stride in strides if stride not in by_stride]
        if missing or not strides:
            raise InputError(
                f"backbone: {name} has no maps of {_listed(missing)} px a cell, only of "
                f"{_listed(sorted(by_stride))}; choose another network"
            )
        chosen = [by_stride[stride] for stride in strides]
        return [tap for tap, _ in chosen], [channels for _, channels in chosen]


def _listed(numbers: Sequence[int]) -> str:
    """Return numbers as text."""
    return ", ".join(map(str, numbers)) or "0"
