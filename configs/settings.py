"""Keys of a training configuration, with their limits and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Side = Annotated[float, Field(ge=1)]


class SettingsSection(BaseModel):
    """Section of a settings file in TOML; an unknown key and a value of a wrong type are errors."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True
    )


class DataSettings(SettingsSection):
    """Keys of ``[data]``: what is learned, on which split, at which size."""

    target: str | None = Field(default=None, description="left out where the data set has one")
    split: str = Field(default="default", min_length=1, description="split of the data set")
    image_size: int = Field(ge=32, le=2048, multiple_of=32, description="px, a side")


class DetectorDataSettings(DataSettings):
    """Keys of ``[data]`` for a detector, whose pyramid needs larger images."""

    # At 64 px P6 is one pixel, and oneDNN's bf16 gradient of the convolution from it to P7 is
    # not initialised (torch 2.15 on AVX512-BF16): training would end in noise or NaN.
    image_size: int = Field(ge=96, le=2048, multiple_of=32, description="px, a side")


Detector = Literal["resnet18", "resnet50", "densenet121", "efficientnet_lite0"]
Classifier = Literal[
    "densenet121",
    "resnet18",
    "resnet50",
    "resnet101",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_lite0",
    "vgg16",
    "vgg19",
    "convnext_tiny",
    "swin_t",
    "inception_v3",
    "small_cnn",
]
Trainable = Literal["all", "head"] | Annotated[int, Field(ge=0, le=5)]


class ModelSettings(SettingsSection):
    """Keys of ``[model]`` that detectors and classifiers share."""

    weights: str = Field(default="none", description="none, imagenet, a file, or a run folder")
    trainable: Trainable | None = Field(
        default=None, description="all, head, or a number of stages; left out: as torchvision does"
    )

    @model_validator(mode="after")
    def _frozen_needs_weights(self) -> Self:
        if self.trainable not in (None, "all") and self.weights == "none":
            raise ValueError(
                f"trainable = {self.trainable!r} keeps stages as they are, and weights = 'none' "
                "makes them random; choose weights, or trainable = 'all'"
            )
        return self

    @property
    def stages(self) -> Trainable:
        """Stages that learn; ``trainable`` where it is stated."""
        return "all" if self.trainable is None else self.trainable


View = Literal["flip", "scale0.8", "scale1.2"]


def _require_each_once(views: list[str]) -> list[str]:
    if len({*views}) < len(views):
        raise ValueError("a view is there twice; give each once")
    return views


Views = Annotated[list[View], AfterValidator(_require_each_once)]


class RetinaNetSettings(ModelSettings):
    """Keys of ``[model]`` for a RetinaNet."""

    backbone: Detector = "resnet50"
    norm: Literal["frozen", "batch", "group"] = Field(
        default="frozen", description="frozen keeps the statistics of pretrained batch norm"
    )
    head: Literal["v1", "v2"] = Field(default="v2", description="v2: group norm, GIoU box loss")
    fpn_channels: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = 256
    head_convs: Annotated[int, Field(ge=1, le=4)] = 4
    anchor_sizes: Annotated[list[Side], Field(min_length=5, max_length=5)] | None = Field(
        default=None, description="px, finest level first; left out: from the image size"
    )
    anchor_ratios: Annotated[list[Positive], Field(min_length=1, max_length=9)] = [0.5, 1.0, 2.0]
    box_loss: Literal["auto", "l1", "giou", "diou", "ciou"] = "auto"
    nms_iou: Annotated[float, Field(ge=0.1, le=0.9)] = Field(
        default=0.3, description="boxes of one finding that overlap more are suppressed"
    )
    views: Views = Field(
        default=[], description="views that are predicted and joined beside the plain image"
    )

    @model_validator(mode="after")
    def _statistics_need_weights(self) -> Self:
        if self.weights == "none" and self.norm == "frozen":
            raise ValueError(
                "norm = 'frozen' keeps pretrained statistics, and weights = 'none' has none; "
                "choose norm = 'batch', or 'group' for batches below 8"
            )
        if self.weights == "imagenet" and self.norm == "group":
            raise ValueError(
                "weights = 'imagenet' were made with batch norm; choose norm = 'frozen' or "
                "'batch', not 'group'"
            )
        return self

    @property
    def stages(self) -> Trainable:
        """Stages that learn: three of published weights, unless ``trainable`` is stated."""
        is_published = self.weights in ("imagenet", "coco")
        return 3 if self.trainable is None and is_published else super().stages


def _none_as_left_out(value: Any) -> Any:
    return None if value == "none" else value


class ClassifierSettings(ModelSettings):
    """Keys of ``[model]`` for a classifier."""

    backbone: Classifier = "densenet121"
    trainable: Trainable | None = "all"
    last_stride: Annotated[Literal[16, 32] | None, BeforeValidator(_none_as_left_out)] = Field(
        default=None, description="px a cell of the map; left out: the network's own"
    )
    dropout: Fraction = 0.0


