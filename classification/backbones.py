"""The convolutional trunks that a classifier may stand on."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum, mobilenetv2, mobilenetv3, vgg

from classification.receptive_field import trace_grid
from classification.timm_zoo import TIMM, build_timm, timm_fixed_size, timm_normalisation
from data_prep.contracts.errors import InputError
from networks import efficientnet_lite as lite
from networks.efficientnet_lite import EfficientNetLite
from networks.published import IMAGENET, PackagedWeights

STRIDES = (16, 32)
_TOPS = ("avgpool", "fc", "dropout", "AuxLogits")


@dataclass(frozen=True)
class Recipe:
    """How one backbone is built.

    Attributes:
        build: Makes the layers with random weights; takes whether to leave out the last halving,
            which moves no weight.
        imagenet: Its published weights; None where there are none here.
        strides: What `last_stride` may be.
        rectify: Whether a rectifier follows that is no layer of the network.
        mean: Mean of the pixels that the published weights want, in [0, 1].
        std: Standard deviation, likewise.
        renamed: Beginnings of names in torchvision's whole network that are others here.
        size: Side of the only images that it takes, px; None where any will do.
    """

    build: Callable[[bool], nn.Module]
    imagenet: WeightsEnum | PackagedWeights | None
    strides: tuple[int, ...] = STRIDES
    rectify: bool = False
    mean: float = IMAGENET[0]
    std: float = IMAGENET[1]
    renamed: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None

    @property
    def smallest(self) -> int:
        """Side of the smallest image that it takes, px."""
        return 32 if self.imagenet is None else max(self.imagenet.meta["min_size"])


class PooledNorm(nn.Module):
    """A layer norm of pooled features, done to the maps before they are pooled.

    Its statistics are those of the pooled maps, and one affine map a channel commutes with the
    mean: pooling its output gives exactly what norming the pooled maps gives, and class
    activation maps stay exact.

    Args:
        channels: Of the maps.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        plain = nn.LayerNorm(channels)
        self.weight, self.bias, self.eps = plain.weight, plain.bias, eps

    def forward(self, maps: Tensor) -> Tensor:
        """Norm float (B, C, h, w); the same shape."""
        pooled = maps.float().mean(dim=(2, 3))  # (B, C)
        spread = (pooled.var(dim=1, correction=0) + self.eps).rsqrt()[:, None, None, None]
        middle = pooled.mean(dim=1)[:, None, None, None]
        return (maps - middle) * spread * self.weight[:, None, None] + self.bias[:, None, None]


def _densenet(build: Callable[[], nn.Module], finer: bool) -> nn.Module:
    features = build().get_submodule("features")
    if finer:
        features.get_submodule("transition3").pool = nn.Identity()
    return features


def _children(build: Callable[[], nn.Module], finer: bool) -> nn.Module:
    """ResNet and Inception have their layers at their top, in the order of the forward."""
    network = build()
    if finer:
        first = network.get_submodule("layer4.0")
        strided = [m for m in first.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
        for layer in strided:  # one in the block, one beside it
            layer.stride = (1, 1)
    kept = [(name, layer) for name, layer in network.named_children() if name not in _TOPS]
    return nn.Sequential(OrderedDict(kept))


def _features(build: Callable[[], nn.Module], finer: bool) -> nn.Module:
    """MobileNet and EfficientNet halve by one convolution each time.

    At stride 1 each is padded alike on both sides, EfficientNet-Lite's, too.
    """
    features = build().get_submodule("features")
    if finer:
        [*_, last] = [m for m in features.modules() if isinstance(m, nn.Conv2d) and m.stride[0] > 1]
        last.stride = (1, 1)
    return features


def _vgg(depth: str, batch_norm: bool, finer: bool) -> nn.Module:
    # Not by the whole network, whose first linear layer alone is 400 MB that nothing here reads.
    features = vgg.make_layers(vgg.cfgs[depth], batch_norm=batch_norm)
    for layer in features:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:  # as torchvision starts them
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    if finer:
        features[-1] = nn.Identity()
    return features


def _convnext(finer: bool) -> nn.Module:
    network = models.convnext_tiny()
    norm = network.classifier[0]
    layers = list(network.features.named_children())
    return nn.Sequential(
        OrderedDict([*layers, ("norm", PooledNorm(norm.normalized_shape[0], norm.eps))])
    )


def _small_cnn(finer: bool) -> nn.Module:
    """Five blocks of convolution, rectifier, dropout, batch norm and pooling."""
    blocks: list[tuple[str, nn.Module]] = []
    before = 3
    for width, dropout in ((32, 0.0), (64, 0.1), (64, 0.0), (128, 0.2), (256, 0.2)):
        last = finer and len(blocks) == 4
        parts: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(before, width, 3, padding=1)),
            ("relu", nn.ReLU(inplace=True)),
            ("dropout", nn.Dropout(dropout)),
            ("norm", nn.BatchNorm2d(width)),
            ("pool", nn.Identity() if last else nn.MaxPool2d(2)),
        ]
        blocks.append((f"block{len(blocks) + 1}", nn.Sequential(OrderedDict(parts))))
        before = width
    return nn.Sequential(OrderedDict(blocks))


