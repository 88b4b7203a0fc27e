"""FCOS, SSDLite and Faster R-CNN on store pixels, with torchvision's layers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import (
    FCOSClassificationHead,
    FCOSHead,
    FCOSRegressionHead,
)
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block, _normal_init
from torchvision.ops import MultiScaleRoIAlign, box_iou

from data_prep.store.preprocess import Preprocess
from detection.backbone import Norm, build_pyramid, group_norm
from detection.dense import DenseDetector, HeadPass, TorchvisionDetector, suppressed
from detection.detector import Detections, Detector, Targets
from detection.retinanet import DEFAULT_RATIOS, build_anchors, default_anchor_sizes
from detection.weights import build_start

_MOST_CERTAIN = -1e-6  # of the logarithm of a probability, whose logit is then finite


def _logits(log_probability: Tensor, outputs: Tensor) -> Tensor:
    """Logits of probabilities from their logarithms; NaN where an output behind is not finite."""
    log_probability = log_probability.clamp(max=_MOST_CERTAIN)
    hidden = (outputs * 0.0).sum(2, keepdim=True)
    return log_probability - (1.0 - log_probability.exp()).log() + hidden


def _mean_losses(
    losses: Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]],
    passed: HeadPass,
    targets: Targets,
) -> dict[str, Tensor]:
    """Means over the images of losses of one image's outputs and target, in float32.

    torchvision divides by all boxes of a batch, whose images would then weigh by how they are cut.
    """
    with torch.autocast(passed.anchors[0].device.type, enabled=False):
        each = [
            losses({name: out[row : row + 1] for name, out in passed.outputs.items()}, target)
            for row, target in enumerate(targets)
        ]
        return {name: torch.stack([image[name] for image in each]).mean() for name in each[0]}


# ---------------------------------------------------------------------- FCOS


class _FCOSHead(FCOSHead):
    """torchvision's, less deep, and with our group norm."""

    def __init__(self, channels: int, n_classes: int, convs: int) -> None:
        super().__init__(channels, 1, n_classes, num_convs=0)
        self.classification_head = FCOSClassificationHead(
            channels, 1, n_classes, convs, norm_layer=group_norm
        )
        self.regression_head = FCOSRegressionHead(channels, 1, convs, norm_layer=group_norm)


