"""The keys of a training configuration, their types and their ranges."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from networks import registry

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[float, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """What every table of a settings file keeps to."""

    # Strict: TOML has types, so `epochs = "3"` or `seed = true` is a slip, not a wish.
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True
    )


def _network(kind: registry.ModelKind) -> PlainValidator:
    """A rule for the name of a network that this kind of model may stand on."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in registry.network_names(kind):
            return value
        if kind == "classifier" and isinstance(value, str) and value.startswith(registry.TIMM):
            return value
        raise ValueError(registry.describe_unknown(value, kind))

    return PlainValidator(check)


Backbone = Annotated[str, _network("detector")]
Architecture = Annotated[str, _network("classifier")]


class DetectorModelSettings(Section):
    """RetinaNet; the keys are the arguments of `detection.model.build_retinanet`."""

    backbone: Backbone = "resnet50"
    head: Literal["v1", "v2"] = "v2"
    norm: Literal["frozen", "batch", "group"] = "frozen"
    fpn_channels: int = Field(default=256, ge=8, le=1024)
    head_convs: int = Field(default=4, ge=1, le=4)
    trainable_layers: int | None = Field(default=None, ge=0, le=5)
    anchor_sizes: list[Side] | None = Field(default=None, min_length=5, max_length=5)
    anchor_ratios: list[Positive] = Field(default=[0.5, 1.0, 2.0], min_length=1)
    weights: str = Field(
        default="none", description="none, imagenet, coco, a file, or a run folder"
    )
    box_loss: Literal["auto", "l1", "smooth_l1", "giou", "diou", "ciou"] = Field(
        default="auto", description="auto: l1 in head v1, giou in v2"
    )

    @model_validator(mode="after")
    def _frozen_needs_weights(self) -> Self:
        if self.norm == "frozen" and self.weights == "none":
            raise ValueError(
                "norm = 'frozen' keeps pretrained statistics, and weights = 'none' has none; "
                "choose norm = 'batch', or 'group' for batches below 8"
            )
        return self


class ClassifierModelSettings(Section):
    """An image classifier; the keys are the arguments of `classification.model`."""

    architecture: Architecture = "densenet121"
    last_stride: Literal[16, 32] = Field(default=32, description="px a cell of the heat map")
    dropout: Fraction = 0.0
    weights: str = Field(default="none", description="none, imagenet, a file, or a run folder")
    trainable: Literal["all", "head", "head_first", "stages"] = Field(
        default="all", description="what learns; the rest stays as its weights have it"
    )
    unfreeze_epochs: Count = Field(
        default=1, description="of head_first: the head alone; of stages: until one more learns"
    )

    @model_validator(mode="after")
    def _frozen_needs_weights(self) -> Self:
        if self.trainable != "all" and self.weights == "none":
            raise ValueError(
                f"trainable = '{self.trainable}' keeps features as they are, and weights = 'none' "
                "has none worth keeping; choose weights, or trainable = 'all'"
            )
        return self


def _batch_size(value: Any) -> Any:
    # One rule in one place: a union of types would answer a slip once for each of its types.
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f"must be a whole number of at least 1, or 'auto', got {value!r}")


BatchSize = Annotated[int | Literal["auto"], PlainValidator(_batch_size)]


class DataSettings(Section):
    """What is learned, on which images, at which size."""

    target: str | None = Field(
        default=None, min_length=1, description="None where there is one target."
    )
    split: str = Field(default="default", min_length=1)
    image_size: int = Field(ge=32, le=2048, multiple_of=32, description="px, a side")


class DetectorDataSettings(DataSettings):
    """As every data section, with room for the pyramid."""

    # At 64 px P6 is a single pixel, and oneDNN's bf16 gradient of the convolution from it to P7
    # is not initialised (torch 2.15 on AVX512-BF16): training would end in noise or NaN.
    image_size: int = Field(ge=96, le=2048, multiple_of=32, description="px, a side")


