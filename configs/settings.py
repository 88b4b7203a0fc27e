"""Sections of a training configuration, and the whole configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    PlainValidator,
    WithJsonSchema,
    create_model,
    model_validator,
)

from cxr_compare.configs.model_settings import (
    ClassifierModelSettings,
    Count,
    DetectorModelSettings,
    Fraction,
    NotNegative,
    Positive,
    ProbeModelSettings,
    Section,
    detector_settings,
)
from cxr_compare.data_prep.contracts.own_parts import is_own_part


def _or_auto(bounds: Mapping[str, int], value: Any) -> Any:
    # One rule for both: a union of types would report a mistake once for each of its types.
    least = bounds["minimum"]
    most = bounds.get("maximum", math.inf)
    if value == "auto" or (type(value) is int and least <= value <= most):
        return value
    end = f" and at most {most}" if "maximum" in bounds else ""
    raise ValueError(f"must be a whole number of at least {least}{end}, or 'auto', got {value!r}")


def _whole_or_auto(**bounds: int) -> tuple[Any, Any]:
    schema = {"anyOf": [{"type": "integer", **bounds}, {"const": "auto"}]}
    return PlainValidator(partial(_or_auto, bounds)), WithJsonSchema(schema)


_LOGGERS = ("tensorboard", "mlflow", "wandb")


def _check_logger(value: Any) -> Any:
    if value in _LOGGERS or is_own_part(value):
        return value
    raise ValueError(
        f"must be 'tensorboard', 'mlflow' or 'wandb', or MODULE:NAME of yours, got {value!r}"
    )


_Logger = Annotated[
    str,
    PlainValidator(_check_logger),
    WithJsonSchema({"anyOf": [{"enum": list(_LOGGERS)}, {"const": "MODULE:NAME"}]}),
]
_Workers = Annotated[int | Literal["auto"], *_whole_or_auto(minimum=0, maximum=64)]


class DataSettings(Section):
    """Keys of the section ``[data]``: target (what is learned), split and image size.

    A split says which images are for training, validation and test.

    Attributes:
        target: Name of the target (finding, or group of findings) that is learned; None takes the
            only target of the data set.
        image_size: Side in px of the squares to which images are resized.
    """

    target: str | None = Field(
        default=None,
        min_length=1,
        description="what is learned; left out where the data set has one target",
    )
    split: str = Field(default="default", min_length=1, description="split of the data set")
    image_size: int = Field(ge=32, le=2048, multiple_of=32, description="px, a side")


class DetectorDataSettings(DataSettings):
    """Keys of ``[data]`` for a detector; images must be large enough for its feature pyramid."""

    # At 64 px P6 is a single pixel, and oneDNN's bf16 gradient of the convolution from it to P7
    # is not initialised (torch 2.15 on AVX512-BF16): training would end in noise or NaN.
    image_size: int = Field(ge=96, le=2048, multiple_of=32, description="px, a side")


class AugmentationSettings(Section):
    """Keys of ``[augmentation]``: largest random changes of a training image. 0 means no change.

    Attributes:
        rotate_degrees: Largest rotation in either direction, degrees.
        scale: Largest relative change of the size; 0.1 scales by 0.9 to 1.1.
        stretch: True draws separate scales for width and height from the range of `scale`.
        shift: Largest shift along x and y, as a share of the image's side.
        brightness: Largest change of all grey values, as a share of the grey range.
        contrast: Largest relative change of the contrast; 0.1 multiplies it by 0.9 to 1.1.
        gamma: Range of the exponent of the grey values; 0.5 draws it between 1/1.5 and 1.5.
        blur: Largest sigma of the Gaussian blur, px.
        noise: Largest standard deviation of the noise, as a share of the grey range.
        cutout: Largest side of a rectangle that is hidden, as a share of the image's side.
        horizontal_flip: Probability that an image is mirrored left to right, in [0, 1].
        mosaic: Probability, in [0, 1], that four images are joined into one; for detectors only.
        function: ``MODULE:NAME`` of a function of the user's own that changes the grey values.
    """

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
    function: str | None = Field(
        default=None, description="MODULE:NAME of your change of grey values: docs/own-parts.md"
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
    """Keys of ``[training]`` that detectors and classifiers share.

    Attributes:
        accumulate: Number of batches whose gradients are added up for one optimiser step.
        optimiser: ``adamw``, ``adam`` (adds the weight decay to the gradient), ``sgd`` (with
            Nesterov momentum) or ``rmsprop``.
        learning_rate: Highest learning rate of the schedule.
        weight_decay: Weight decay of all weights but those of norms and biases.
        momentum: Momentum of ``sgd`` and ``rmsprop``. The schedule ``one_cycle`` has its own, which
            falls from 0.95 to 0.85 while the learning rate rises, and then rises again.
        schedule: Course of the learning rate after the warm-up: ``one_cycle``, ``cosine``,
            ``constant``, ``step`` (a tenth after 2/3 and 11/12 of the training) or ``plateau`` (a
            tenth after 3 epochs without improvement of `monitor`).
        warmup_epochs: Number of first epochs in which the learning rate rises, such as 0.5.
        ema_decay: Decay of a moving average of the weights, in [0, 1); 0 does not average.
        positive_share: Share of positive images among the training images that are drawn, in [0,
            1); 0 draws each image equally often.
        patience: Number of epochs without improvement of `monitor` after which the training stops.
        monitor: Name of the metric on validation images that selects the best epoch, such as
            ``val_loss``.
        workers: Number of processes that load images for each device.
        loggers: Names of programs that log the metrics in addition to the file ``metrics.csv``,
            such as ``tensorboard``, or ``MODULE:NAME`` of Lightning loggers of the user's own.
    """

    seed: int = Field(
        default=0, ge=0, lt=2**31, description="seed of weights, draws and augmentation"
    )
    epochs: Count = Field(description="largest number of epochs")
    batch_size: Count = Field(description="images, of all devices together")
    accumulate: Count = Field(default=1, description="batches that make one optimiser step")
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = Field(
        default="adamw", description="adam adds the decay to the gradient; sgd is Nesterov's"
    )
    learning_rate: Positive = Field(description="peak of the schedule")
    weight_decay: NotNegative = Field(default=0.01, description="of kernels; norms have none")
    momentum: Fraction = Field(default=0.9, description="of sgd and rmsprop; one_cycle has its own")
    schedule: Literal["one_cycle", "cosine", "step", "plateau", "constant"] = Field(
        default="one_cycle",
        description="after the warm-up; step: a tenth after 2/3 and 11/12 of the training; "
        "plateau: a tenth after 3 epochs in which monitor has not improved",
    )
    warmup_epochs: NotNegative = Field(default=1.0, description="epochs of rising learning rate")
    clip: NotNegative = Field(default=0.0, description="largest gradient norm; 0 does not clip")
    ema_decay: Fraction = Field(
        default=0.0, description="decay of the averaged weights; 0 does not average"
    )
    positive_share: Fraction = Field(
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
        "GPU its share of the processors, 8 at most",
    )
    loggers: list[_Logger] = Field(
        default=[], description="beside metrics.csv; each of the three needs its pip extra"
    )
    module: str | None = Field(
        default=None, description="MODULE:NAME of your class with another loss: docs/own-parts.md"
    )
    callbacks: list[str] = Field(
        default=[], description="MODULE:NAME of Lightning callbacks of yours: docs/own-parts.md"
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


class DetectorTrainingSettings(TrainingSettings):
    """Keys of ``[training]`` for a detector.

    Attributes:
        monitor: Metric on validation images that selects the best epoch: ``ap50`` or ``ap`` of the
            boxes, ``auroc`` of the images, or ``val_loss``. ``epoch`` keeps the last epoch.
        tta: Test-time views: ``flip``, ``scale0.8``, ``scale1.2``. After the training the
            validation images choose whether ``cxr predict --data`` joins them with the plain image
            by default, by the FROC mean.
    """

    monitor: Literal["ap50", "ap", "auroc", "val_loss", "epoch"] = Field(
        default="ap50", description="picks the best epoch on validation; epoch: the last"
    )
    tta: list[Literal["flip", "scale0.8", "scale1.2"]] = Field(
        default=[], description="test-time views that validation may make the default of predict"
    )


class ClassifierTrainingSettings(TrainingSettings):
    """Keys of ``[training]`` for a classifier, including its loss.

    Attributes:
        positive_weight: Factor by which the loss of positive labels is multiplied; ``balanced``
            takes the number of negative labels divided by that of positive labels.
        label_smoothing: Share of each label that is moved to one half; 0.1 turns 1 into 0.95.
    """

    monitor: Literal["auroc", "average_precision", "val_loss", "epoch"] = Field(
        default="auroc", description="picks the best epoch on validation; epoch: the last"
    )
    positive_weight: Literal["balanced"] | Positive = Field(
        1.0, description="balanced: negatives over positives, as in the CheXNet paper"
    )
    label_smoothing: Fraction = Field(
        default=0.0, description="0.1 teaches 0.95 and 0.05 in place of 1 and 0"
    )


_PENALTIES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


class ProbeTrainingSettings(Section):
    """Keys of ``[training]`` for a probe: a linear layer on frozen features.

    scikit-learn fits the layer as a logistic regression.

    Attributes:
        seed: Number that tells trainings apart. It does not change the result, because the fit
            draws nothing at random.
        penalties: Factors to choose from. Half the squared norm of the layer's weights, times the
            factor, is added to the mean loss. For each finding the factor with the lowest loss on
            validation images is chosen.
    """

    # What other trainings choose, and a probe does not.
    monitor: ClassVar[str] = "val_loss"
    workers: ClassVar[int] = 0
    loggers: ClassVar[tuple[str, ...]] = ()

    seed: int = Field(
        default=0, ge=0, lt=2**31, description="number of the run; the fit draws nothing at random"
    )
    batch_size: Count = Field(default=16, description="images whose features are computed together")
    penalties: list[Positive] = Field(
        default=_PENALTIES,
        min_length=1,
        description="candidates, of which the loss of the validation patients picks one for each "
        "finding; half the squared norm of the weights, times this, is added to the mean loss",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="arithmetic of the backbone"
    )


class _AnyConfig(Section):
    name: str = Field(min_length=1, max_length=60, description="shown in the report")
    data: DataSettings


class _Config(_AnyConfig):
    augmentation: AugmentationSettings = AugmentationSettings()


class DetectorConfig(_Config):
    """Configuration of a detector; `config_class` adds the keys of its architecture."""

    kind: Literal["detector"]
    data: DetectorDataSettings
    model: DetectorModelSettings
    training: DetectorTrainingSettings


class ClassifierConfig(_Config):
    """Configuration of a classifier."""

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


class ProbeConfig(_AnyConfig):
    """Configuration of a probe: a classifier with a frozen encoder and a fitted last layer.

    There is no augmentation, because the features of each image are computed once.
    """

    kind: Literal["classifier"]
    model: ProbeModelSettings
    training: ProbeTrainingSettings = ProbeTrainingSettings()


TrainedConfig = DetectorConfig | ClassifierConfig
"""Configuration of a network that is trained by gradient steps."""
Config = TrainedConfig | ProbeConfig
KINDS = ("detector", "classifier")


@cache
def config_class(
    kind: str, architecture: str = "retinanet", trainable: object = None
) -> type[Config]:
    """Return the class of a training configuration, whose keys depend on the kind of the model.

    The keys of a detector also depend on its architecture.

    `trainable` is the value of ``model.trainable``; of a classifier, ``none`` means a probe: a
    linear layer that is fitted to frozen features. Raises ValueError if no detector has this
    architecture.
    """
    if kind == "classifier":
        return ProbeConfig if trainable == "none" else ClassifierConfig
    settings = detector_settings(architecture)
    return create_model(DetectorConfig.__name__, __base__=DetectorConfig, model=(settings, ...))
