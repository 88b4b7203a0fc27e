"""FCOS, SSDLite and Faster R-CNN for images of the pixel store, with torchvision's layers."""

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

from cxr_compare.configs.model_settings import FasterRCNNSettings, FCOSSettings
from cxr_compare.detection.backbone import DetectorStart, group_norm
from cxr_compare.detection.dense import DenseDetector, HeadPass, image_list
from cxr_compare.detection.detector import Detections, Detector, Targets
from cxr_compare.detection.others.fcos_loss import fcos_losses, match_cells
from cxr_compare.detection.retinanet import DEFAULT_RATIOS, build_anchors

_MAX_LOG_PROBABILITY = -1e-6  # keeps the logit finite


def _logits(log_probability: Tensor, outputs: Tensor) -> Tensor:
    """Compute logits from logarithms of probabilities; NaN where an output is not finite.

    Both are (B, A, ...); `outputs` are those that the probabilities were computed from.
    """
    log_probability = log_probability.clamp(max=_MAX_LOG_PROBABILITY)
    zero_or_nan = (outputs * 0.0).sum(2, keepdim=True)  # (B, A, 1)
    return log_probability - (1.0 - log_probability.exp()).log() + zero_or_nan


def _mean_losses(
    image_losses: Callable[..., dict[str, Tensor]], passed: HeadPass, targets: Targets
) -> dict[str, Tensor]:
    """Compute the losses of each image in float32, and their means over the images.

    torchvision divides by all boxes of a batch: the weight of an image would then depend on how
    the images are divided into batches.
    """
    with torch.autocast(passed.anchors[0].device.type, enabled=False):
        losses = []
        for row, target in enumerate(targets):
            outputs = {name: output[row : row + 1] for name, output in passed.outputs.items()}
            losses.append(image_losses(outputs, target))
        return {name: torch.stack([image[name] for image in losses]).mean() for name in losses[0]}