def _recipes() -> dict[str, Recipe]:
    found = {}
    published = {
        "densenet121": (_densenet, models.DenseNet121_Weights.IMAGENET1K_V1),
        "resnet18": (_children, models.ResNet18_Weights.IMAGENET1K_V1),
        "resnet34": (_children, models.ResNet34_Weights.IMAGENET1K_V1),
        "resnet50": (_children, models.ResNet50_Weights.IMAGENET1K_V1),
        "resnet101": (_children, models.ResNet101_Weights.IMAGENET1K_V1),
        "resnet152": (_children, models.ResNet152_Weights.IMAGENET1K_V1),
        "mobilenet_v2": (_features, mobilenetv2.MobileNet_V2_Weights.IMAGENET1K_V1),
        "mobilenet_v3_small": (_features, mobilenetv3.MobileNet_V3_Small_Weights.IMAGENET1K_V1),
        "mobilenet_v3_large": (_features, mobilenetv3.MobileNet_V3_Large_Weights.IMAGENET1K_V1),
        "efficientnet_b0": (_features, models.EfficientNet_B0_Weights.IMAGENET1K_V1),
        "efficientnet_b1": (_features, models.EfficientNet_B1_Weights.IMAGENET1K_V1),
        "efficientnet_b2": (_features, models.EfficientNet_B2_Weights.IMAGENET1K_V1),
        "efficientnet_b3": (_features, models.EfficientNet_B3_Weights.IMAGENET1K_V1),
        "efficientnet_b4": (_features, models.EfficientNet_B4_Weights.IMAGENET1K_V1),
    }
    for name, (family, weights) in published.items():
        build = partial(family, getattr(models, name))
        # The rectifier behind DenseNet's last norm is no layer of it.
        rectify = family is _densenet
        found[name] = Recipe(build, weights, rectify=rectify)
    return found


BACKBONES: dict[str, Recipe] = {
    **_recipes(),
    "vgg16": Recipe(partial(_vgg, "D", False), models.VGG16_Weights.IMAGENET1K_V1),
    "vgg16_bn": Recipe(partial(_vgg, "D", True), models.VGG16_BN_Weights.IMAGENET1K_V1),
    "vgg19": Recipe(partial(_vgg, "E", False), models.VGG19_Weights.IMAGENET1K_V1),
    "vgg19_bn": Recipe(partial(_vgg, "E", True), models.VGG19_BN_Weights.IMAGENET1K_V1),
    # Its convolutions are not padded: without the last halving its branches would not fit.
    "inception_v3": Recipe(
        lambda finer: _children(
            partial(models.inception_v3, aux_logits=False, init_weights=True), False
        ),
        models.Inception_V3_Weights.IMAGENET1K_V1,
        strides=(32,),
        mean=0.5,
        std=0.5,
    ),
    # Halves by 2 x 2 pixels side by side, which at stride 1 would no longer lie side by side.
    "convnext_tiny": Recipe(
        _convnext,
        models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1,
        strides=(32,),
        renamed={"classifier.0.": "norm."},
    ),
    "squeezenet1_1": Recipe(
        lambda finer: models.squeezenet1_1().features,
        models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
        strides=(16,),
    ),
    **{
        name: Recipe(
            partial(_features, partial(EfficientNetLite, name)),
            size.imagenet,
            mean=lite.MEAN,
            std=lite.STD,
        )
        for name, size in lite.SIZES.items()
    },
    "small_cnn": Recipe(_small_cnn, None),
}


# Published comparisons name networks that do not exist; what their authors may have meant.
NOT_A_NETWORK = {"resnet121": "densenet121, or resnet101"}
_PROBE = 128  # px: every network here takes it


@dataclass(frozen=True)
class Trunk:
    """A convolutional network without its classification layer.

    Attributes:
        layers: Maps float (B, 3, S, S) to float (B, channels, h, w).
        channels: Channels of the last maps.
        stride: Input pixels from one cell of the last maps to the next.
        centre: Where the first cell looks, in px from the image's left or upper edge: the middle
            of its receptive field. Each further cell looks `stride` further.
        rectify: Whether a rectifier follows that is no layer of the network.
    """

    layers: nn.Module
    channels: int
    stride: int
    centre: float
    rectify: bool = False


