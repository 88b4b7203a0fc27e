"""A trained network as a graph file in ONNX or OpenVINO format.

The graph holds normalisation, backbone and heads, in float32 or, after post-training quantisation,
in 8-bit integers. Boxes are decoded outside of it, in float32 at every precision and for a batch. A
second graph of a detector, in float32 and for one image, ends in the image score and the boxes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from cxr_compare.classification.model import ImageClassifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.placement import Frame
from cxr_compare.detection.dense import DenseDetector, decode_anchors
from cxr_compare.detection.detector import Detector
from cxr_compare.detection.frames import (
    CANDIDATES_PER_LEVEL,
    MAX_PER_FINDING,
    MIN_SCORE,
    NMS_IOU,
)
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.reduction import TOP_K, Reduction
from cxr_compare.serving.export_spec import (
    ANCHORS_FILE,
    BOXES_FILE,
    BOXES_OUTPUTS,
    FACTS_SECTION,
    INPUT,
    MODEL_FILES,
    ORIGINAL_SIZE,
    OUTPUTS,
    Format,
)
from cxr_compare.serving.exported_model import without_telemetry

_OPSET = 17
_TRACED_BATCH = 2  # with a batch of one, tracing would fix the batch size to 1
_GATES = {"Sigmoid", "HardSigmoid", "HSigmoid", "Swish", "HSwish"}
# In networks with gates (EfficientNet, MobileNetV3) these operations take longer in integers,
# because of the conversions around them. Both networks were 1.3 times as fast with them in bf16.
_FLOATS_OF_GATED = ["GroupConvolution", "Multiply", "Add", "ReduceMean", "Swish", "HSwish"]


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
    """Return a copy of a network whose first convolution reads one channel instead of three."""
    model = deepcopy(model)
    if isinstance(model, ImageClassifier) and model.by_colour:
        return model
    name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    model.set_submodule(name, _GreyConvolution(first))
    return model


class _DetectorGraph(nn.Module):
    """Logits of the findings ``(B, A, K)`` and offsets ``(B, A, 4)`` from store pixels."""

    def __init__(self, model: DenseDetector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.model.preprocess.normalise(images).expand(-1, 3, -1, -1)
        outputs = self.model.head(list(self.model.backbone(pixels).values()))
        return self.model.box_outputs(outputs)


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


class _BoxesGraph(nn.Module):
    """Image score, boxes, their scores and findings of one image, by the rules of `cxr predict`."""

    def __init__(self, model: DenseDetector, decision: Choices | None) -> None:
        super().__init__()
        self.network = _DetectorGraph(model)
        anchors, self.level_sizes = anchors_of(model)
        self.anchors = nn.Parameter(torch.from_numpy(anchors), requires_grad=False)
        self.size = model.preprocess.size
        self.n_findings = model.n_findings
        self.reduction = (decision and decision.reduction) or Reduction()
        self.overlap = None if decision is None else decision.overlap

    def forward(self, images: Tensor, original_size: Tensor) -> tuple[Tensor, ...]:
        logits, offsets = (output[0] for output in self.network(images))
        corners, scores, labels = self._candidates(logits, offsets)
        kept = torch.cat([self._best(corners, scores, labels == k) for k in range(self.n_findings)])
        corners = self._to_original(corners[kept], original_size)
        has_area = (corners[:, 2:] > corners[:, :2]).all(dim=1)
        kept = kept[has_area]
        scores = scores[kept]
        # An output that is not finite gives the score NaN: without boxes it would look negative.
        score = self._reduced(scores) + 0.0 * (logits.sum() + offsets.sum())
        order = scores.argsort(descending=True)
        corners = corners[has_area][order]
        scores = scores[order]
        labels = labels[kept][order]
        if self.overlap is not None:
            apart = nms(corners, scores, self.overlap)
            corners, scores, labels = corners[apart], scores[apart], labels[apart]
        return score, corners, scores, labels

    def _candidates(self, logits: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best boxes of each level, in px of the square, with scores and findings."""
        corners, scores, labels = [], [], []
        levels = (values.split(self.level_sizes) for values in (logits, offsets, self.anchors))
        for level_logits, level_offsets, level_anchors in zip(*levels, strict=True):
            most = min(CANDIDATES_PER_LEVEL * self.n_findings, level_logits.numel())
            best = level_logits.sigmoid().flatten().topk(most)
            rows = best.indices // self.n_findings
            boxes = decode_anchors(level_offsets[rows], level_anchors[rows])
            corners.append(boxes.clamp(0.0, float(self.size)))
            scores.append(best.values)
            labels.append(best.indices % self.n_findings)
        return torch.cat(corners), torch.cat(scores), torch.cat(labels)

    def _best(self, corners: Tensor, scores: Tensor, is_finding: Tensor) -> Tensor:
        """Return the rows of the boxes of one finding that no better one overlaps."""
        rows = torch.where(is_finding & (scores >= MIN_SCORE))[0]
        return rows[nms(corners[rows], scores[rows], NMS_IOU)[:MAX_PER_FINDING]]

    def _to_original(self, corners: Tensor, original_size: Tensor) -> Tensor:
        """Move boxes from px of the square to px of the original, as `Placement` does."""
        sides = original_size.double()  # (2,) width, height
        scaled = (sides * (self.size / sides.max())).round().clamp(min=1.0)
        offset = ((self.size - scaled) / 2).floor()
        moved = (corners.view(-1, 2, 2) - offset) / (scaled / sides)
        return torch.minimum(moved.clamp(min=0.0), sides).view(-1, 4).float()

    def _reduced(self, scores: Tensor) -> Tensor:
        """Return the image score ``(1,)``."""
        used = torch.where(scores >= self.reduction.min_score, scores, 0.0)
        if self.reduction.rule == "noisy_or":
            return 1.0 - (1.0 - used).prod(dim=0, keepdim=True)
        number = 1 if self.reduction.rule == "max" else TOP_K
        filled = torch.cat([used, used.new_zeros(number)])
        return filled.topk(number).values.sum(dim=0, keepdim=True) / number