class LesionFCOS(DenseDetector, FCOS):  # type: ignore[misc]  # forward is Detector's
    """torchvision's FCOS for grey images: one box for each cell of P3 to P7, and no anchors.

    P3 to P7 are the levels of a feature pyramid, with cells of 8 to 128 px.

    `configs.model_settings.FCOSSettings` explains the settings. The heads use the group norm of
    `detection.backbone.group_norm`.

    Source:
        Tian et al. 2019, FCOS: Fully Convolutional One-Stage Object Detection.
    """

    Settings = FCOSSettings
    class_layers = ("cls_logits",)

    def __init__(
        self, start: DetectorStart, *, fpn_channels: int = 256, head_convs: int = 4
    ) -> None:
        pyramid = start.pyramid(fpn_channels)
        n_classes = start.n_findings + 1
        head = FCOSHead(fpn_channels, 1, n_classes, num_convs=0)
        head.classification_head = FCOSClassificationHead(
            fpn_channels, 1, n_classes, head_convs, norm_layer=group_norm
        )
        head.regression_head = FCOSRegressionHead(fpn_channels, 1, head_convs, group_norm)
        super().__init__(pyramid, n_classes, head=head)

    def box_outputs(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits of the boxes' scores, and offsets of the boxes from the cells.

        FCOS multiplies the probability of a finding by a predicted centredness; the logit of the
        square root of this product is returned. FCOS predicts the distances from the middle of a
        cell to the edges of its box. They are converted to the offset of the centre and the
        logarithm of the sides.

        The inputs are ``cls_logits`` (B, A, K + 1), ``bbox_regression`` (B, A, 4) and
        ``bbox_ctrness`` (B, A, 1) of A cells; the results are (B, A, K) and (B, A, 4), as for
        `detection.dense.decode_anchors`.
        """
        both = torch.cat([outputs["bbox_ctrness"], outputs["cls_logits"]], dim=2)  # (B, A, K + 2)
        log_probability = functional.logsigmoid(both)
        left_top, right_bottom = outputs["bbox_regression"].split(2, dim=2)
        sides = left_top + right_bottom
        offsets = torch.cat([(right_bottom - left_top) / 2, sides.clamp(min=1e-6).log()], dim=2)
        centredness = log_probability[..., :1]
        classes = log_probability[..., 2:]  # without background
        return _logits((centredness + classes) / 2, both), offsets

    def losses(self, passed: HeadPass, targets: Targets) -> dict[str, Tensor]:
        """Compute torchvision's losses for each image, and their means over the images.

        torchvision divides by the boxes of the whole batch instead.
        """
        cells = passed.anchors[0]
        with torch.autocast(cells.device.type, enabled=False):
            matched = [
                match_cells(target["boxes"], cells, passed.level_sizes, self.center_sampling_radius)
                for target in targets
            ]
            return fcos_losses(passed.outputs, cells, torch.stack(matched), targets)


_SSD_LEVELS = 6


class _SmallMapNorm(nn.BatchNorm2d):
    """Batch norm that uses its averages for a batch of one image with maps of one cell."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=0.001, momentum=0.03)  # torchvision's

    def forward(self, x: Tensor) -> Tensor:
        """Normalise maps (B, C, h, w)."""
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
        return {str(level): level_maps for level, level_maps in enumerate(maps)}


class LesionSSDLite(DenseDetector, SSD):  # type: ignore[misc]  # forward is Detector's
    """torchvision's SSDLite for grey images: a light detector with boxes on six maps.

    A default box is what other detectors call an anchor: a box of fixed place and size that the
    detector moves and scales. The six feature maps have falling size.

    The default boxes of the finest map have a fifth of the image's side. torchvision learns nothing
    from an image without boxes. Here the three largest background losses of such an image count,
    which are as many as count for one default box that is matched to a true box.

    Source:
        Liu et al. 2016, SSD: Single Shot MultiBox Detector; Howard et al. 2019, MobileNetV3.
    """

    class_layers = ("head.classification_head",)

    def __init__(self, start: DetectorStart) -> None:
        norm = group_norm if start.norm == "group" else _SmallMapNorm
        maps = _SSDLiteMaps(start, norm)
        n_classes = start.n_findings + 1
        size = (start.preprocess.size, start.preprocess.size)
        head = SSDLiteHead(maps.channels, [6] * _SSD_LEVELS, n_classes, norm)
        anchors = DefaultBoxGenerator([[2, 3]] * _SSD_LEVELS, min_ratio=0.2, max_ratio=0.95)
        super().__init__(maps, anchors, size, n_classes, head=head)

    def box_outputs(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits of each finding against all other classes, and offsets of the boxes."""
        classes, offsets = outputs["cls_logits"], outputs["bbox_regression"]
        logits = _logits(classes.log_softmax(2)[..., 1:], classes)
        (centres, _, sides, _) = self.box_coder.weights
        return logits, torch.cat([offsets[..., :2] / centres, offsets[..., 2:] / sides], dim=2)

    def losses(self, passed: HeadPass, targets: Targets) -> dict[str, Tensor]:
        """Compute torchvision's losses for each image, and their means over the images.

        For an image without boxes, torchvision defines no classification loss. The three largest
        background losses of its default boxes are used instead, as many as torchvision samples for
        each default box that is matched to a true box.
        """
        anchors = passed.anchors[:1]

        def image_losses(
            outputs: dict[str, Tensor], target: dict[str, Tensor]
        ) -> dict[str, Tensor]:
            if len(target["boxes"]):
                matched = self.proposal_matcher(box_iou(target["boxes"], anchors[0]))
                return self.compute_loss([target], outputs, anchors, [matched])
            background_losses = -outputs["cls_logits"][0].log_softmax(1)[:, 0]  # (A,)
            largest = background_losses.topk(int(self.neg_to_pos_ratio)).values.sum()
            # Zero, but with a gradient, for which several processes wait.
            regression = 0.0 * outputs["bbox_regression"].sum()
            return {"bbox_regression": regression, "classification": largest}

        return _mean_losses(image_losses, passed, targets)


class _ProposalPass(NamedTuple):
    """Output of one pass through backbone and proposal network; all but the maps are float32."""

    maps: dict[str, Tensor]  # P2 to P6
    objectness: Tensor  # (B, A) logits
    offsets: Tensor  # (B, A, 4), offsets from the anchors
    anchors: list[Tensor]  # per image (A, 4) xyxy, store px
    proposals: list[Tensor]  # per image (P, 4) xyxy, store px


class LesionFasterRCNN(Detector, FasterRCNN):  # type: ignore[misc]  # forward is Detector's
    """torchvision's Faster R-CNN for grey images, with a feature pyramid, P2 to P6 (4 to 64 px).

    A first network proposes boxes (proposals), which a second one classifies and refines. Losses
    are means over the images of torchvision's loss of one image. Anchors, and the rule that assigns
    a proposal to a pyramid level, are torchvision's at 512 px, scaled to the image size. Each level
    has the single size that `anchor_sizes` names (`configs.model_settings.FasterRCNNSettings`).

    Source:
        Ren et al. 2015, Faster R-CNN; Lin et al. 2017, Feature Pyramid Networks.
    """

    Settings = FasterRCNNSettings
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
        anchors = build_anchors(anchor_sizes, anchor_ratios, size, stride=4, steps=1)
        self.resolved = anchors.arguments
        pool = MultiScaleRoIAlign(
            ["0", "1", "2", "3"], 7, sampling_ratio=2, canonical_scale=round(224 * size / 512)
        )
        super().__init__(
            pyramid,
            rpn_anchor_generator=anchors.generator,
            box_roi_pool=pool,
            box_head=TwoMLPHead(fpn_channels * 7**2, box_channels),
            box_predictor=FastRCNNPredictor(box_channels, start.n_findings + 1),
        )

    def run(self, images: Tensor, targets: Targets | None = None) -> _ProposalPass:
        """Run the backbone and the network that proposes boxes over images.

        The result has feature maps, outputs of the proposal network and proposals. Proposals have
        no gradient, as in torchvision. The targets are not used.
        """
        count = len(images)
        pixels = self.pixels(images)  # (B, 3, S, S)
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
        return _ProposalPass(
            maps, logits.view(count, -1), moves.view(count, -1, 4), anchors, proposals
        )

    def _classified(
        self, passed: _ProposalPass, boxes: list[Tensor]
    ) -> tuple[Sequence[Tensor], ...]:
        """Compute for each image logits (P, K + 1) and offsets (P, 4 (K + 1)) of boxes, float32."""
        size = (self.preprocess.size, self.preprocess.size)
        pooled = self.roi_heads.box_roi_pool(passed.maps, boxes, [size] * len(boxes))
        outputs = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        counts = [len(image) for image in boxes]
        return tuple(output.float().split(counts) for output in outputs)

    def losses(self, passed: _ProposalPass, targets: Targets) -> dict[str, Tensor]:
        """Compute torchvision's losses for each image, and their means over the images.

        Anchors and proposals are sampled at random in training. In evaluation mode the random seed
        is fixed, so that the losses of two epochs can be compared.

        The losses are ``objectness`` and ``proposal_regression`` of the proposal network, and
        ``classification`` and ``bbox_regression`` of the second network.
        """
        device = passed.objectness.device
        devices = [] if device.type == "cpu" else [device]
        same_samples = torch.random.fork_rng(devices, enabled=not self.training)
        with same_samples, torch.autocast(device.type, enabled=False):
            if not self.training:
                torch.manual_seed(0)
            labels, boxes = self.rpn.assign_targets_to_anchors(passed.anchors, targets)
            offset_targets = self.rpn.box_coder.encode(boxes, passed.anchors)
            proposal_losses = [
                self.rpn.compute_loss(objectness, offsets, [image_labels], [image_targets])
                for objectness, offsets, image_labels, image_targets in zip(
                    passed.objectness, passed.offsets, labels, offset_targets, strict=True
                )
            ]
            samples, _, labels, offset_targets = self.roi_heads.select_training_samples(
                passed.proposals, targets
            )
        logits, offsets = self._classified(passed, samples)
        with torch.autocast(device.type, enabled=False):
            box_losses = [
                fastrcnn_loss(image_logits, image_offsets, [image_labels], [image_targets])
                for image_logits, image_offsets, image_labels, image_targets in zip(
                    logits, offsets, labels, offset_targets, strict=True
                )
            ]
        names = ("objectness", "proposal_regression", "classification", "bbox_regression")
        image_losses = [
            proposal + box for proposal, box in zip(proposal_losses, box_losses, strict=True)
        ]
        by_name = zip(names, zip(*image_losses, strict=True), strict=True)
        return {name: torch.stack(parts).mean() for name, parts in by_name}

    @torch.no_grad()
    def detections(self, passed: _ProposalPass) -> Detections:
        """Classify the proposals, refine their boxes, and return the best boxes of each image.

        Boxes are at most 100 of each finding, in px of the square images, by falling score; None
        for an image whose output is not finite.
        """
        logits, offsets = self._classified(passed, passed.proposals)
        finite = passed.objectness.isfinite().all(1) & passed.offsets.isfinite().all((1, 2))
        pairs = zip(logits, offsets, strict=True)
        finite &= torch.stack([torch.cat(pair, dim=1).isfinite().all() for pair in pairs])
        with torch.autocast(finite.device.type, enabled=False):
            decoded = self.roi_heads.box_coder.decode(torch.cat([*offsets]), passed.proposals)
        counts = [len(image) for image in logits]
        boxes = pad_sequence(decoded[:, 1:].split(counts), True)  # (B, P, K, 4)
        scores = pad_sequence([image.softmax(1)[:, 1:] for image in logits], True)  # (B, P, K)
        labels = torch.arange(1, self.n_findings + 1, device=finite.device).expand_as(scores)
        return self.suppress_overlaps(
            boxes.flatten(1, 2), scores.flatten(1), labels.flatten(1), finite
        )
