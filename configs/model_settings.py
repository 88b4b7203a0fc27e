"""The `model` sections: of a detector, and of a classifier with the names of its networks."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from configs.sections import Count, Fraction, NotNegative, Positive, Section, Side

ARCHITECTURES = (
    "densenet121",
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    "inception_v3", "convnext_tiny", "squeezenet1_1",
    "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "small_cnn",
)  # fmt: skip
# A published comparison of ten networks names one that does not exist, and no such weights.
_MEANT = {"resnet121": "densenet121 or resnet101"}


def _architecture(value: Any) -> str:
    if isinstance(value, str) and (value in ARCHITECTURES or value.startswith("timm:")):
        return value
    if isinstance(value, str) and (meant := _MEANT.get(value.lower())):
        raise ValueError(
            f"there is no {value}, though a published comparison names it; it may mean {meant}"
        )
    near = difflib.get_close_matches(str(value), ARCHITECTURES, n=1)
    raise ValueError(
        f"must be one of {', '.join(ARCHITECTURES)}, or timm:NAME, got {value!r}"
        + (f"; did you mean '{near[0]}'?" if near else "")
    )


Architecture = Annotated[str, PlainValidator(_architecture)]


class DetectorModelSettings(Section):
    """RetinaNet; the keys are the arguments of `detection.model.build_retinanet`."""

    backbone: Literal[
        "resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d",
        "mobilenet_v3_small", "mobilenet_v3_large",
        "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
        "densenet121",
        "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
    ] = "resnet50"  # fmt: skip
    head: Literal["v1", "v2"] = "v2"
    norm: Literal["frozen", "batch", "group"] = "frozen"
    fpn_channels: int = Field(default=256, ge=8, le=1024)
    head_convs: int = Field(default=4, ge=1, le=4)
    trainable_layers: int | None = Field(default=None, ge=0, le=5)
    anchors: Literal["config", "fitted"] = Field(
        default="config", description="fitted: sizes and ratios come from the training boxes"
    )
    anchor_sizes: list[Side] | None = Field(default=None, min_length=5, max_length=5)
    anchor_ratios: list[Positive] = Field(default=[0.5, 1.0, 2.0], min_length=1)
    weights: str = Field(
        default="none", description="none, imagenet, coco, a file, or a run folder"
    )
    prior: float = Field(default=0.01, gt=0, lt=1)
    focal_alpha: float = Field(default=0.25, ge=0, le=1)
    focal_gamma: NotNegative = 2.0
    box_loss: Literal["auto", "l1", "smooth_l1", "giou", "diou", "ciou"] = Field(
        default="auto", description="auto: l1 in head v1, giou in v2"
    )
    box_weight: Positive = Field(default=1.0, description="of the box loss; the focal has 1")
    matching: Literal["iou", "atss"] = Field(default="iou", description="of anchors with lesions")
    matching_low: float = Field(default=0.4, gt=0, lt=1, description="IoU; below it: background")
    matching_high: float = Field(default=0.5, gt=0, lt=1, description="IoU; from it on: lesion")
    atss_top_k: int = Field(default=9, ge=1, le=100, description="places on each level")
    image_head: bool = Field(default=False, description="also score the whole image, jointly")
    image_head_weight: Positive = Field(default=0.5, description="of its loss")
    image_head_mode: Literal["multiply", "none"] = Field(
        default="multiply",
        description="multiply: boxes get the square root of the product of both scores",
    )

    @model_validator(mode="after")
    def _anchors_come_from_one_place(self) -> Self:
        given = self.anchor_sizes is not None or self.anchor_ratios != [0.5, 1.0, 2.0]
        if self.anchors == "fitted" and given:
            raise ValueError(
                "anchors = 'fitted' finds anchor_sizes and anchor_ratios itself; leave them out, "
                "or choose anchors = 'config'"
            )
        return self

    @model_validator(mode="after")
    def _matching_is_ordered(self) -> Self:
        if self.matching_low > self.matching_high:
            raise ValueError(
                f"matching_low = {self.matching_low} lies above matching_high = "
                f"{self.matching_high}; swap them"
            )
        return self

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
    prior: float | None = Field(default=None, gt=0, lt=1, description="score before training")
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