def find_recipe(name: str) -> Recipe:
    """How a backbone is built.

    Args:
        name: A key of `BACKBONES`, or ``timm:`` and a name of timm's.

    Raises:
        InputError: There is no such backbone, or timm is not installed.

    Example:
        >>> find_recipe("inception_v3").smallest
        75
    """
    if name.startswith(TIMM):
        mean, std = timm_normalisation(name)
        size = timm_fixed_size(name)
        return Recipe(lambda finer: build_timm(name), None, (), mean=mean, std=std, size=size)
    if name in BACKBONES:
        return BACKBONES[name]
    if meant := NOT_A_NETWORK.get(name.lower()):
        raise InputError(f"architecture: there is no {name}; the paper may mean {meant}")
    near = difflib.get_close_matches(name, BACKBONES, n=1)
    raise InputError(
        f"architecture: expected one of {', '.join(BACKBONES)} or {TIMM}NAME, but got {name!r}"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def build_trunk(name: str, last_stride: int, image_size: int = _PROBE) -> Trunk:
    """Build a trunk with random weights.

    Args:
        name: A key of `BACKBONES`, or ``timm:`` and a name of timm's.
        last_stride: Input pixels per position of the last maps: 32, or 16 to leave out the last
            halving where the network can be without it. Leaving it out moves no weight: the same
            file fits both.
        image_size: Side of the images, px.

    Returns:
        The trunk.

    Raises:
        InputError: Unknown name, a stride that this network does not have, images of a size that
            it does not take, or a network without feature maps.
    """
    recipe = find_recipe(name)
    if last_stride not in STRIDES:
        raise InputError(f"last_stride: expected 16 or 32, but got {last_stride}")
    if recipe.strides and last_stride not in recipe.strides:
        raise InputError(
            f"last_stride: {name} has cells of {recipe.strides[0]} px only; set model.last_stride "
            f"= {recipe.strides[0]}"
        )
    if image_size < recipe.smallest:
        raise InputError(
            f"{name}: needs images of at least {recipe.smallest} px, but gets {image_size}; set "
            "data.image_size"
        )
    layers = recipe.build(last_stride == 16)
    try:
        grid, channels, _ = trace_grid(layers, image_size, whole=recipe.size is not None)
    except InputError as error:
        raise InputError(f"{name}: {error}; choose a convolutional network") from None
    except Exception as error:  # networks of one size say so by errors of many kinds
        if not name.startswith(TIMM):
            raise
        raise _other_size(name, layers, image_size, recipe.size, _reason(error)) from None
    if grid.stride != last_stride:
        raise InputError(
            f"last_stride: {name} has cells of {grid.stride} px, not {last_stride}"
            + (f"; set model.last_stride = {grid.stride}" if grid.stride in STRIDES else "")
        )
    return Trunk(layers, channels, grid.stride, grid.centre, recipe.rectify)


def _other_size(
    name: str, layers: nn.Module, image_size: int, takes: int | None, reason: str
) -> InputError:
    """The line for images of a size that a network does not take."""
    if takes is None or takes == image_size:
        return InputError(
            f"{name}: cannot read images of {image_size} px ({reason}); choose another "
            "data.image_size, or another network"
        )
    told = f"{name}: takes images of {takes} px only, but gets {image_size}"
    try:
        trace_grid(layers, takes, whole=True)
    except InputError as error:  # else its user would be sent from one error to the next
        return InputError(f"{told}, and {error}; choose a convolutional network")
    if takes % 32:
        return InputError(f"{told}, and no pixel store has {takes}; choose another network")
    return InputError(f"{told}; set data.image_size = {takes}")


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


@cache
def trunk_stages(name: str) -> tuple[tuple[str, ...], ...]:
    """A trunk's layers in stages, from the image on: each begins where the maps get smaller.

    Args:
        name: A key of `BACKBONES`, or ``timm:`` and a name of timm's.

    Returns:
        Names of the trunk's children; one without weights belongs to the stage before.

    Example:
        >>> trunk_stages("resnet18")[-2:]
        (('layer3',), ('layer4',))
    """
    with torch.random.fork_rng(devices=()):
        recipe = find_recipe(name)
        layers = recipe.build(False)
    size, whole = recipe.size or _PROBE, recipe.size is not None
    stages: list[list[str]] = [[]]
    last = 0
    for child, stride in trace_grid(layers, size, whole=whole)[2].items():
        learns = any(True for _ in layers.get_submodule(child).parameters())
        if stride > last and learns and last:
            stages.append([])
        last = stride if learns else last
        stages[-1].append(child)
    return tuple(tuple(stage) for stage in stages)