class AugmentationSettings(SettingsSection):
    """Keys of ``[augmentation]``: largest random changes of a training image; 0 is no change."""

    rotate_degrees: float = Field(default=0.0, ge=0, le=45.0, description="degrees either way")
    scale: float = Field(default=0.0, ge=0, le=0.9, description="0.1: between 90 and 110 %")
    stretch: bool = Field(default=False, description="draw the scale of width and height apart")
    shift: float = Field(default=0.0, ge=0, le=0.9, description="of the image's side")
    brightness: float = Field(default=0.0, ge=0, le=1.0, description="of the grey range")
    contrast: float = Field(default=0.0, ge=0, le=1.0, description="0.1: between 90 and 110 %")
    gamma: float = Field(default=0.0, ge=0, le=3.0, description="0.5: between 1/1.5 and 1.5")
    blur: float = Field(default=0.0, ge=0, le=5.0, description="largest sigma, px")
    noise: float = Field(default=0.0, ge=0, le=1.0, description="largest deviation, of the range")
    cutout: float = Field(default=0.0, ge=0, le=0.9, description="largest side of a hole, share")
    horizontal_flip: float = Field(default=0.0, ge=0, le=1.0, description="probability")

    @model_validator(mode="after")
    def _stretch_has_a_range(self) -> Self:
        if self.stretch and not self.scale:
            raise ValueError("stretch = true draws from the range of scale, and scale is 0")
        return self


class TrainingSettings(SettingsSection):
    """Keys of ``[training]`` that detectors and classifiers share."""

    seed: int = Field(default=0, ge=0, lt=2**31, description="of weights, draws, augmentation")
    epochs: Count = Field(description="largest number of epochs")
    batch_size: Count = Field(description="images, of all devices together")
    accumulate: Count = Field(default=1, description="batches that make one optimiser step")
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    learning_rate: Positive = Field(description="peak of the schedule")
    weight_decay: NotNegative = Field(default=0.01, description="of kernels; norms have none")
    momentum: Fraction = Field(default=0.9, description="of sgd and rmsprop; one_cycle has its own")
    schedule: Literal["one_cycle", "cosine", "plateau", "constant"] = Field(
        default="one_cycle",
        description="after the warm-up; plateau: a tenth after 3 epochs without improvement",
    )
    warmup_epochs: NotNegative = Field(default=1.0, description="epochs of rising learning rate")
    clip: NotNegative = Field(default=0.0, description="largest gradient norm; 0 does not clip")
    ema_decay: Fraction = Field(default=0.0, description="of averaged weights; 0: no average")
    positive_share: Fraction = Field(default=0.0, description="of what is drawn; 0: as it comes")
    patience: int = Field(default=0, ge=0, description="epochs without improvement; 0: no end")
    monitor: str
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="auto: bf16 where the device computes in it, fp16 on older GPUs with tensor "
        "cores, else fp32; fp16 is for GPUs",
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = Field(
        default="auto", description="processes that load; auto: none on a CPU, 8 at most for a GPU"
    )

    @model_validator(mode="after")
    def _plateau_can_be_met(self) -> Self:
        if self.schedule == "plateau" and self.monitor == "epoch":
            raise ValueError("schedule = 'plateau' needs a figure as monitor, such as 'val_loss'")
        if self.schedule == "plateau" and 0 < self.patience <= 3:
            raise ValueError(
                f"patience = {self.patience} ends the training before schedule = 'plateau' acts; "
                "set 4"
            )
        return self


class DetectorTrainingSettings(TrainingSettings):
    """Keys of ``[training]`` for a detector."""

    monitor: Literal["ap50", "ap", "auroc", "val_loss", "epoch"] = Field(
        default="ap50", description="picks the best epoch on validation; epoch: the last"
    )


class ClassifierTrainingSettings(TrainingSettings):
    """Keys of ``[training]`` for a classifier."""

    monitor: Literal["auroc", "average_precision", "val_loss", "epoch"] = Field(
        default="auroc", description="picks the best epoch on validation; epoch: the last"
    )
    loss: Literal["sigmoid", "softmax"] = Field(
        default="sigmoid", description="softmax: classes of which each image has exactly one"
    )
    positive_weight: Literal["balanced"] | Positive = Field(
        default=1.0, description="balanced: negatives over positives, as in the CheXNet paper"
    )


class _Config(SettingsSection):
    name: str = Field(min_length=1, max_length=60, description="shown in the report")
    augmentation: AugmentationSettings = AugmentationSettings()


class DetectorConfig(_Config):
    """Configuration of a RetinaNet."""

    kind: Literal["detector"]
    data: DetectorDataSettings
    model: RetinaNetSettings
    training: DetectorTrainingSettings


class ClassifierConfig(_Config):
    """Configuration of a classifier."""

    kind: Literal["classifier"]
    data: DataSettings
    model: ClassifierSettings
    training: ClassifierTrainingSettings


Config = DetectorConfig | ClassifierConfig
KINDS: dict[str, type[Config]] = {"detector": DetectorConfig, "classifier": ClassifierConfig}
