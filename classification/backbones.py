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
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import ResNet

from data_prep.tables import InputError

STRIDES = (16, 32)


@dataclass(frozen=True)
class Trunk:
    """A convolutional network without its classification layer.

    Attributes:
        layers: Maps float (B, 3, S, S) to float (B, channels, S / stride, S / stride).
        channels: Channels of the last maps.
    """

    layers: nn.Module
    channels: int


@dataclass(frozen=True)
class Recipe:
    """How one backbone is built.

    Attributes:
        network: Builds torchvision's randomly initialised network.
        imagenet: Its published weights.
        trunk: Takes the network apart, and its last stride.
    """

    network: Callable[[], nn.Module]
    imagenet: WeightsEnum
    trunk: Callable[[nn.Module, int], Trunk]


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
    recipe = BACKBONES[name]
    network = recipe.network()
    if state is not None:
        network.load_state_dict(state)
    return recipe.trunk(network, last_stride)


def _densenet_trunk(network: DenseNet, last_stride: int) -> Trunk:
    if last_stride == 16:
        network.features.transition3.pool = nn.Identity()
    return Trunk(network.features, network.classifier.in_features)


def _resnet_trunk(network: ResNet, last_stride: int) -> Trunk:
    if last_stride == 16:
        first = network.layer4[0]
        first.conv1.stride = (1, 1)
        first.downsample[0].stride = (1, 1)
    layers = OrderedDict(network.named_children())
    channels = layers.pop("fc").in_features
    layers.pop("avgpool")
    return Trunk(nn.Sequential(layers), channels)


BACKBONES: dict[str, Recipe] = {
    "densenet121": Recipe(densenet121, DenseNet121_Weights.IMAGENET1K_V1, _densenet_trunk),
    "resnet18": Recipe(resnet18, ResNet18_Weights.IMAGENET1K_V1, _resnet_trunk),
}