class AugmentationSettings(Section):
    """How far each training image may be changed; 0 leaves a kind out."""

    rotate_degrees: float = Field(default=0.0, ge=0, le=45)
    scale: Fraction = Field(default=0.0, description="0.1: between 90 and 110 %")
    multi_scale: float = Field(
        default=0.0, ge=0, le=3, description="in place of scale; 0.5: between 1/1.5 and 1.5"
    )
    stretch: bool = Field(default=False, description="draw the scale of width and height apart")
    shift: Fraction = Field(default=0.0, description="of the image's side")
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    gamma: float = Field(default=0.0, ge=0, le=3, description="0.5: between 1/1.5 and 1.5")
    blur: float = Field(default=0.0, ge=0, le=5, description="largest sigma, px")
    noise: Fraction = Field(
        default=0.0, description="largest standard deviation, of the grey range"
    )
    cutout: float = Field(default=0.0, ge=0, le=0.9, description="largest side of a hole, share")
    horizontal_flip: float = Field(default=0.0, ge=0, le=1, description="probability")
    mosaic: float = Field(
        default=0.0, ge=0, le=1, description="probability of four pictures in one; a detector's"
    )

    @model_validator(mode="after")
    def _stretch_has_a_range(self) -> Self:
        if self.stretch and not (self.scale or self.multi_scale):
            raise ValueError(
                "stretch = true draws the scale of width and height apart, and both scale and "
                "multi_scale are 0; set one of them, such as scale = 0.2"
            )
        return self

    @model_validator(mode="after")
    def _one_range_of_scales(self) -> Self:
        if self.scale and self.multi_scale:
            raise ValueError(
                f"both scale = {self.scale} and multi_scale = {self.multi_scale} are given; "
                "multi_scale takes the place of scale: set one of them to 0"
            )
        return self


class DrawSettings(Section):
    """Shares of what an epoch draws, for sets that tell normal images from other negatives."""

    positive: float = Field(ge=0, le=1, description="has a finding of the target")
    not_normal: float = Field(ge=0, le=1, description="has none, and x_class is 'not_normal'")
    normal: float = Field(ge=0, le=1, description="has none, and x_class is 'normal'")

    @model_validator(mode="after")
    def _shares_make_a_whole(self) -> Self:
        total = self.positive + self.not_normal + self.normal
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares must add up to 1, and make {total:.6g}")
        return self