class _LesionFCOS(DenseDetector, FCOS):  # type: ignore[misc]  # forward is Detector's
    """torchvision's FCOS for store pixels; build it with `build_fcos`.

    Source:
        Tian et al. 2019, FCOS: Fully Convolutional One-Stage Object Detection.
    """

    class_layers = ("cls_logits",)

    def __init__(
        self, backbone: BackboneWithFPN, head: FCOSHead, preprocess: Preprocess, n_findings: int
    ) -> None:
        super().__init__(backbone, n_findings + 1, head=head)
        self.prepare(preprocess, n_findings)

    def coded(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of the geometric mean of class and centredness, and of boxes about their places."""
        both = torch.cat([outputs["bbox_ctrness"], outputs["cls_logits"]], dim=2)
        certain = functional.logsigmoid(both)
        first, last = outputs["bbox_regression"].split(2, dim=2)  # left and top, right and bottom
        offsets = torch.cat([(last - first) / 2, (first + last).clamp(min=1e-6).log()], dim=2)
        return _logits((certain[..., :1] + certain[..., 2:]) / 2, both), offsets

    def losses(self, passed: HeadPass, targets: Targets) -> dict[str, Tensor]:
        """Torchvision's of each image, means over the images."""
        anchors, sizes = passed.anchors[:1], passed.level_sizes
        return _mean_losses(
            lambda outputs, target: self.compute_loss([target], outputs, anchors, sizes),
            passed,
            targets,
        )


def build_fcos(
    *,
    backbone: str = "resnet50",
    norm: Norm = "group",
    fpn_channels: int = 256,
    head_convs: int = 4,
    n_findings: int = 1,
    image_size: int = 512,
    weights: Literal["imagenet"] | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> DenseDetector:
    """Build an FCOS with a feature pyramid, P3 to P7: one box for each place, without anchors.

    Source:
        Tian et al. 2019, FCOS: Fully Convolutional One-Stage Object Detection.
    """
    body, preprocess = build_start(backbone, norm, weights, image_size, mean, std)
    pyramid = build_pyramid(backbone, body, fpn_channels)
    head = _FCOSHead(fpn_channels, n_findings + 1, head_convs)
    return _LesionFCOS(pyramid, head, preprocess, n_findings)


# ---------------------------------------------------------------------- SSDLite

_SSD_LEVELS = 6


class _SmallMapNorm(nn.BatchNorm2d):
    """Batch norm that takes its averages where a batch has one value: of one image, one place."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=0.001, momentum=0.03)  # torchvision's

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w)."""
        if self.training and x.numel() == x.shape[1]:
            fixed = (self.running_mean, self.running_var, self.weight, self.bias)
            return functional.batch_norm(x, *fixed, training=False, eps=self.eps)
        return super().forward(x)


class _SSDLiteMaps(nn.Module):
    """A body's maps at strides of 16 and 32, and four more, each half of the one before."""

    def __init__(self, name: str, body: nn.Module, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        pyramid: Any = build_pyramid(name, body, 8, strides=(16, 32))
        self.body = pyramid.body
        widths = [block[0].in_channels for block in pyramid.fpn.inner_blocks]
        self.channels = [*widths, 512, 256, 256, 128]
        pairs = zip(self.channels[1:], self.channels[2:], strict=False)
        self.extra = nn.ModuleList(_extra_block(wide, narrow, norm) for wide, narrow in pairs)
        _normal_init(self.extra)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Map float (B, 3, S, S) to the six maps, finest first."""
        maps = list(self.body(pixels).values())
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return {str(level): found for level, found in enumerate(maps)}


class _LesionSSDLite(DenseDetector, SSD):  # type: ignore[misc]  # forward is Detector's
    """torchvision's SSDLite for store pixels; build it with `build_ssdlite`.

    torchvision learns nothing from an image without boxes; here its three worst mistakes count, as
    many as for one anchor with a box.

    Source:
        Liu et al. 2016, SSD: Single Shot MultiBox Detector; Howard et al. 2019, MobileNetV3.
    """

    class_layers = ("head.classification_head",)
    backbone: _SSDLiteMaps

    def __init__(
        self, backbone: _SSDLiteMaps, head: SSDLiteHead, preprocess: Preprocess, n_findings: int
    ) -> None:
        size = (preprocess.size, preprocess.size)
        anchors = DefaultBoxGenerator([[2, 3]] * _SSD_LEVELS, min_ratio=0.2, max_ratio=0.95)
        super().__init__(backbone, anchors, size, n_findings + 1, head=head)
        self.prepare(preprocess, n_findings)

    def coded(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each finding against all other classes together, and offsets without their scale."""
        classes, offsets = outputs["cls_logits"], outputs["bbox_regression"]
        logits = _logits(classes.log_softmax(2)[..., 1:], classes)
        (centres, _, sides, _) = self.box_coder.weights
        return logits, torch.cat([offsets[..., :2] / centres, offsets[..., 2:] / sides], dim=2)

    def losses(self, passed: HeadPass, targets: Targets) -> dict[str, Tensor]:
        """Torchvision's of each image, and of one without boxes its three worst mistakes."""
        anchors = passed.anchors[:1]

        def of_image(outputs: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
            if len(target["boxes"]):
                matched = self.proposal_matcher(box_iou(target["boxes"], anchors[0]))
                return self.compute_loss([target], outputs, anchors, [matched])
            mistakes = -outputs["cls_logits"][0].log_softmax(1)[:, 0]
            worst = mistakes.topk(int(self.neg_to_pos_ratio)).values.sum()
            none = 0.0 * outputs["bbox_regression"].sum()  # several processes wait for a gradient
            return {"bbox_regression": none, "classification": worst}

        return _mean_losses(of_image, passed, targets)


def build_ssdlite(
    *,
    backbone: str = "mobilenet_v3_large",
    norm: Norm = "group",
    n_findings: int = 1,
    image_size: int = 320,
    weights: Literal["imagenet"] | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> DenseDetector:
    """Build an SSDLite: default boxes of six maps, from a fifth of the image up.

    Source:
        Liu et al. 2016, SSD: Single Shot MultiBox Detector; Howard et al. 2019, MobileNetV3.
    """
    body, preprocess = build_start(backbone, norm, weights, image_size, mean, std)
    norm_layer = group_norm if norm == "group" else _SmallMapNorm
    maps = _SSDLiteMaps(backbone, body, norm_layer)
    head = SSDLiteHead(maps.channels, [6] * _SSD_LEVELS, n_findings + 1, norm_layer)
    return _LesionSSDLite(maps, head, preprocess, n_findings)


# ---------------------------------------------------------------------- Faster R-CNN


class _Proposed(NamedTuple):
    """What one pass through backbone and proposal network gives, in full precision but for maps."""

    maps: dict[str, Tensor]  # P2 to P6
    objectness: Tensor  # (B, A) logits
    offsets: Tensor  # (B, A, 4), of the anchors
    anchors: list[Tensor]  # per image (A, 4) xyxy, store px
    proposals: list[Tensor]  # per image (P, 4) xyxy, store px


class _LesionFasterRCNN(TorchvisionDetector, FasterRCNN):  # type: ignore[misc]
    """torchvision's Faster R-CNN for store pixels; build it with `build_faster_rcnn`.

    Losses are means over the images, also of what each image samples.

    Source:
        Ren et al. 2015, Faster R-CNN; Lin et al. 2017, Feature Pyramid Networks.
    """

    class_layers = ("roi_heads.box_predictor",)
    coco_without_epsilon = True
    rpn: Any
    roi_heads: Any

    def __init__(
        self, backbone: BackboneWithFPN, preprocess: Preprocess, n_findings: int, **parts: Any
    ) -> None:
        super().__init__(backbone, **parts)
        self.prepare(preprocess, n_findings)

    def run(self, images: Tensor, targets: Targets | None = None) -> _Proposed:
        """The proposals have no gradient, as in torchvision."""
        pixels = self.pixels(images)
        batch = self.image_list(pixels)
        maps = self.backbone(pixels)
        outputs = self.rpn.head(list(maps.values()))
        with torch.autocast(pixels.device.type, enabled=False):
            objectness, offsets = ([level.float() for level in levels] for levels in outputs)
            sizes = [level[0].numel() for level in objectness]
            anchors = self.rpn.anchor_generator(batch, objectness)
            flat_objectness, flat_offsets = concat_box_prediction_layers(objectness, offsets)
            proposed = self.rpn.box_coder.decode(flat_offsets.detach(), anchors)
            proposals, _ = self.rpn.filter_proposals(
                proposed.view(len(images), -1, 4), flat_objectness, batch.image_sizes, sizes
            )
        return _Proposed(
            maps,
            flat_objectness.view(len(images), -1),
            flat_offsets.view(len(images), -1, 4),
            anchors,
            proposals,
        )

    def _classified(self, passed: _Proposed, boxes: list[Tensor]) -> tuple[Sequence[Tensor], ...]:
        """Per image the logits (P, K + 1) and offsets (P, 4 (K + 1)) of boxes, float32."""
        size = (self.preprocess.size, self.preprocess.size)
        pooled = self.roi_heads.box_roi_pool(passed.maps, boxes, [size] * len(boxes))
        outputs = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        counts = [len(image) for image in boxes]
        return tuple(output.float().split(counts) for output in outputs)

    def losses(self, passed: _Proposed, targets: Targets) -> dict[str, Tensor]:
        """Torchvision's of each image; in evaluation mode always the same samples."""
        device = passed.objectness.device
        draws = nullcontext() if self.training else _fixed_draws(device)
        with draws, torch.autocast(device.type, enabled=False):
            labels, boxes = self.rpn.assign_targets_to_anchors(passed.anchors, targets)
            wanted = self.rpn.box_coder.encode(boxes, passed.anchors)
            of_anchors = [
                self.rpn.compute_loss(objectness, offsets, [label], [aim])
                for objectness, offsets, label, aim in zip(
                    passed.objectness, passed.offsets, labels, wanted, strict=True
                )
            ]
            chosen, _, labels, wanted = self.roi_heads.select_training_samples(
                passed.proposals, targets
            )
        outputs = self._classified(passed, chosen)
        with torch.autocast(device.type, enabled=False):
            of_boxes = [
                fastrcnn_loss(logits, offsets, [label], [aim])
                for logits, offsets, label, aim in zip(*outputs, labels, wanted, strict=True)
            ]
        names = ("objectness", "proposal_regression", "classification", "bbox_regression")
        parts = zip(*(a + b for a, b in zip(of_anchors, of_boxes, strict=True)), strict=True)
        return {name: torch.stack(part).mean() for name, part in zip(names, parts, strict=True)}

    @torch.no_grad()
    def detections(self, passed: _Proposed) -> Detections:
        """Of the proposals, classified and moved."""
        logits, offsets = self._classified(passed, passed.proposals)
        finite = passed.objectness.isfinite().all(1) & passed.offsets.isfinite().all((1, 2))
        pairs = zip(logits, offsets, strict=True)
        finite &= torch.stack([torch.cat(pair, dim=1).isfinite().all() for pair in pairs])
        with torch.autocast(finite.device.type, enabled=False):
            decoded = self.roi_heads.box_coder.decode(torch.cat([*offsets]), passed.proposals)
        boxes = pad_sequence(decoded[:, 1:].split([len(image) for image in logits]), True)
        scores = pad_sequence([image.softmax(1)[:, 1:] for image in logits], True)  # (B, P, K)
        labels = torch.arange(self.n_findings, device=finite.device).expand_as(scores)
        each = (boxes.flatten(1, 2), scores.flatten(1), labels.flatten(1))
        return suppressed(*each, finite, self.n_findings, self.preprocess.size)


@contextmanager
def _fixed_draws(device: torch.device) -> Iterator[None]:
    """Draw the same every time, and leave the global generators as they are."""
    with torch.random.fork_rng([] if device.type == "cpu" else [device]):
        torch.manual_seed(0)
        yield


def build_faster_rcnn(
    *,
    backbone: str = "resnet50",
    norm: Norm = "group",
    fpn_channels: int = 256,
    box_channels: int = 1024,
    n_findings: int = 1,
    image_size: int = 512,
    anchor_sizes: Sequence[float] | None = None,
    anchor_ratios: Sequence[float] = DEFAULT_RATIOS,
    weights: Literal["imagenet"] | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> Detector:
    """Build a Faster R-CNN with a feature pyramid, P2 to P6.

    Anchors, and the level that a proposal is read from, are torchvision's at 512 px and the same
    share of other images; `anchor_sizes` are the only sizes of each level.

    Source:
        Ren et al. 2015, Faster R-CNN; Lin et al. 2017, Feature Pyramid Networks.
    """
    body, preprocess = build_start(backbone, norm, weights, image_size, mean, std)
    pyramid = build_pyramid(backbone, body, fpn_channels, strides=(4, 8, 16, 32), pooled_top=True)
    sizes = default_anchor_sizes(image_size, 4) if anchor_sizes is None else tuple(anchor_sizes)
    pool = MultiScaleRoIAlign(
        ["0", "1", "2", "3"], 7, sampling_ratio=2, canonical_scale=round(224 * image_size / 512)
    )
    model = _LesionFasterRCNN(
        pyramid,
        preprocess,
        n_findings,
        rpn_anchor_generator=build_anchors(sizes, anchor_ratios, steps=1),
        box_roi_pool=pool,
        box_head=TwoMLPHead(fpn_channels * 7**2, box_channels),
        box_predictor=FastRCNNPredictor(box_channels, n_findings + 1),
    )
    model.resolved = {"anchor_sizes": list(sizes)}
    return model