def write_graph(
    model: nn.Module,
    folder: Path,
    format: Format,  # noqa: A002
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write a network in float32 into a folder, and the anchors of a detector beside it.

    The model is in evaluation mode; `facts` (`ExportSpec.facts`) stand in the file.
    """
    graph: nn.Module
    grey = _for_grey(model)
    if isinstance(grey, DenseDetector):
        size = grey.preprocess.size
        kind = "boxes"
        graph = _DetectorGraph(grey)
        np.save(folder / ANCHORS_FILE, anchors_of(grey)[0])
    else:
        classifier = cast("ImageClassifier", grey)
        size = classifier.preprocess.size
        kind = "scores"
        graph = _ClassifierGraph(classifier)
    path = folder / MODEL_FILES["onnx"][0]
    example = torch.zeros(_TRACED_BATCH, 1, size, size, dtype=torch.uint8)
    axes = {name: {0: "batch"} for name in (INPUT, *OUTPUTS[kind])}
    _write_onnx(graph, path, {INPUT: example}, OUTPUTS[kind], axes, facts or {})
    if format == "openvino":
        without_telemetry()
        import openvino

        network = openvino.Core().read_model(path)
        for name, value in (facts or {}).items():
            network.set_rt_info(value, [FACTS_SECTION, name])
        openvino.save_model(network, folder / MODEL_FILES["openvino"][0], compress_to_fp16=False)
        path.unlink()


def write_graph_with_boxes(
    model: DenseDetector, folder: Path, decision: Choices | None, facts: Mapping[str, str]
) -> None:
    """Write a detector, in float32 and for one image, whose outputs are what `cxr predict` answers.

    The model is in evaluation mode. `decision` gives the reduction of boxes to the image score and
    the largest overlap of two boxes, which the graph holds. `facts` (`ExportSpec.facts`) stand in
    the file.
    """
    graph = _BoxesGraph(cast("DenseDetector", _for_grey(model)), decision)
    side = model.preprocess.size
    inputs = {
        INPUT: torch.zeros(1, 1, side, side, dtype=torch.uint8),
        ORIGINAL_SIZE: torch.tensor([side, side]),
    }
    axes = {name: {0: "boxes"} for name in BOXES_OUTPUTS[1:]}
    _write_onnx(graph, folder / BOXES_FILE, inputs, BOXES_OUTPUTS, axes, facts)


def _write_onnx(
    graph: nn.Module,
    path: Path,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    facts: Mapping[str, str],
) -> None:
    """Write a module as an ONNX file that holds facts as its metadata."""
    import onnx

    graph.eval()  # the exporter puts back the mode that it finds
    with warnings.catch_warnings(), torch.no_grad():
        # The traced exporter is the older one; the newer gives graphs that run 15 to 20 % slower.
        warnings.simplefilter("ignore", (DeprecationWarning, torch.jit.TracerWarning))
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            graph,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    if facts:
        written = onnx.load(path)
        onnx.helper.set_model_props(written, dict(facts))
        onnx.save(written, path)


def layout_of(model: nn.Module) -> tuple[tuple[int, ...], Frame | None]:
    """Return the numbers that are needed to decode the outputs of an exported network.

    For a detector they are the number of anchors on each level of its feature pyramid, and None;
    for a classifier an empty tuple and the outer edges x1, y1, x2, y2 of its activation map, in px
    of the input. Raises InputError if a detector has no anchors at fixed positions, or a
    classifier's head reads a class token: neither can be exported.
    """
    if isinstance(model, DenseDetector):
        return anchors_of(model)[1], None
    if isinstance(model, Detector):
        raise InputError(
            f"{model.architecture['name']}: cannot be exported: its boxes do not lie on anchors of "
            "fixed places; export a retinanet, fcos or ssdlite, or take the run itself"
        )
    classifier = cast("ImageClassifier", model)
    if classifier.map_method("cam") != "cam":
        raise InputError(
            "its head reads a class token, whose maps are gradients, and no export computes those; "
            "export a network that pools its maps"
        )
    size = classifier.preprocess.size
    with torch.inference_mode():
        features = classifier.features(torch.zeros(1, 1, size, size, dtype=torch.uint8))
    return (), classifier.map_frame(*features.shape[2:])


def anchors_of(model: DenseDetector) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the anchors of a detector and their number on each level of its feature pyramid.

    The anchors are float32 ``(A, 4)`` xyxy in px of the network's square input.
    """
    size = model.preprocess.size
    with torch.inference_mode():
        heads = model.run(torch.zeros(1, 1, size, size, dtype=torch.uint8))
    return heads.anchors[0].numpy(), tuple(heads.level_sizes)


def calibration_images(
    seen: pd.DataFrame, dataset: DataSet, split: str, *, most: int = 300, seed: int = 0
) -> list[str]:
    """Choose the training images that give the value ranges of an export in 8-bit integers.

    `seen` has the ``image_id`` and ``role`` of the images that the training used; of these, only
    ``train`` is chosen, because validation and test images evaluate the export and the system. More
    than 300 images change the ranges little. The ids are sorted. Raises InputError if the data set
    has none of the run's training images, or one of them has another role in the split.
    """
    trained = seen[seen["role"] == "train"]
    candidates = sorted(set(trained["image_id"]) & set(dataset.images["image_id"]))
    if not candidates:
        raise InputError(
            f"{dataset.folder}: has none of the run's training images, on which --precision int8 "
            "is calibrated; give the data set that it was trained on"
        )
    roles = dataset.split(split).set_index("image_id")["role"]
    chosen = np.random.default_rng(seed).permutation(candidates)[:most]
    wrong = sorted(name for name in chosen if roles.get(name) != "train")
    if wrong:
        raise InputError(
            f"{dataset.folder}: image '{wrong[0]}' has the role '{roles.get(wrong[0])}' in split "
            f"'{split}', and the run learned from it; give the data set that it was trained on"
        )
    return sorted(map(str, chosen))


def quantise(folder: Path, image: Callable[[str], np.ndarray], image_ids: Sequence[str]) -> None:
    """Replace the float32 network of an OpenVINO export by one of 8-bit integers.

    Weights have one scale for each channel, activations one for each layer. The first convolution
    stays in float32, because 8 bits lose the faint contrasts of X-rays there. Of 188 validation
    images of the quickstart, 9 changed their decision if it was in 8 bits (for CheXNet and for
    RetinaNet), and 1 and 4 if it was not.

    `image` returns the pixels of an image id, uint8 ``(S, S)``; `image_ids` are training images.

    Source:
        Post-training quantisation with fast bias correction, NNCF (Kozlov et al. 2020).
    """
    without_telemetry()
    # Imported by nncf; it warns of a missing GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    path = folder / MODEL_FILES["openvino"][0]
    data = nncf.Dataset(image_ids, lambda image_id: {INPUT: image(image_id)[None, None]})
    model = openvino.Core().read_model(path)
    kinds = {op.get_friendly_name(): op.get_type_name() for op in model.get_ordered_ops()}
    convolutions = ("Convolution", "GroupConvolution")
    first = next(name for name, kind in kinds.items() if kind in convolutions)
    floats = _FLOATS_OF_GATED if _GATES & set(kinds.values()) else []
    scope = nncf.IgnoredScope(names=[first], types=floats, validate=False)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its libraries; the result is evaluated afterwards
        whole = nncf.quantize(
            model, calibration_dataset=data, subset_size=len(image_ids), ignored_scope=scope
        )
    # The old weights are read from their file as they are needed: the new ones get another.
    new = folder / f"quantised{path.suffix}"
    openvino.save_model(whole, new, compress_to_fp16=False)
    for name in MODEL_FILES["openvino"]:
        new.with_suffix(Path(name).suffix).replace(folder / name)
