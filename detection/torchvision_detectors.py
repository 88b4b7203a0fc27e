"""FCOS, SSDLite and Faster R-CNN on store pixels, with torchvision's layers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block, _normal_init
from torchvision.ops import MultiScaleRoIAlign, box_iou

from cxr_compare.detection.backbone import DetectorStart, group_norm
from cxr_compare.detection.dense import DenseDetector, HeadPass, image_list
from cxr_compare.detection.detector import Detections, Detector, Targets
from cxr_compare.detection.retinanet import DEFAULT_RATIOS, build_anchors

_MOST_CERTAIN = -1e-6  # of the logarithm of a probability, whose logit is then finite


def _logits(log_probability: Tensor, outputs: Tensor) -> Tensor:
    """Logits of probabilities from their logarithms; NaN where an output behind is not finite."""
    log_probability = log_probability.clamp(max=_MOST_CERTAIN)
    hidden = (outputs * 0.0).sum(2, keepdim=True)
    return log_probability - (1.0 - log_probability.exp()).log() + hidden


def _mean_losses(
    losses: Callable[..., dict[str, Tensor]], passed: HeadPass, targets: Targets
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


class LesionFCOS(DenseDetector, FCOS):  # type: ignore[misc]  # forward is Detector's
    """torchvision's FCOS with a feature pyramid, P3 to P7: one box for each place, no anchors.

    `configs.settings.FCOSSettings` says what the keys are; its norm is our group norm.

    Source:
        Tian et al. 2019, FCOS: Fully Convolutional One-Stage Object Detection.
    """

    class_layers = ("cls_logits",)

    def __init__(
        self, start: DetectorStart, *, fpn_channels: int = 256, head_convs: int = 4
    ) -> None:
        pyramid, n_classes = start.pyramid(fpn_channels), start.n_findings + 1
        head = FCOSHead(fpn_channels, 1, n_classes, num_convs=0)
        head.classification_head = FCOSClassificationHead(
            fpn_channels, 1, n_classes, head_convs, norm_layer=group_norm
        )
        head.regression_head = FCOSRegressionHead(fpn_channels, 1, head_convs, group_norm)
        super().__init__(pyramid, n_classes, head=head)

    def coded(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of the geometric mean of class and centredness, and of boxes about their places."""
        both = torch.cat([outputs["bbox_ctrness"], outputs["cls_logits"]], dim=2)
        certain = functional.logsigmoid(both)
        first, last = outputs["bbox_regression"].split(2, dim=2)  # left and top, right and bottom
        offsets = torch.cat([(last - first) / 2, (first + last).clamp(min=1e-6).log()], dim=2)
        return _logits((certain[..., :1] + certain[..., 2:]) / 2, both), offsets

    def losses(self, passed: HeadPass, targets: Targets) -> dict[str, Tensor]:
        """Torchvision's of each image, means over the images."""

        def of_image(outputs: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
            return self.compute_loss([target], outputs, passed.anchors[:1], passed.level_sizes)

        return _mean_losses(of_image, passed, targets)


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

    def __init__(self, start: DetectorStart, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.body, widths = start.maps(16, 32)
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


class LesionSSDLite(DenseDetector, SSD):  # type: ignore[misc]  # forward is Detector's
    """torchvision's SSDLite: default boxes of six maps, from a fifth of the image up.

    torchvision learns nothing from an image without boxes; here its three worst mistakes count, as
    many as for one anchor with a box.

    Source:
        Liu et al. 2016, SSD: Single Shot MultiBox Detector; Howard et al. 2019, MobileNetV3.
    """

    class_layers = ("head.classification_head",)

    def __init__(self, start: DetectorStart) -> None:
        norm = group_norm if start.norm == "group" else _SmallMapNorm
        maps, n_classes = _SSDLiteMaps(start, norm), start.n_findings + 1
        size = (start.preprocess.size, start.preprocess.size)
        head = SSDLiteHead(maps.channels, [6] * _SSD_LEVELS, n_classes, norm)
        anchors = DefaultBoxGenerator([[2, 3]] * _SSD_LEVELS, min_ratio=0.2, max_ratio=0.95)
        super().__init__(maps, anchors, size, n_classes, head=head)

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


class _Proposed(NamedTuple):
    """What one pass through backbone and proposal network gives, in full precision but for maps."""

    maps: dict[str, Tensor]  # P2 to P6
    objectness: Tensor  # (B, A) logits
    offsets: Tensor  # (B, A, 4), of the anchors
    anchors: list[Tensor]  # per image (A, 4) xyxy, store px
    proposals: list[Tensor]  # per image (P, 4) xyxy, store px


class LesionFasterRCNN(Detector, FasterRCNN):  # type: ignore[misc]  # forward is Detector's
    """torchvision's Faster R-CNN with a feature pyramid, P2 to P6.

    Losses are means over the images, also of what each image samples. Anchors, and the level that a
    proposal is read from, are torchvision's at 512 px and the same share of other images;
    `anchor_sizes` are the only sizes of each level (`configs.settings.FasterRCNNSettings`).

    Source:
        Ren et al. 2015, Faster R-CNN; Lin et al. 2017, Feature Pyramid Networks.
    """

    class_layers = ("roi_heads.box_predictor",)
    coco_without_epsilon = True
    rpn: Any
    roi_heads: Any

    def __init__(
        self,
        start: DetectorStart,
        *,
        fpn_channels: int = 256,
        box_channels: int = 1024,
        anchor_sizes: Sequence[float] | None = None,
        anchor_ratios: Sequence[float] = DEFAULT_RATIOS,
    ) -> None:
        pyramid = start.pyramid(fpn_channels, strides=(4, 8, 16, 32), pooled_top=True)
        size = start.preprocess.size
        anchors, self.resolved = build_anchors(anchor_sizes, anchor_ratios, size, stride=4, steps=1)
        pool = MultiScaleRoIAlign(
            ["0", "1", "2", "3"], 7, sampling_ratio=2, canonical_scale=round(224 * size / 512)
        )
        super().__init__(
            pyramid,
            rpn_anchor_generator=anchors,
            box_roi_pool=pool,
            box_head=TwoMLPHead(fpn_channels * 7**2, box_channels),
            box_predictor=FastRCNNPredictor(box_channels, start.n_findings + 1),
        )

    def run(self, images: Tensor, targets: Targets | None = None) -> _Proposed:
        """The proposals have no gradient, as in torchvision."""
        count, pixels = len(images), self.pixels(images)
        batch = image_list(pixels)
        maps = self.backbone(pixels)
        outputs = self.rpn.head(list(maps.values()))
        with torch.autocast(pixels.device.type, enabled=False):
            objectness, offsets = ([level.float() for level in levels] for levels in outputs)
            sizes = [level[0].numel() for level in objectness]
            anchors = self.rpn.anchor_generator(batch, objectness)
            logits, moves = concat_box_prediction_layers(objectness, offsets)
            decoded = self.rpn.box_coder.decode(moves.detach(), anchors).view(count, -1, 4)
            proposals, _ = self.rpn.filter_proposals(decoded, logits, batch.image_sizes, sizes)
        return _Proposed(maps, logits.view(count, -1), moves.view(count, -1, 4), anchors, proposals)

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
        devices = [] if device.type == "cpu" else [device]
        same_samples = torch.random.fork_rng(devices, enabled=not self.training)
        with same_samples, torch.autocast(device.type, enabled=False):
            if not self.training:
                torch.manual_seed(0)
            labels, boxes = self.rpn.assign_targets_to_anchors(passed.anchors, targets)
            wanted = self.rpn.box_coder.encode(boxes, passed.anchors)
            rows = zip(passed.objectness, passed.offsets, labels, wanted, strict=True)
            of_anchors = [self.rpn.compute_loss(*out, [label], [aim]) for *out, label, aim in rows]
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
        labels = torch.arange(1, self.n_findings + 1, device=finite.device).expand_as(scores)
        return self.suppressed(boxes.flatten(1, 2), scores.flatten(1), labels.flatten(1), finite)
