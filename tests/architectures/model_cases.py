"""The cases that must pass the suite: a small configuration of each, and what its kind is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cxr_compare.classification.activation_maps import activation_maps
from cxr_compare.classification.loss import LabelBatch
from cxr_compare.classification.loss import training_losses as classifier_losses
from cxr_compare.classification.loss import validation_losses as validate_classifier
from cxr_compare.classification.model import build_classifier
from cxr_compare.configs.load import parse_config
from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.detection.detector import LesionBatch
from cxr_compare.detection.detector import training_losses as detector_losses
from cxr_compare.detection.detector import validation_losses as validate_detector
from cxr_compare.detection.model import build_detector

SIZE = 96
# A box at each border, as a bright patch, and an image without any.
BOXES = ((0, 30, 40, 70), (30, 0, 70, 36), (52, 20, 96, 60), (24, 56, 72, 96), None)


@dataclass(frozen=True)
class ModelCase:
    """A small configuration of a model, and how long it is trained."""

    name: str
    kind: str
    model: dict[str, Any]  # keys of its section
    steps: int = 30  # in which it learns a batch by heart
    rate: float = 3e-3
    refused: str = ""  # why it is not exported
    release: bool = True  # tested each night and before a release, not in every run of the suite
    alone: tuple[tuple[str, Any], ...] = ()  # keys without which two processes do not equal one

    def toml(self, **training: Any) -> str:
        """A whole configuration of two epochs, with keys of the training."""
        keys = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "precision": "fp32"}
        if self.kind == "classifier":
            keys["positive_share"] = 0.5
        sections = {"data": {"image_size": SIZE}, "model": self.model, "training": keys | training}
        lines = [f'kind = "{self.kind}"', f'name = "{self.name}"']
        for name, section in sections.items():
            lines += [
                f"[{name}]",
                *(f"{key} = {read_entries(value)}" for key, value in section.items()),
            ]
        return "\n".join(lines) + "\n"

    def build(self, image_size: int = SIZE, **changes: Any) -> Any:
        """The model of its settings, from the seed 0, as a training builds it."""
        settings = parse_config(replace(self, model=self.model | changes).toml(), "case.toml").model
        keys = settings.model_dump(exclude={"weights", "trainable", "compile"})
        build = build_detector if self.kind == "detector" else build_classifier
        torch.manual_seed(0)
        model = build(n_findings=1, image_size=image_size, **keys)
        model.freeze_for_epoch(self.model.get("trainable", "all"))
        return model

    def batch(self, images: Tensor | None = None, boxed: bool = True) -> Any:
        """Five images, four of them positive; or some images, all negative where not boxed."""
        pixels = patches() if images is None else images
        names = [f"image{row}" for row in range(len(pixels))]
        image_boxes = [BOXES[row % len(BOXES)] if boxed else None for row in range(len(pixels))]
        if self.kind == "classifier":
            targets = torch.tensor([[float(box is not None)] for box in image_boxes])
            return LabelBatch(names, pixels, targets)
        scale = pixels.shape[-1] / SIZE
        boxes = [
            torch.tensor([box] if box else [], dtype=torch.float32).view(-1, 4)
            for box in image_boxes
        ]
        labels = [torch.ones(len(rows), dtype=torch.int64) for rows in boxes]
        return LesionBatch(names, pixels, [scale * rows for rows in boxes], labels)

    @property
    def losses(self) -> Callable[..., dict[str, Tensor]]:
        return detector_losses if self.kind == "detector" else classifier_losses

    def validate(self, model: Any, batch: Any) -> tuple[dict[str, Tensor], Any]:
        """Losses and answers of a validation batch."""
        how = validate_detector if self.kind == "detector" else validate_classifier
        return how(model, batch)  # type: ignore[operator]

    def answers(self, model: Any, images: Tensor) -> list[dict[str, Tensor]]:
        """Boxes and scores, or score and map, of each image; nothing where it is not finite."""
        model.eval()
        if self.kind == "detector":
            with torch.no_grad():
                return [_tensors(boxes) for boxes in model(images)]
        activation = activation_maps(model, images)
        rows = zip(activation.logits.sigmoid().cpu(), activation.maps.cpu(), strict=True)
        return [{"scores": score, "maps": maps} for score, maps in rows]


def _tensors(boxes: Boxes | None) -> dict[str, Tensor]:
    fields = {} if boxes is None else vars(boxes)
    return {name: torch.from_numpy(values) for name, values in fields.items()}


def read_entries(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def patches(size: int = SIZE) -> Tensor:
    """Noise up to 80 with a bright patch in each box, uint8 (5, 1, S, S)."""
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 80, (len(BOXES), 1, size, size), dtype=torch.uint8, generator=noise)
    for image, box in zip(images, BOXES, strict=True):
        if box is not None:
            x1, y1, x2, y2 = (round(edge * size / SIZE) for edge in box)
            image[:, y1:y2, x1:x2] += 150
    return images


EXAMPLE_TOML = """
kind = "detector"
name = "CenterNet"
[data]
image_size = 96
[model]
architecture = "lesion_centernet:CenterNet"
backbone = "mobilenet_v3_small"
channels = 32
[training]
epochs = 2
batch_size = 4
learning_rate = 1e-3
"""
"""Configuration of the detector of a user, lesion_centernet.py beside this file."""


_BODY = {"backbone": "mobilenet_v3_small", "norm": "group"}
_QUERIES = {"queries": 20, "channels": 32, "decoder_layers": 2}
_NO_ANCHORS = "cannot be exported: its boxes do not lie on anchors"
_DETR: dict[str, Any] = {"kind": "detector", "refused": _NO_ANCHORS, "steps": 90, "rate": 1e-3}
_ALONE = (("denoising", 0),)


def _detr(name: str, alone: tuple[tuple[str, Any], ...] = _ALONE, **more: Any) -> ModelCase:
    keys = {"denoising": 20, "encoder_layers": 1} if alone else {"encoder_layers": 1}
    model = {"architecture": name, **_BODY, **_QUERIES, **keys}
    return ModelCase(name, model=model, alone=alone, **_DETR | more)


def _classifier(backbone: str, **more: Any) -> ModelCase:
    name = backbone.replace(":", "_")
    return ModelCase(name, "classifier", {"backbone": backbone}, **{"steps": 45} | more)


_ALL = [
    ModelCase(
        "retinanet", "detector", release=False,
        model={"architecture": "retinanet", **_BODY, "fpn_channels": 32, "head_convs": 1},
    ),
    ModelCase(
        "retinanet_timm", "detector",
        model={
            "architecture": "retinanet", "backbone": "timm:test_convnext", "norm": "batch",
            "fpn_channels": 32, "head_convs": 1,
        },
    ),
    _detr("rt_detr"),
    _detr("d_fine"),
    _detr("deformable_detr", alone=(), steps=300),
    ModelCase(
        "fcos", "detector",
        model={"architecture": "fcos", **_BODY, "fpn_channels": 32, "head_convs": 1},
    ),
    ModelCase(
        "faster_rcnn", "detector", refused=_NO_ANCHORS, steps=150, rate=1e-3,
        model={
            "architecture": "faster_rcnn", **_BODY, "fpn_channels": 32, "box_channels": 32,
        },
    ),
    ModelCase("ssdlite", "detector", model={"architecture": "ssdlite", **_BODY}),
    ModelCase(
        "centernet", "detector", refused=_NO_ANCHORS, steps=45,
        model={"architecture": "lesion_centernet:CenterNet", **_BODY, "channels": 32},
    ),
    _classifier("small_cnn", release=False),
    ModelCase(  # it begins with the weights of the run of another case
        "frozen", "classifier", steps=300, rate=1e-1,
        model={"backbone": "small_cnn", "weights": "small_cnn", "trainable": "head"},
    ),
    _classifier("timm:test_convnext"),
    _classifier("timm:test_vit", refused="its head reads a class token"),
    _classifier("densenet121"),
    _classifier("mobilenet_v3_small", steps=120),
    _classifier("efficientnet_lite0", steps=120),
]  # fmt: skip
MODEL_CASES = {case.name: case for case in _ALL}
