"""Functions that build published networks with random weights, and that group their layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import timm
from torch import Tensor, nn
from torchvision import models

from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.data_prep.contracts.own_parts import is_own_part
from cxr_compare.networks.registry import (
    NETWORKS,
    TIMM,
    ModelKind,
    Network,
    describe_unknown,
    network_names,
)


def find_network(name: str, kind: ModelKind) -> Network:
    """Look up a network that a kind of model can use as its backbone.

    `name` is of `networks.registry.NETWORKS`, ``timm:NAME`` (whose facts come from timm) or, of a
    classifier, ``MODULE:NAME``. Raises InputError if it is unknown, or this kind of model cannot
    use the network.
    """
    if name.startswith(TIMM):
        return describe_timm_network(name)
    if is_own_part(name) and kind == "classifier":
        return Network(name, name, "own", None, strides=())
    if name in network_names(kind):
        return NETWORKS[name]
    raise InputError(f"backbone: {describe_unknown(name, kind)}")


def describe_timm_network(name: str) -> Network:
    """Return the facts about a network of the Python package timm, from timm's own settings.

    The images are grey, so the mean and the standard deviation of the pixels are those of timm
    averaged over the three colours.

    The name is ``timm:NAME``. Raises InputError if timm has no network of this name.
    """
    plain_name = name.removeprefix(TIMM)
    if not timm.is_model(plain_name):
        raise InputError(
            f"backbone: timm has no network {plain_name!r}; timm.list_models() lists their names"
        )
    settings: Any = timm.models.get_pretrained_cfg(plain_name)
    mean, std = (round(sum(values) / 3, 3) for values in (settings.mean, settings.std))
    size = int(settings.input_size[-1]) if settings.fixed_input_size else None
    return Network(
        name, name, "timm", None, strides=(), fixed_size=size, min_size=32, mean=mean, std=std
    )


def build_network(name: str, **timm_arguments: Any) -> nn.Module:
    """Build a network with random weights, in training mode; one of timm lacks its last layer.

    `name` is of `networks.registry.NETWORKS`, or ``timm:NAME``. The arguments are those of
    ``timm.create_model``, such as ``img_size=224``; networks that are not of timm ignore them.
    Raises InputError if timm cannot build the network.
    """
    if name.startswith(TIMM):
        return build_timm_network(name, **timm_arguments)
    if NETWORKS[name].family == "efficientnet_lite":
        return _build_efficientnet_lite(name)
    arguments: dict[str, Any] = {}
    if name == "inception_v3":
        arguments = {"aux_logits": False, "init_weights": True}
    return models.get_model(name, weights=None, **arguments)


def build_timm_network(name: str, *, pretrained: bool = False, **timm_arguments: Any) -> nn.Module:
    """Build a network of the Python package timm without its last layer.

    `name` is ``timm:NAME`` or timm's name alone; the arguments are those of ``timm.create_model``.
    The network is in training mode, and outputs pooled features instead of classes. Published
    weights are downloaded. Raises InputError if timm cannot build it, or its weights cannot be
    downloaded.
    """
    plain_name = name.removeprefix(TIMM)
    try:
        return timm.create_model(plain_name, pretrained=pretrained, num_classes=0, **timm_arguments)
    except Exception as error:  # noqa: BLE001  timm and its hub raise many kinds
        reason = first_line(error)
        problem = f"timm cannot build {name} ({reason})"
        if pretrained:
            problem = f"weights of {name}: cannot be fetched ({reason}); start from a file"
        raise InputError(problem) from None


def _build_efficientnet_lite(name: str) -> nn.Module:
    """Build the features of EfficientNet-Lite from timm's network (Tan and Le 2019).

    They map (B, 3, S, S) to (B, 1280, S / 32, S / 32), are padded as TensorFlow pads, and have
    TensorFlow's momentum of batch norm. `tensor_names.name_in_body` gives the names of the layers
    to the tensors of published files.
    """
    network: Any = timm.create_model(f"tf_{name}", num_classes=0, bn_momentum=0.01)
    blocks = [block for stage in network.blocks for block in stage]
    layers = {"stem": _conv_norm(network.conv_stem, network.bn1)}
    layers |= {f"block{number}": _InvertedResidual(block) for number, block in enumerate(blocks)}
    layers["last"] = _conv_norm(network.conv_head, network.bn2)
    return nn.Sequential(OrderedDict(features=nn.Sequential(OrderedDict(layers))))


class _InvertedResidual(nn.Sequential):
    """timm's inverted residual block (MobileNetV2), its layers under the names of our run files."""

    def __init__(self, block: nn.Module) -> None:
        convs = [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in block.children() if isinstance(layer, nn.BatchNorm2d)]
        names = ("expand", "depthwise", "project")[-len(convs) :]  # the first has no expansion
        parts = map(_conv_norm, convs, norms)
        super().__init__(OrderedDict(zip(names, parts, strict=True)))
        self._shortcut = bool(block.has_skip)

    def forward(self, maps: Tensor) -> Tensor:
        """Map float (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        out = super().forward(maps)
        return maps + out if self._shortcut else out


def _conv_norm(conv: nn.Module, norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, norm=norm))


def feature_layers(network: nn.Module) -> nn.Module:
    """Return the layers of a torchvision network before its pooling, in forward order.

    They are the children of the result, and are not copied.

    Example:
        >>> list(dict(feature_layers(build_network("resnet18")).named_children()))[-1]
        'layer4'
    """
    if isinstance(features := getattr(network, "features", None), nn.Module):
        return features
    # ResNet and Inception have no `features`: their head's layers stand beside the others.
    head = ("avgpool", "dropout", "fc")
    layers = [(name, layer) for name, layer in network.named_children() if name not in head]
    return nn.Sequential(OrderedDict(layers))


def timm_stages(network: nn.Module) -> list[list[nn.Module]]:
    """Group the layers of a timm network into stages; after each stage the maps get smaller.

    A plain transformer, whose maps all have one size, is divided into four stages with equal
    numbers of blocks. Tensors that belong to no layer, such as the position embedding, are in the
    first stage.
    """
    info: Any = network.feature_info
    strides = [stage["reduction"] for stage in info]
    stage_ends = [n for n in range(len(info) - 1) if strides[n] < strides[n + 1]]
    if len(set(strides)) == 1:
        stage_ends = [len(info) * quarter // 4 - 1 for quarter in (1, 2, 3)]
    layers = dict(_named_layers(network))
    last_layers = []
    for end in stage_ends:
        prefix = f"{info[end]['module']}."
        last_layers.append([path for path in layers if f"{path}.".startswith(prefix)][-1:])
    stages: list[list[nn.Module]] = [[nn.ParameterList(network.parameters(recurse=False))]]
    for path, layer in layers.items():
        stages[-1].append(layer)
        if [path] in last_layers:
            stages.append([])
    return stages


def _named_layers(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield each layer with its dotted path; lists and sequences are entered."""
    for name, layer in network.named_children():
        if isinstance(layer, nn.Sequential | nn.ModuleList):
            yield from _named_layers(layer, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", layer
