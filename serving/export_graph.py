"""A trained network as a graph file: normalisation, backbone and heads; boxes are decoded outside.

The whole detector cannot be exported well: torchvision's decoding fixes the graph to one image, and
torch's newer exporter fails on it.
"""

from __future__ import annotations

import logging
import warnings
from copy import deepcopy
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from classification.model import ImageClassifier
from detection.retinanet import LesionRetinaNet
from serving.exported.session import without_telemetry
from serving.exported.spec import ANCHORS_FILE, INPUT, MODEL_FILES, OUTPUTS, Format

_OPSET = 17
_TRACED_BATCH = 2  # of one, tracing would take the batch for a constant


class _GreyConvolution(nn.Module):
    """A network's first convolution for one channel: its three are equal, so their weights add up.

    An eighth of what DenseNet121 computes in int8 was this layer, which stays in floating point.
    """

    def __init__(self, first: nn.Conv2d) -> None:
        super().__init__()
        self.first = deepcopy(first)
        self.first.in_channels = 1
        self.first.weight = nn.Parameter(first.weight.detach().sum(dim=1, keepdim=True))

    def forward(self, pixels: Tensor) -> Tensor:
        grey: Tensor = self.first(pixels[:, :1])
        return grey


def _for_grey(model: nn.Module) -> nn.Module:
    """A copy of a network whose first convolution reads one channel, where its three are equal."""
    model = deepcopy(model)
    if isinstance(model, ImageClassifier) and model.by_colour:
        return model
    name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    model.set_submodule(name, _GreyConvolution(first))
    return model


class _DetectorGraph(nn.Module):
    """Logits of the findings ``(B, A, K)`` and offsets ``(B, A, 4)`` from store pixels."""

    def __init__(self, model: LesionRetinaNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.model.preprocess.normalise(images).expand(-1, 3, -1, -1)
        outputs = self.model.head(list(self.model.backbone(pixels).values()))
        return outputs["cls_logits"][..., 1:], outputs["bbox_regression"]


class _ClassifierGraph(nn.Module):
    """Logits ``(B, K)`` and class activation maps ``(B, K, h, w)`` from store pixels."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.features(images)
        weight = self.model.classifier.weight
        # A convolution with 1 x 1 cells: what `maps` computes, in an operation every runtime has.
        maps = nn.functional.conv2d(features, weight[:, :, None, None])
        return self.model.logits(features), maps


def write_graph(model: nn.Module, folder: Path, format: Format) -> None:  # noqa: A002
    """Write a network into a folder in a format, in float32, and a detector's anchors."""
    graph: nn.Module
    grey = _for_grey(model)
    if isinstance(grey, LesionRetinaNet):
        size, kind, graph = grey.preprocess.size, "boxes", _DetectorGraph(grey)
        np.save(folder / ANCHORS_FILE, anchors_of(grey)[0])
    else:
        classifier = cast("ImageClassifier", grey)
        size, kind, graph = classifier.preprocess.size, "scores", _ClassifierGraph(classifier)
    graph.eval()  # the exporter puts back the mode that it finds
    path = folder / MODEL_FILES["onnx"][0]
    example = torch.zeros(_TRACED_BATCH, 1, size, size, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # The traced exporter is the older one; the newer gives graphs that run 15 to 20 % slower.
        warnings.simplefilter("ignore", (DeprecationWarning, torch.jit.TracerWarning))
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            graph,
            (example,),
            str(path),
            input_names=[INPUT],
            output_names=list(OUTPUTS[kind]),
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS[kind])},
            opset_version=_OPSET,
            dynamo=False,
        )
    if format == "openvino":
        without_telemetry()
        import openvino

        network = openvino.Core().read_model(path)
        openvino.save_model(network, folder / MODEL_FILES["openvino"][0], compress_to_fp16=False)
        path.unlink()


def anchors_of(model: LesionRetinaNet) -> tuple[np.ndarray, tuple[int, ...]]:
    """A detector's anchors, float32 ``(A, 4)`` xyxy in store px, and how many lie on each level."""
    size = model.preprocess.size
    with torch.inference_mode():
        heads = model.run_heads(torch.zeros(1, 1, size, size, dtype=torch.uint8))
    return heads.anchors[0].numpy(), tuple(heads.level_sizes)