class TrainingSettings(Section):
    """How the weights are learned."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    epochs: Count
    batch_size: BatchSize = Field(
        description="images, of all devices together; auto: the most that fits"
    )
    accumulate: Count = Field(default=1, description="batches that make one optimiser step")
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    learning_rate: Positive
    weight_decay: NotNegative = 0.01
    momentum: Fraction = Field(default=0.9, description="of sgd and rmsprop")
    schedule: Literal["one_cycle", "cosine", "step", "plateau", "constant"] = "one_cycle"
    warmup_epochs: NotNegative = 1.0
    step_milestones: list[Fraction] = Field(
        default=[0.67, 0.92], min_length=1, description="of step: shares of the training"
    )
    step_factor: float = Field(default=0.1, gt=0, lt=1, description="of step, at each milestone")
    plateau_patience: Count = Field(
        default=3, description="of plateau: epochs without improvement before each fall"
    )
    plateau_factor: float = Field(default=0.1, gt=0, lt=1, description="of plateau, at each fall")
    clip: NotNegative = Field(default=0.0, description="largest gradient norm; 0 does not clip")
    ema_decay: Fraction = Field(
        default=0.0, description="of the averaged weights; 0 does not average"
    )
    positive_share: Fraction = Field(default=0.0, description="of what is drawn; 0 as in the data")
    draw: DrawSettings | None = Field(
        default=None, description="in place of positive_share: {positive, not_normal, normal}"
    )
    patience: int = Field(
        default=0, ge=0, description="epochs without improvement; 0 never stops early"
    )
    monitor: str  # picks the best epoch; each kind says which figures it has. epoch: the last
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 where the device has it, else fp32; fp16: CUDA"
    )
    channels_last: bool = True
    workers: int = Field(
        default=0, ge=0, le=64, description="processes that load, a device; 0 loads in this one"
    )
    compile: bool = Field(default=False, description="torch.compile of backbone and heads")
    loggers: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(
        default=[], description="beside metrics.csv; each needs its pip extra"
    )

    @model_validator(mode="after")
    def _one_rule_of_drawing(self) -> Self:
        if self.positive_share and self.draw is not None:
            raise ValueError(
                f"both positive_share = {self.positive_share} and draw are given; draw takes the "
                "place of positive_share: set it to 0, or leave draw out"
            )
        return self

    @model_validator(mode="after")
    def _plateau_can_be_met(self) -> Self:
        if self.schedule != "plateau":
            if (self.plateau_patience, self.plateau_factor) != (3, 0.1):
                raise ValueError(
                    f"plateau_patience = {self.plateau_patience} and plateau_factor = "
                    f"{self.plateau_factor} are of schedule = 'plateau', and schedule is "
                    f"'{self.schedule}'; choose one"
                )
        elif self.monitor == "epoch":
            raise ValueError(
                "schedule = 'plateau' waits until monitor improves no more, and monitor = 'epoch' "
                "always does; choose a figure, such as monitor = 'val_loss'"
            )
        elif self.patience and self.patience <= self.plateau_patience:
            raise ValueError(
                f"patience = {self.patience} ends the training before plateau_patience = "
                f"{self.plateau_patience} lowers the rate; set patience above it, or to 0"
            )
        return self


class DetectorTrainingSettings(TrainingSettings):
    """As every training, the figure that picks the best epoch, and what is drawn more often."""

    hard_negatives: Fraction = Field(
        default=0.0, description="share of negative draws that the most mistaken fifth gets"
    )
    monitor: Literal["ap50", "ap", "auroc", "val_loss", "epoch"] = "ap50"


class ClassifierTrainingSettings(TrainingSettings):
    """As every training, the figure that picks the best epoch, the loss, and softer targets."""

    monitor: Literal["auroc", "average_precision", "val_loss", "epoch"] = "auroc"
    positive_weight: Literal["balanced"] | Positive = Field(
        1.0, description="balanced: negatives over positives, as in the CheXNet paper"
    )
    loss: Literal["bce", "focal"] = "bce"
    focal_gamma: NotNegative = Field(default=2.0, description="how little sure answers count")
    focal_alpha: float = Field(
        default=0.5, ge=0, le=1, description="weight of positives; negatives weigh the rest of 1"
    )
    label_smoothing: Fraction = Field(
        default=0.0, description="0.1 teaches 0.95 and 0.05 in place of 1 and 0"
    )
    mixup: NotNegative = Field(
        default=0.0, le=10, description="alpha of the Beta that weighs pairs; 0 mixes none"
    )

    @model_validator(mode="after")
    def _one_loss(self) -> Self:
        if self.loss == "focal" and self.positive_weight != 1:
            raise ValueError(
                f"loss = 'focal' weighs positives by focal_alpha, and positive_weight = "
                f"{self.positive_weight!r} would do so again; set positive_weight = 1.0"
            )
        if self.loss == "bce" and (self.focal_gamma, self.focal_alpha) != (2.0, 0.5):
            raise ValueError(
                f"focal_gamma = {self.focal_gamma} and focal_alpha = {self.focal_alpha} are of "
                "loss = 'focal', and loss is 'bce'; choose one"
            )
        return self

    @model_validator(mode="after")
    def _pairs_need_two(self) -> Self:
        if self.mixup and self.batch_size == 1:
            raise ValueError(
                f"mixup = {self.mixup} mixes the images of a batch, and batch_size = 1 has one; "
                "choose a larger batch, or mixup = 0.0"
            )
        return self


class _Config(Section):
    name: str = Field(min_length=1, max_length=60, description="shown in the report")
    data: DataSettings
    augmentation: AugmentationSettings = AugmentationSettings()


class DetectorConfig(_Config):
    """Everything that trains a detector."""

    kind: Literal["detector"]
    data: DetectorDataSettings
    model: DetectorModelSettings
    training: DetectorTrainingSettings


class ClassifierConfig(_Config):
    """Everything that trains a classifier."""

    kind: Literal["classifier"]
    model: ClassifierModelSettings
    training: ClassifierTrainingSettings

    @model_validator(mode="after")
    def _no_mosaic(self) -> Self:
        if self.augmentation.mosaic:
            raise ValueError(
                f"augmentation.mosaic = {self.augmentation.mosaic} joins the boxes of four "
                "images, and a classifier learns from none; set it to 0"
            )
        return self


TrainConfig = Annotated[DetectorConfig | ClassifierConfig, Field(discriminator="kind")]


_REMOVED_FROM_BOTH = {
    "data.crop": "none",
    "data.enhance": "none",
    "training.tensorboard": False,
}
REMOVED_KEYS: dict[str, dict[str, Any]] = {
    "detector": {
        **_REMOVED_FROM_BOTH,
        "model.anchors": "config",
        "model.matching": "iou",
        "model.matching_low": 0.4,
        "model.matching_high": 0.5,
        "model.atss_top_k": ...,
        "model.image_head": False,
        "model.image_head_weight": ...,
        "model.image_head_mode": ...,
        "model.prior": 0.01,
        "model.focal_alpha": 0.25,
        "model.focal_gamma": 2.0,
        "model.box_weight": 1.0,
    },
    "classifier": {**_REMOVED_FROM_BOTH, "model.prior": None},
}
"""Keys of earlier versions by kind, each with the value that does what is done without the key.

Resolved configurations in run folders state every key. None: to be without it, as only a value
that has an effect is stated; an ellipsis: any value, for the key counts only beside another one.
"""
