"""Checkpoints, and the names that their tensors have: of published files and of old runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.contracts.errors import InputError

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


def body_key(key: str) -> str:
    """Name of a tensor inside the convolutional body that it belongs to, as torchvision has it.

    Reads torchvision's own files, those of docs/weights.md that are made of its networks,
    EfficientNet-Lite's, and runs of both models. What holds the body is cut off, also of other
    layers.

    Source:
        arnoweng/CheXNet ``model.py``, zoogzog/chexnet ``DensenetModels.py``, mlmed/torchxrayvision
        ``models.py`` and lukemelas/EfficientNet-PyTorch ``model.py``, as published.

    Example:
        >>> body_key("module.densenet121.features.denseblock1.denselayer1.norm.1.weight")
        'denseblock1.denselayer1.norm1.weight'
        >>> body_key("trunk.layer1.0.conv1.weight"), body_key("_blocks.3._bn1.weight")
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
