"""Sections ``[model]`` of a configuration: one class for each architecture."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from cxr_compare.data_prep.contracts.own_parts import is_own_part, own_part
from cxr_compare.networks import registry

Fraction = Annotated[float, Field(ge=0, lt=1)]


Positive = Annotated[float, Field(gt=0)]


Side = Annotated[float, Field(ge=1)]


NotNegative = Annotated[float, Field(ge=0)]


Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Section(BaseModel):
    """Base class of the sections of settings files in TOML, such as ``[training]``.

    A subclass has a field for each key. An unknown key and a value of a wrong type are errors.
    """

    # Strict: TOML has types, so `epochs = "3"` or `seed = true` is an error.
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True
    )


def _network(kind: registry.ModelKind) -> PlainValidator:
    """Return a rule for the name of a network that this kind of model may use."""

    def check(value: Any) -> str:
        names = registry.network_names(kind)
        if isinstance(value, str) and (value in names or value.startswith(registry.TIMM)):
            return value
        if is_own_part(value) and kind == "classifier":
            return str(value)
        raise ValueError(registry.describe_unknown(value, kind))

    return PlainValidator(check)


def _check_trainable(value: Any) -> Any:
    if value in ("all", "head", "head_first", "stages") or (type(value) is int and 0 <= value <= 5):
        return value
    raise ValueError(
        f"must be all, head, head_first, stages or a number of stages, 0 to 5, got {value!r}"
    )


_NAME = WithJsonSchema({"type": "string"})


DetectorBackbone = Annotated[str, _network("detector"), _NAME]


ClassifierBackbone = Annotated[str, _network("classifier"), _NAME]


_STAGES = WithJsonSchema(
    {
        "anyOf": [
            {"enum": ["all", "head", "head_first", "stages"]},
            {"type": "integer", "minimum": 0, "maximum": 5},
        ]
    }
)


Trainable = Annotated[
    Literal["all", "head", "head_first", "stages"] | int, PlainValidator(_check_trainable), _STAGES
]


def _none_as_left_out(value: Any) -> Any:
    return None if value == "none" else value


LastStride = Annotated[Literal[16, 32] | None, BeforeValidator(_none_as_left_out)]


@dataclass(frozen=True)
class Changes:
    """Metadata of a setting: what another value of it changes in a model.

    `shape`: tensors get another shape, so that weights of another value do not fit. `loss`: only
    the loss of a training changes; the weights fit.
    """

    shape: bool = False
    loss: bool = False


CHANGES_SHAPE = Changes(shape=True)
CHANGES_LOSS = Changes(loss=True)


def settings_that_change(settings: type[BaseModel], what: Literal["shape", "loss"]) -> set[str]:
    """Return the keys of a section whose metadata says that they change the shape or the loss.

    Example:
        >>> settings_that_change(RetinaNetSettings, "loss")
        {'box_loss'}
    """
    return {
        name
        for name, field in settings.model_fields.items()
        if any(isinstance(entry, Changes) and getattr(entry, what) for entry in field.metadata)
    }


class ModelSettings(Section):
    """Keys of ``[model]`` that detectors and classifiers share.

    Attributes:
        trainable: Parts of the backbone whose weights are trained: ``all``, ``head`` (no part of
            the backbone), ``head_first`` (no part in the first epoch, then all), ``stages`` (none
            in the first epoch, then one more in each epoch, from the deepest), or the number of
            stages from the deepest. None trains the three deepest stages if `weights` are published
            ones, else all.
    """

    backbone: Annotated[str, CHANGES_SHAPE] = Field(
        min_length=1, description="the network that the model is built on"
    )
    weights: str = Field(
        default="none", description="imagenet, a file, or a run folder: docs/models.md"
    )
    trainable: Trainable | None = Field(
        default=None,
        description="what learns; a number: so many stages of the backbone, from the deepest; left "
        "out: 3 with imagenet or coco, else all",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile of the backbone: minutes at the start, then faster on a GPU",
    )

    @model_validator(mode="after")
    def _frozen_needs_weights(self) -> Self:
        if self.trainable not in (None, "all") and self.weights == "none":
            raise ValueError(
                f"trainable = {self.trainable!r} keeps stages as they are, and weights = 'none' "
                "makes them random; choose weights, or trainable = 'all'"
            )
        return self


class DetectorModelSettings(ModelSettings):
    """Keys of ``[model]`` that every detector has.

    `detector_settings` returns the class with all keys of one architecture.
    """

    architecture: str = Field(default="retinanet", description="see docs/models.md")


class BackboneDetectorSettings(DetectorModelSettings):
    """Keys of the detectors of this program, in addition to those of every detector."""

    backbone: Annotated[DetectorBackbone, CHANGES_SHAPE] = Field(
        default="resnet50", description="a network of docs/models.md, or timm:NAME"
    )
    norm: Literal["frozen", "batch", "group"] = Field(
        default="frozen", description="batch norm as pretrained, live, or group norm"
    )

    @model_validator(mode="after")
    def _statistics_need_weights(self) -> Self:
        if self.weights == "none" and self.norm == "frozen":
            raise ValueError(
                "norm = 'frozen' keeps pretrained statistics, and weights = 'none' has none; "
                "choose norm = 'batch' (or 'group' for batches below 8)"
            )
        if self.weights == "imagenet" and self.norm == "group":
            raise ValueError(
                "weights = 'imagenet' were made with batch norm; choose norm = 'frozen' or "
                "'batch', not 'group'"
            )
        return self


class AnchorDetectorSettings(BackboneDetectorSettings):
    """Keys of the detectors with anchors on five levels of a feature pyramid."""

    fpn_channels: Annotated[int, CHANGES_SHAPE] = Field(
        default=256, ge=8, le=1024, description="width of the pyramid"
    )
    anchor_sizes: list[Side] | None = Field(
        default=None,
        min_length=5,
        max_length=5,
        description="px, the smallest on each level of the pyramid; left out: by image_size",
    )
    anchor_ratios: Annotated[list[Positive], CHANGES_SHAPE] = Field(
        default=[0.5, 1.0, 2.0], min_length=1, description="height over width"
    )


class RetinaNetSettings(AnchorDetectorSettings):
    """Keys of RetinaNet; `detection.retinanet.LesionRetinaNet` takes them as arguments.

    Attributes:
        head: Version of the head: ``v2`` has group norm and the GIoU loss, ``v1`` neither.
        head_convs: Number of convolutions in each of the two heads, which classify and place the
            boxes.
    """

    head: Annotated[Literal["v1", "v2"], CHANGES_SHAPE] = Field(
        default="v2", description="v2: group norm and GIoU, as torchvision's second version"
    )
    head_convs: Annotated[int, CHANGES_SHAPE] = Field(
        default=4, ge=1, le=4, description="depth of the heads"
    )
    weights: str = Field(
        default="none", description="imagenet, coco, a file, or a run folder: docs/models.md"
    )
    box_loss: Annotated[
        Literal["auto", "l1", "smooth_l1", "giou", "diou", "ciou"], CHANGES_LOSS
    ] = Field(default="auto", description="auto: l1 in head v1, giou in v2")

    @model_validator(mode="after")
    def _groups_of_channels(self) -> Self:
        if self.head == "v2" and self.fpn_channels % 8:
            raise ValueError(
                f"head = 'v2' has group norms of 8 channels, and fpn_channels = "
                f"{self.fpn_channels} is no multiple of 8; set fpn_channels = "
                f"{-(-self.fpn_channels // 8) * 8}"
            )
        return self


class DeformableDetrSettings(BackboneDetectorSettings):
    """Keys of Deformable DETR; `detection.others.detr.LesionDetr` takes them as arguments."""

    queries: Annotated[int, CHANGES_SHAPE] = Field(
        default=300, ge=1, le=1000, description="boxes looked for in an image"
    )
    channels: Annotated[int, CHANGES_SHAPE] = Field(
        default=256, ge=32, le=1024, multiple_of=32, description="width of the transformer"
    )
    encoder_layers: Annotated[int, CHANGES_SHAPE] = Field(
        default=6, ge=1, le=12, description="on the maps of all levels"
    )
    decoder_layers: Annotated[int, CHANGES_SHAPE] = Field(
        default=6, ge=1, le=12, description="each with its own losses"
    )


class RtDetrSettings(DeformableDetrSettings):
    """Keys of RT-DETR and D-FINE; `detection.others.detr.LesionDetr` takes them as arguments.

    Attributes:
        denoising: Number of additional queries that are made of noisy true boxes in training
            (denoising); 0 makes none.
    """

    encoder_layers: Annotated[int, CHANGES_SHAPE] = Field(
        default=1, ge=1, le=12, description="on the deepest maps"
    )
    denoising: Annotated[int, CHANGES_SHAPE] = Field(
        default=100, ge=0, le=500, description="queries made of the true boxes while it learns"
    )


class FCOSSettings(BackboneDetectorSettings):
    """Keys of FCOS; `detection.others.torchvision_detectors.LesionFCOS` takes them as arguments.

    Attributes:
        head_convs: Number of convolutions in each of the two heads, which classify and place the
            boxes.
    """

    fpn_channels: Annotated[int, CHANGES_SHAPE] = Field(
        default=256, ge=8, le=1024, multiple_of=8, description="width of the pyramid"
    )
    head_convs: Annotated[int, CHANGES_SHAPE] = Field(
        default=4, ge=1, le=4, description="depth of the heads"
    )


class FasterRCNNSettings(AnchorDetectorSettings):
    """Keys of Faster R-CNN, the arguments of `torchvision_detectors.LesionFasterRCNN`."""

    box_channels: Annotated[int, CHANGES_SHAPE] = Field(
        default=1024, ge=8, le=4096, description="width of the layers that classify a proposal"
    )


_SETTINGS_BY_ARCHITECTURE: dict[str, type[DetectorModelSettings]] = {
    "retinanet": RetinaNetSettings,
    "rt_detr": RtDetrSettings,
    "d_fine": RtDetrSettings,
    "deformable_detr": DeformableDetrSettings,
    "fcos": FCOSSettings,
    "faster_rcnn": FasterRCNNSettings,
    "ssdlite": BackboneDetectorSettings,
}


def own_detector(name: str) -> Any:
    """Import a detector class of the user's own, ``MODULE:NAME`` of a subclass of `Detector`.

    Raises ValueError if the name is of no architecture, or its class cannot be imported or is no
    detector.
    """
    if not is_own_part(name):
        names = registry.DETECTORS
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"must be one of {', '.join(names)}, or MODULE:NAME, got {name!r}{hint}")
    found = own_part(name, name)
    if not hasattr(found, "Settings"):
        raise ValueError(f"{name} has no Settings; inherit from cxr_compare.detection.detector")
    return found


def detector_settings(architecture: str) -> type[DetectorModelSettings]:
    """Return the class with the keys that a detector architecture has in the section ``[model]``.

    The architecture may be ``MODULE:NAME`` of a detector of the user's own. Raises ValueError if
    there is none.
    """
    own_settings = _SETTINGS_BY_ARCHITECTURE.get(architecture)
    return own_settings or own_detector(architecture).Settings


class ClassifierModelSettings(ModelSettings):
    """Keys of an image classifier, the arguments of `classification.model.build_classifier`.

    Attributes:
        last_stride: Side of one cell of the last feature maps in px of the input, 16 or 32; None
            keeps the stride of the network.
        dropout: Share of the pooled features that is set to zero in training, in [0, 1).
        trainable: As for `ModelSettings`. ``none`` makes the model a probe (a fitted linear layer
            on frozen features), which has its own keys.
    """

    backbone: Annotated[ClassifierBackbone, CHANGES_SHAPE] = Field(
        default="densenet121",
        description="a network of docs/models.md, timm:NAME, or MODULE:NAME of yours",
    )
    last_stride: LastStride = Field(
        default=None, description="px a cell of the heat map; none or left out: the network's own"
    )
    dropout: Fraction = Field(default=0.0, description="of the pooled features")
    trainable: Trainable = Field(
        default="all",
        description="what learns; a number: so many stages of the network, from the deepest; "
        "none: a probe, whose last layer is a logistic regression",
    )


class ProbeModelSettings(Section):
    """Keys of a probe's encoder: a network with its weights.

    A probe is a linear layer that is fitted to the features of a frozen encoder.
    """

    backbone: Annotated[str, _network("classifier"), _NAME] = Field(
        description="a network of docs/models.md, or timm:NAME"
    )
    weights: str = Field(description="imagenet, a file, or a run folder: docs/models.md")
    last_stride: LastStride = Field(
        default=None, description="px a cell of the heat map; none or left out: the network's own"
    )
    trainable: Literal["none"] = Field(
        default="none", description="the encoder stays as it is, and the last layer is fitted"
    )

    @model_validator(mode="after")
    def _known_weights(self) -> Self:
        if self.weights == "none":
            raise ValueError(
                "trainable = 'none' keeps the backbone as it is, and weights = 'none' makes it "
                "random; set weights to imagenet, a file or a run folder"
            )
        return self
