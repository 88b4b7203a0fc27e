"""ResNet with a feature pyramid (P3-P7), its normalisation layers and its frozen stages."""

from collections.abc import Callable
from typing import Literal

from torch import nn
from torchvision.models import resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from data_prep.tables import InputError

Backbone = Literal["resnet18", "resnet34", "resnet50"]
Norm = Literal["frozen", "batch", "group"]

BACKBONES = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
}
STAGES = ("layer4", "layer3", "layer2", "layer1", "conv1")  # the order in which they thaw
CHANNELS_PER_GROUP = 8  # as torchvision's RetinaNet v2 head has: 32 groups of 256 channels


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with 8 channels a group, at most 32 groups.

    A fixed 32 groups would leave one or two values a group where a small model's P7 is 1 x 1
    pixel, and normalising one or two values erases them.

    Args:
        channels: Number of channels, a multiple of 8.

    Returns:
        The layer.

    Raises:
        InputError: The channels do not divide into groups of 8.

    Source:
        Wu and He 2018, Group Normalization.

    Example:
        >>> group_norm(256).num_groups, group_norm(64).num_groups
        (32, 8)
    """
    if channels < CHANNELS_PER_GROUP or channels % CHANNELS_PER_GROUP:
        raise InputError(
            f"group norm needs a multiple of {CHANNELS_PER_GROUP} channels, but got {channels}"
        )
    return nn.GroupNorm(min(32, channels // CHANNELS_PER_GROUP), channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "frozen": FrozenBatchNorm2d,
    "batch": nn.BatchNorm2d,
    "group": group_norm,
}


def build_resnet(name: Backbone, norm: Norm) -> resnet.ResNet:
    """Build a randomly initialised torchvision ResNet with the chosen normalisation.

    Args:
        name: ``resnet18``, ``resnet34`` or ``resnet50``.
        norm: ``frozen`` (batch norm with fixed statistics, for pretrained weights only),
            ``batch`` (live) or ``group``.

    Returns:
        The classifier network; the pyramid drops its last layer.

    Raises:
        InputError: Unknown name or norm.
    """
    if name not in BACKBONES:
        raise InputError(f"backbone: expected one of {', '.join(BACKBONES)}, but got {name!r}")
    if norm not in NORMS:
        raise InputError(f"norm: expected one of {', '.join(NORMS)}, but got {norm!r}")
    return BACKBONES[name](weights=None, norm_layer=NORMS[norm])


def build_pyramid(body: resnet.ResNet, channels: int, *, p6_from_c5: bool) -> BackboneWithFPN:
    """Put a feature pyramid with levels P3 to P7 (strides 8 to 128) on a ResNet.

    P2 is left out, as in the paper: it would hold three quarters of all anchors.

    Args:
        body: The network that gives C3, C4 and C5.
        channels: Channels of every pyramid level.
        p6_from_c5: Whether P6 starts from C5 (torchvision's v2) or from P5 (v1).

    Returns:
        A module that maps (B, 3, S, S) to five maps of ``channels`` channels.

    Source:
        Lin et al. 2017, Feature Pyramid Networks; Lin et al. 2017, Focal Loss.
    """
    widths = [body.inplanes // 4, body.inplanes // 2, body.inplanes]  # C3, C4, C5
    top = LastLevelP6P7(widths[-1] if p6_from_c5 else channels, channels)
    # torchvision guesses this from the channel counts, which may be equal by chance.
    top.use_P5 = not p6_from_c5
    levels = {"layer2": "0", "layer3": "1", "layer4": "2"}
    return BackboneWithFPN(body, levels, widths, channels, extra_blocks=top)


def freeze_stages(backbone: BackboneWithFPN, trainable_layers: int) -> list[nn.Module]:
    """Stop the gradient of all but the last stages of the ResNet under a pyramid.

    Args:
        backbone: From `build_pyramid`.
        trainable_layers: How many of layer4, layer3, layer2, layer1 and conv1 (with its norm)
            learn, counted from the top; 0 to 5.

    Returns:
        The frozen modules. Their live batch norm, if any, must stay in evaluation mode.

    Raises:
        InputError: The count is outside 0 to 5.
    """
    if not 0 <= trainable_layers <= len(STAGES):
        raise InputError(
            f"trainable_layers: expected 0 to {len(STAGES)}, but got {trainable_layers}"
        )
    learning = set(STAGES[:trainable_layers])
    if "conv1" in learning:
        learning.add("bn1")
    frozen = [stage for name, stage in backbone.body.named_children() if name not in learning]
    for stage in frozen:
        stage.requires_grad_(False)
    return frozen
