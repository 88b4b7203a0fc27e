"""The convolutional trunks that a classifier may stand on."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models import (
    DenseNet121_Weights,
    ResNet18_Weights,
    WeightsEnum,
    densenet121,
    resnet18,
)

from data_prep.tables import InputError

STRIDES = (16, 32)
_RESNET_TOP = ("avgpool", "fc")


@dataclass(frozen=True)
class Trunk:
    """A convolutional network without its classification layer.

    Attributes:
        layers: Maps float (B, 3, S, S) to float (B, channels, S / stride, S / stride).
        channels: Channels of the last maps.
        stride: Input pixels from one cell of the last maps to the next.
        centre: Where the first cell looks, in px from the image's left or upper edge: the middle
            of its receptive field. Each further cell looks `stride` further.
    """

    layers: nn.Module
    channels: int
    stride: int
    centre: float


@dataclass(frozen=True)
class Recipe:
    """How one backbone is built.

    Attributes:
        build: Takes a last stride and the weights of torchvision's whole network, or None.
        imagenet: Its published weights.
    """

    build: Callable[[int, dict[str, Tensor] | None], Trunk]
    imagenet: WeightsEnum


def build_trunk(name: str, last_stride: int, state: dict[str, Tensor] | None = None) -> Trunk:
    """Build a trunk, from random or given weights.

    Args:
        name: A key of `BACKBONES`.
        last_stride: Input pixels per position of the last maps: 32, or 16 to leave out the last
            halving. Leaving it out moves no weight: the same file fits both.
        state: Weights of torchvision's whole network.

    Returns:
        The trunk.

    Raises:
        InputError: Unknown name or stride.
    """
    if name not in BACKBONES:
        raise InputError(f"backbone: expected one of {', '.join(BACKBONES)}, but got {name!r}")
    if last_stride not in STRIDES:
        raise InputError(f"last_stride: expected 16 or 32, but got {last_stride}")
    return BACKBONES[name].build(last_stride, state)


def _densenet_trunk(last_stride: int, state: dict[str, Tensor] | None) -> Trunk:
    network = densenet121()
    if state is not None:
        network.load_state_dict(state)
    if last_stride == 16:
        network.features.get_submodule("transition3").pool = nn.Identity()
    # The strides of the stem take every second position from the first pixel on (centre 0.5);
    # each pooling of two by two after it looks between its positions: 0.5 + 2, + 4, (+ 8).
    centre = last_stride / 2 - 1.5
    return Trunk(network.features, network.classifier.in_features, last_stride, centre)


def _resnet_trunk(last_stride: int, state: dict[str, Tensor] | None) -> Trunk:
    network = resnet18()
    if state is not None:
        network.load_state_dict(state)
    if last_stride == 16:
        for name in ("conv1", "downsample.0"):
            network.layer4.get_submodule(f"0.{name}").stride = (1, 1)
    kept = [(name, layer) for name, layer in network.named_children() if name not in _RESNET_TOP]
    # All its strides take every second position, so the first cell looks at the first pixel.
    layers = nn.Sequential(OrderedDict(kept))
    return Trunk(layers, network.fc.in_features, last_stride, centre=0.5)


BACKBONES = {
    "densenet121": Recipe(_densenet_trunk, DenseNet121_Weights.IMAGENET1K_V1),
    "resnet18": Recipe(_resnet_trunk, ResNet18_Weights.IMAGENET1K_V1),
}
