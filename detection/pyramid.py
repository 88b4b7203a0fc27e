"""The feature pyramid (P3-P7) on a body, and the stages of the body that learn."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from data_prep.contracts.errors import InputError
from detection.backbone import body_layers

TAP_STRIDES = (8, 16, 32)  # of C3, C4 and C5
STAGE_STRIDES = (32, 16, 8, 4, 2)  # the order in which they thaw


_DENSE_TAPS = {"transition2": "0", "transition3": "1", "norm5": "2"}


class DenseFeatures(nn.ModuleDict):
    """DenseNet's features at three strides, each normalised and rectified.

    A dense block ends in a bare concatenation, whose parts have scales of their own; what makes
    them fit for the next layer is the norm at the head of the transition. So C3 and C4 are taken
    there, where the network itself first looks at them, and C5 behind ``norm5``.

    Args:
        features: The ``features`` of torchvision's DenseNet; its tensors keep their names.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__(dict(features.named_children()))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Run the body.

        Args:
            pixels: float (B, 3, S, S).

        Returns:
            ``0``, ``1`` and ``2``: C3, C4 and C5, at least 0.
        """
        found = {}
        for name, layer in self.items():
            if name.startswith("transition"):
                norm, rectifier, *onward = layer.children()  # the rest: 1 x 1 convolution, pooling
                features = pixels = rectifier(norm(pixels))
                for step in onward:
                    pixels = step(pixels)
            else:
                pixels = layer(pixels)
                features = pixels.relu() if name in _DENSE_TAPS else pixels
            if name in _DENSE_TAPS:
                found[_DENSE_TAPS[name]] = features
        return found


def build_pyramid(
    name: str, body: nn.Module, channels: int, *, p6_from_c5: bool
) -> BackboneWithFPN:
    """Put a feature pyramid with levels P3 to P7 (strides 8 to 128) on a body.

    Each level starts from the last layer of its stride, which has seen most. P2 is left out, as
    in the paper: it would hold three quarters of all anchors.

    Args:
        name: The body's, a key of `detection.backbone.BACKBONES`.
        body: From `detection.backbone.build_body`.
        channels: Channels of every pyramid level.
        p6_from_c5: Whether P6 starts from C5 (torchvision's v2) or from P5 (v1).

    Returns:
        A module that maps (B, 3, S, S) to five maps of ``channels`` channels.

    Source:
        Lin et al. 2017, Feature Pyramid Networks; Lin et al. 2017, Focal Loss.
    """
    last = {layer.stride: layer for layer in body_layers(name)}
    taps = [last[stride] for stride in TAP_STRIDES]
    widths = [layer.channels for layer in taps]
    top = LastLevelP6P7(widths[-1] if p6_from_c5 else channels, channels)
    # torchvision guesses this from the channel counts, which may be equal by chance.
    top.use_P5 = not p6_from_c5
    levels = {layer.name: str(level) for level, layer in enumerate(taps)}
    pyramid = BackboneWithFPN(body, levels, widths, channels, extra_blocks=top)
    if name == "densenet121":
        pyramid.body = DenseFeatures(body)  # type: ignore[assignment]
    return pyramid


def freeze_stages(name: str, backbone: BackboneWithFPN, trainable_layers: int) -> list[nn.Module]:
    """Stop the gradient of all but the last stages of the body under a pyramid.

    A stage is what works at one stride: 32, 16, 8, 4, 2 from the top.

    =========== ======================= ============== ============== ======== ============
    stride      32                      16             8              4        2
    =========== ======================= ============== ============== ======== ============
    ResNet, -XT layer4                  layer3         layer2         layer1   conv1, bn1
    MobileNet L 13 to 16                7 to 12        4 to 6         2, 3     0, 1
    MobileNet S 9 to 12                 4 to 8         2, 3           1        0
    EfficientN. 6 to 8                  4, 5           3              2        0, 1
    Lite0       blocks 11 to 15, last   5 to 10        3, 4           1, 2     stem, 0
    DenseNet    transition3, block4, .. transition2, . transition1, . block1   conv0, norm0
    =========== ======================= ============== ============== ======== ============

    Args:
        name: The body's, a key of `detection.backbone.BACKBONES`.
        backbone: From `build_pyramid`.
        trainable_layers: How many stages learn, counted from the top; 0 to 5.

    Returns:
        The frozen modules. Their live batch norm, if any, must stay in evaluation mode.

    Raises:
        InputError: The count is outside 0 to 5.
    """
    if not 0 <= trainable_layers <= len(STAGE_STRIDES):
        raise InputError(
            f"trainable_layers: expected 0 to {len(STAGE_STRIDES)}, but got {trainable_layers}"
        )
    learning = STAGE_STRIDES[:trainable_layers]
    frozen = [
        backbone.body.get_submodule(layer.name)
        for layer in body_layers(name)
        if layer.stride not in learning
    ]
    for stage in frozen:
        stage.requires_grad_(False)
    return frozen
