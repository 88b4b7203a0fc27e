"""The keys of a training configuration, their types and their ranges."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from functools import cache, partial
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    create_model,
    model_validator,
)

from cxr_compare.networks import registry

_Fraction = Annotated[float, Field(ge=0, lt=1)]
_Positive = Annotated[float, Field(gt=0)]
_Side = Annotated[float, Field(ge=1)]
_NotNegative = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Section(BaseModel):
    """What every table of a settings file keeps to."""

    # Strict: TOML has types, so `epochs = "3"` or `seed = true` is a slip, not a wish.
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True
    )


def _network(kind: registry.ModelKind) -> PlainValidator:
    """A rule for the name of a network that this kind of model may stand on."""

    def check(value: Any) -> str:
        known = registry.network_names(kind)
        if isinstance(value, str) and (value in known or value.startswith(registry.TIMM)):
            return value
        raise ValueError(registry.describe_unknown(value, kind))

    return PlainValidator(check)


def _check_trainable(value: Any) -> Any:
    if value in ("all", "head", "head_first", "stages") or (type(value) is int and 0 <= value <= 5):
        return value
    raise ValueError(
        f"must be all, head, head_first, stages or a number of stages, 0 to 5, got {value!r}"
    )


_NAME = WithJsonSchema({"type": "string"})
_Backbone = Annotated[str, _network("detector"), _NAME]
_Trunk = Annotated[str, _network("classifier"), _NAME]
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


class _ModelSettings(Section):
    """What detectors and classifiers are both asked."""

    backbone: str = Field(min_length=1, description="the network that the model stands on")
    weights: str = Field(
        default="none", description="imagenet, a file, or a run folder: docs/weights.md"
    )
    trainable: Trainable | None = Field(
        default=None,
        description="what learns; a number: so many stages of the backbone, from the deepest; left "
        "out: 3 with imagenet or coco, else all",
    )

    @model_validator(mode="after")
    def _frozen_needs_weights(self) -> Self:
        if self.trainable not in (None, "all") and self.weights == "none":
            raise ValueError(
                f"trainable = {self.trainable!r} keeps stages as they are, and weights = 'none' "
                "makes them random; choose weights, or trainable = 'all'"
            )
        return self


class DetectorModelSettings(_ModelSettings):
    """What every detector is asked; see `detector_settings` for the keys of each architecture."""

    architecture: str = Field(default="retinanet", description="see docs/architectures.md")


class _BodySettings(DetectorModelSettings):
    """Of the detectors here, whose bodies are networks of docs/weights.md."""

    backbone: _Backbone = Field(
        default="resnet50", description="a network of docs/weights.md, or timm:NAME"
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
        return self


class _AnchorSettings(_BodySettings):
    """Of detectors with anchors on five levels of a pyramid."""

    fpn_channels: int = Field(default=256, ge=8, le=1024, description="width of the pyramid")
    anchor_sizes: list[_Side] | None = Field(
        default=None, min_length=5, max_length=5,
        description="px, the smallest on each level of the pyramid; left out: by image_size",
    )  # fmt: skip
    anchor_ratios: list[_Positive] = Field(
        default=[0.5, 1.0, 2.0], min_length=1, description="height over width"
    )


class RetinaNetSettings(_AnchorSettings):
    """RetinaNet; the keys are arguments of `detection.retinanet.LesionRetinaNet`."""

    head: Literal["v1", "v2"] = Field(
        default="v2", description="v2: group norm and GIoU, as torchvision's second version"
    )
    head_convs: int = Field(default=4, ge=1, le=4, description="depth of the heads")
    weights: str = Field(
        default="none", description="imagenet, coco, a file, or a run folder: docs/weights.md"
    )
    box_loss: Literal["auto", "l1", "smooth_l1", "giou", "diou", "ciou"] = Field(
        default="auto", description="auto: l1 in head v1, giou in v2"
    )


class _DeformableDetrSettings(_BodySettings):
    """Deformable DETR; the keys are arguments of `detection.detr.LesionDetr`."""

    queries: int = Field(default=300, ge=1, le=1000, description="boxes looked for in an image")
    channels: int = Field(
        default=256, ge=32, le=1024, multiple_of=32, description="width of the transformer"
    )
    encoder_layers: int = Field(default=6, ge=1, le=12, description="on the maps of all levels")
    decoder_layers: int = Field(default=6, ge=1, le=12, description="each with its own losses")


class RtDetrSettings(_DeformableDetrSettings):
    """RT-DETR and D-FINE; likewise."""

    encoder_layers: int = Field(default=1, ge=1, le=12, description="on the deepest maps")
    denoising: int = Field(
        default=100, ge=0, le=500, description="queries made of the true boxes while it learns"
    )


class FCOSSettings(_BodySettings):
    """FCOS; the keys are arguments of `detection.torchvision_detectors.LesionFCOS`."""

    fpn_channels: int = Field(
        default=256, ge=8, le=1024, multiple_of=8, description="width of the pyramid"
    )
    head_convs: int = Field(default=4, ge=1, le=4, description="depth of the heads")


class FasterRCNNSettings(_AnchorSettings):
    """Faster R-CNN; the keys are arguments of `LesionFasterRCNN`, likewise."""

    box_channels: int = Field(
        default=1024, ge=8, le=4096, description="width of the layers that classify a proposal"
    )


_DETECTORS: dict[str, type[DetectorModelSettings]] = {
    "retinanet": RetinaNetSettings,
    "rt_detr": RtDetrSettings,
    "d_fine": RtDetrSettings,
    "deformable_detr": _DeformableDetrSettings,
    "fcos": FCOSSettings,
    "faster_rcnn": FasterRCNNSettings,
    "ssdlite": _BodySettings,
}
_ENTRY_POINTS = "cxr_compare.detectors"  # a class with `Settings`: docs/architectures.md


def _detector_names() -> list[str]:
    """Architectures of detectors: those here, and those that installed packages bring."""
    here = registry.DETECTORS
    return [*here, *sorted(entry_points(group=_ENTRY_POINTS).names - set(here))]


def foreign_detector(name: str) -> Any:
    """The class of a detector that an installed package brings.

    Raises:
        ValueError: None brings it, or it cannot be imported.
    """
    names = _detector_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"must be one of {', '.join(names)}, got {name!r}{meant}")
    [found] = entry_points(group=_ENTRY_POINTS, name=name)
    try:
        return found.load()
    except Exception as error:
        raise ValueError(f"{name} of {found.value} cannot be imported: {error}") from error


class ClassifierModelSettings(_ModelSettings):
    """An image classifier; the keys are the arguments of `classification.model`."""

    backbone: _Trunk = Field(
        default="densenet121", description="a network of docs/weights.md, or timm:NAME"
    )
    last_stride: Literal[16, 32] | None = Field(
        default=None, description="px a cell of the heat map; left out: the network's own"
    )
    dropout: _Fraction = Field(default=0.0, description="of the pooled features")
    trainable: Trainable = Field(
        default="all",
        description="what learns; a number: so many stages of the network, from the deepest",
    )


def _or_auto(bounds: Mapping[str, int], value: Any) -> Any:
    # One rule in one place: a union of types would answer a slip once for each of its types.
    least, most = bounds["minimum"], bounds.get("maximum", math.inf)
    if value == "auto" or (type(value) is int and least <= value <= most):
        return value
    end = f" and at most {most}" if "maximum" in bounds else ""
    raise ValueError(f"must be a whole number of at least {least}{end}, or 'auto', got {value!r}")


def _whole_or_auto(**bounds: int) -> tuple[Any, Any]:
    schema = {"anyOf": [{"type": "integer", **bounds}, {"const": "auto"}]}
    return PlainValidator(partial(_or_auto, bounds)), WithJsonSchema(schema)


_BatchSize = Annotated[int | Literal["auto"], *_whole_or_auto(minimum=1)]
_Workers = Annotated[int | Literal["auto"], *_whole_or_auto(minimum=0, maximum=64)]


class _DataSettings(Section):
    """What is learned, on which images, at which size."""

    target: str | None = Field(
        default=None,
        min_length=1,
        description="what is learned; left out where the data set has one target",
    )
    split: str = Field(default="default", min_length=1, description="split of the data set")
    image_size: int = Field(ge=32, le=2048, multiple_of=32, description="px, a side")


class _DetectorDataSettings(_DataSettings):
    """As every data section, with room for the pyramid."""

    # At 64 px P6 is a single pixel, and oneDNN's bf16 gradient of the convolution from it to P7
    # is not initialised (torch 2.15 on AVX512-BF16): training would end in noise or NaN.
    image_size: int = Field(ge=96, le=2048, multiple_of=32, description="px, a side")


class _AugmentationSettings(Section):
    """How far each training image may be changed; 0 leaves a kind out."""

    rotate_degrees: float = Field(default=0.0, ge=0, le=45.0, description="degrees either way")
    scale: float = Field(default=0.0, ge=0, le=0.9, description="0.1: between 90 and 110 %")
    stretch: bool = Field(default=False, description="draw the scale of width and height apart")
    shift: float = Field(default=0.0, ge=0, le=0.9, description="of the image's side")
    brightness: float = Field(default=0.0, ge=0, le=1.0, description="of the grey range")
    contrast: float = Field(default=0.0, ge=0, le=1.0, description="0.1: between 90 and 110 %")
    gamma: float = Field(default=0.0, ge=0, le=3.0, description="0.5: between 1/1.5 and 1.5")
    blur: float = Field(default=0.0, ge=0, le=5.0, description="largest sigma, px")
    noise: float = Field(
        default=0.0, ge=0, le=1.0, description="largest standard deviation, of the grey range"
    )
    cutout: float = Field(default=0.0, ge=0, le=0.9, description="largest side of a hole, share")
    horizontal_flip: float = Field(default=0.0, ge=0, le=1.0, description="probability")
    mosaic: float = Field(
        default=0.0, ge=0, le=1, description="probability of four images in one; a detector's"
    )

    @model_validator(mode="after")
    def _stretch_has_a_range(self) -> Self:
        if self.stretch and not self.scale:
            raise ValueError(
                "stretch = true draws the scale of width and height apart, and scale is 0; set "
                "it, such as scale = 0.2"
            )
        return self


class TrainingSettings(Section):
    """How the weights are learned."""

    seed: int = Field(
        default=0, ge=0, lt=2**31, description="seed of weights, draws and augmentation"
    )
    epochs: _Count = Field(description="largest number of epochs")
    batch_size: _BatchSize = Field(
        description="images, of all devices together; auto: the most that fits"
    )
    accumulate: _Count = Field(default=1, description="batches that make one optimiser step")
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = Field(
        default="adamw", description="adam adds the decay to the gradient; sgd is Nesterov's"
    )
    learning_rate: _Positive = Field(description="peak of the schedule")
    weight_decay: _NotNegative = Field(default=0.01, description="of kernels; norms have none")
    momentum: _Fraction = Field(default=0.9, description="of sgd and rmsprop")
    schedule: Literal["one_cycle", "cosine", "step", "plateau", "constant"] = Field(
        default="one_cycle",
        description="after the warm-up; step: a tenth after 2/3 and 11/12 of the training; "
        "plateau: a tenth after 3 epochs in which monitor has not improved",
    )
    warmup_epochs: _NotNegative = Field(default=1.0, description="epochs of rising learning rate")
    clip: _NotNegative = Field(default=0.0, description="largest gradient norm; 0 does not clip")
    ema_decay: _Fraction = Field(
        default=0.0, description="decay of the averaged weights; 0 does not average"
    )
    positive_share: _Fraction = Field(
        default=0.0, description="share of positives in what is drawn; 0: as in the data"
    )
    patience: int = Field(
        default=0, ge=0, description="epochs without improvement; 0 never stops early"
    )
    monitor: str
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="auto: bf16 where the device computes in it, fp16 on older GPUs with tensor "
        "cores, else fp32 (never TF32); fp16: CUDA, the loss scaled",
    )
    workers: _Workers = Field(
        default="auto",
        description="processes that load, a device; 0 loads in this one; auto: 0 on a CPU, for a "
        "GPU what processors and shared memory allow, 8 at most",
    )
    loggers: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(
        default=[], description="beside metrics.csv; each needs its pip extra"
    )

    @model_validator(mode="after")
    def _plateau_can_be_met(self) -> Self:
        if self.schedule != "plateau":
            return self
        if self.monitor == "epoch":
            raise ValueError(
                "schedule = 'plateau' waits until monitor improves no more, and monitor = 'epoch' "
                "always does; choose a figure, such as monitor = 'val_loss'"
            )
        if 0 < self.patience <= 3:
            raise ValueError(
                f"patience = {self.patience} ends the training before schedule = 'plateau' lowers "
                "the rate, after 3 epochs without improvement; set patience above 3, or to 0"
            )
        return self


class _DetectorTrainingSettings(TrainingSettings):
    """As every training, the figure that picks the best epoch, and what is drawn more often."""

    monitor: Literal["ap50", "ap", "auroc", "val_loss", "epoch"] = Field(
        default="ap50", description="picks the best epoch on validation; epoch: the last"
    )


class _ClassifierTrainingSettings(TrainingSettings):
    """As every training, the figure that picks the best epoch, the loss, and softer targets."""

    monitor: Literal["auroc", "average_precision", "val_loss", "epoch"] = Field(
        default="auroc", description="picks the best epoch on validation; epoch: the last"
    )
    positive_weight: Literal["balanced"] | _Positive = Field(
        1.0, description="balanced: negatives over positives, as in the CheXNet paper"
    )
    label_smoothing: _Fraction = Field(
        default=0.0, description="0.1 teaches 0.95 and 0.05 in place of 1 and 0"
    )


class _Config(Section):
    name: str = Field(min_length=1, max_length=60, description="shown in the report")
    data: _DataSettings
    augmentation: _AugmentationSettings = _AugmentationSettings()


class DetectorConfig(_Config):
    """Everything that trains a detector; `config_class` has the keys of its architecture."""

    kind: Literal["detector"]
    data: _DetectorDataSettings
    model: DetectorModelSettings
    training: _DetectorTrainingSettings


class ClassifierConfig(_Config):
    """Everything that trains a classifier."""

    kind: Literal["classifier"]
    model: ClassifierModelSettings
    training: _ClassifierTrainingSettings

    @model_validator(mode="after")
    def _no_mosaic(self) -> Self:
        if self.augmentation.mosaic:
            raise ValueError(
                f"augmentation.mosaic = {self.augmentation.mosaic} joins the boxes of four "
                "images, and a classifier learns from none; set it to 0"
            )
        return self


Config = DetectorConfig | ClassifierConfig
KINDS = ("detector", "classifier")


@cache
def config_class(kind: str, architecture: str = "retinanet") -> type[Config]:
    """The configuration of a kind of model; of detectors each architecture has keys of its own.

    Raises:
        ValueError: There is no such architecture.
    """
    if kind == "classifier":
        return ClassifierConfig
    settings = _DETECTORS.get(architecture) or foreign_detector(architecture).Settings
    return create_model(DetectorConfig.__name__, __base__=DetectorConfig, model=(settings, ...))
