"""RetinaNet on a pyramid of maps, torchvision's, for grey squares of one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import (
    box_iou,
    clip_boxes_to_image,
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    nms,
    sigmoid_focal_loss,
)
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.preprocess import Preprocess
from cxr_compare.detection.inference import MAX_PER_FINDING
from cxr_compare.networks.trunks import LITE, PaddedConv, build_trunk

MIN_SCORE = 0.001
"""Boxes with a lower score are left out."""
_RESNET = ("layer2", "layer3", "layer4")
_MAPS = {
    "resnet18": _RESNET,
    "resnet50": _RESNET,
    "densenet121": ("transition2.relu", "transition3.relu", "relu5"),
    LITE: ("stage2", "stage4", "act2"),
}
"""Layers whose maps have 8, 16 and 32 px a cell."""
_IOU_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}
Targets = list[dict[str, Tensor]]
Boxes = dict[str, Tensor]


def _group_norm(channels: int) -> nn.GroupNorm:
    most = min(32, channels // 8)  # at least 8 channels in each group (Wu and He 2018)
    return nn.GroupNorm(max(n for n in range(1, most + 1) if channels % n == 0), channels)


class _FrozenNorm(FrozenBatchNorm2d):
    """Frozen batch norm that leaves bf16 maps in bf16; torchvision's makes float32 of them."""

    running_mean: Tensor
    running_var: Tensor
    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Normalise maps ``(B, C, h, w)``."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def _with_norm(body: nn.Module, kind: str) -> nn.Module:
    """Replace each live batch norm by a frozen one with its statistics, or by group norm."""
    for name, layer in list(body.named_modules()):
        if not isinstance(layer, nn.BatchNorm2d) or kind == "batch":
            continue
        new: nn.Module = _group_norm(layer.num_features)
        if kind == "frozen":
            new = _FrozenNorm(layer.num_features, eps=layer.eps)
        body.set_submodule(name, new)
    return body


def _pyramid(backbone: str, norm: str, head: str, channels: int) -> BackboneWithFPN:
    """Build a trunk and the five levels of its feature pyramid, of 8 to 128 px a cell."""
    body = _with_norm(build_trunk(backbone), norm)
    nodes = {node: str(level) for level, node in enumerate(_MAPS[backbone])}
    layers = {"leaf_modules": [PaddedConv]}  # their stride tells the stages apart
    maps = create_feature_extractor(body, nodes, tracer_kwargs=layers)
    with torch.no_grad():
        widths = [m.shape[1] for m in maps.eval()(torch.zeros(1, 3, 64, 64)).values()]
    maps.train()
    top = LastLevelP6P7(widths[-1] if head == "v2" else channels, channels)
    top.use_P5 = head != "v2"
    pyramid = BackboneWithFPN(body, {}, widths, channels, extra_blocks=top)
    pyramid.body = maps
    return pyramid


class LesionRetinaNet(RetinaNet):
    """Boxes of findings, of uint8 squares ``(B, 1, S, S)``; labels are 1 to K.

    The arguments are stored in ``model.json``, and build the network again.

    Attributes:
        preprocess: Size and normalisation of its input.
        arguments: What it was built with.
        views: Names of the views that a prediction joins with the plain image.
    """

    kind: Literal["boxes"] = "boxes"

    def __init__(  # noqa: PLR0913 - keys of a configuration
        self,
        preprocess: Preprocess,
        n_findings: int,
        *,
        backbone: str = "resnet50",
        norm: str = "frozen",
        head: str = "v2",
        fpn_channels: int = 256,
        head_convs: int = 4,
        anchor_sizes: Sequence[float] | None = None,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        box_loss: str = "auto",
        nms_iou: float,
        views: Sequence[str] = (),
    ) -> None:
        if backbone not in _MAPS:
            raise InputError(f"backbone {backbone}: a RetinaNet takes {', '.join(_MAPS)}")
        pyramid = _pyramid(backbone, norm, head, fpn_channels)
        finest = min(32, max(16, round(preprocess.size / 16)))  # torchvision's 32 from 512 px on
        sides = anchor_sizes or [finest * 2**level for level in range(5)]
        octaves = tuple(tuple(int(side * 2 ** (n / 3)) for n in range(3)) for side in sides)
        anchors = AnchorGenerator(octaves, (tuple(anchor_ratios),) * 5)
        n_anchors = anchors.num_anchors_per_location()[0]
        heads = RetinaNetHead(
            fpn_channels, n_anchors, n_findings + 1, _group_norm if head == "v2" else None
        )
        for part in (heads.classification_head, heads.regression_head):
            part.conv = part.conv[:head_convs]
        usual = "giou" if head == "v2" else "l1"
        heads.regression_head._loss_type = usual if box_loss == "auto" else box_loss
        super().__init__(
            pyramid,
            n_findings + 1,
            anchor_generator=anchors,
            head=heads,
            score_thresh=MIN_SCORE,
            nms_thresh=nms_iou,
            detections_per_img=MAX_PER_FINDING,
        )
        self.preprocess = preprocess
        self.n_findings = n_findings
        self.views = tuple(views)
        self.arguments: dict[str, Any] = {
            "n_findings": n_findings,
            "backbone": backbone,
            "norm": norm,
            "head": head,
            "fpn_channels": fpn_channels,
            "head_convs": head_convs,
            "anchor_sizes": list(sides),
            "anchor_ratios": list(anchor_ratios),
            "box_loss": box_loss,
            "nms_iou": nms_iou,
            "views": list(views),
        }

    @property
    def trunk(self) -> nn.Module:
        """Layers of the network that reads the pixels."""
        return self.backbone.body

    def forward(  # type: ignore[override]
        self, images: Tensor, targets: Targets | None = None
    ) -> tuple[dict[str, Tensor], list[Boxes]]:
        """Return the losses, empty without targets, and the boxes of each image, empty in training.

        The boxes are ``boxes`` (N, 4) xyxy in px of the square, ``scores`` and ``labels``.
        """
        pixels = self.preprocess.normalise(images).expand(-1, 3, -1, -1)
        maps = list(self.backbone(pixels).values())
        outputs = {name: values.float() for name, values in self.head(maps).items()}
        sides = [(pixels.shape[2], pixels.shape[3])] * len(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            anchors = self.anchor_generator(ImageList(pixels, sides), [m.float() for m in maps])
            losses = {} if targets is None else self.compute_loss(targets, outputs, anchors)
            if self.training:
                return losses, []
            n_anchors = self.anchor_generator.num_anchors_per_location()
            counts = [m.shape[2] * m.shape[3] * n for m, n in zip(maps, n_anchors, strict=True)]
            return losses, self._boxes(outputs, anchors, counts, sides)

    def compute_loss(
        self, targets: Targets, head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """Return torchvision's losses, of all images at once, so that the GPU rarely waits."""
        logits, offsets = head_outputs["cls_logits"], head_outputs["bbox_regression"]
        boxes = torch.cat([target["boxes"] for target in targets])  # (N, 4)
        labels = torch.cat([target["labels"] for target in targets])  # (N,)
        matches = self._match(boxes, [len(target["boxes"]) for target in targets], anchors[0])
        # By image, so that one with many lesions weighs no more; one without any still has the loss
        # of its classes.
        n_matched = (matches >= 0).sum(dim=1).clamp(min=1)  # (B,)
        image, anchor = torch.where(matches >= 0)
        row = matches[image, anchor]
        true = torch.zeros_like(logits)  # (B, A, 1 + K)
        true[image, anchor, labels[row]] = 1.0
        focal = sigmoid_focal_loss(logits, true).sum(dim=2)  # (B, A)
        # An anchor that a lesion covers in part is no background, and no lesion either.
        focal = focal * (matches != self.proposal_matcher.BETWEEN_THRESHOLDS)
        of_boxes = self._box_losses(offsets[image, anchor], anchors[0][anchor], boxes[row])
        return {
            "classification": (focal.sum(dim=1) / n_matched).mean(),
            "bbox_regression": (of_boxes / n_matched[image]).sum() / len(targets),
        }

    def _match(self, boxes: Tensor, counts: list[int], anchors: Tensor) -> Tensor:
        """Return for each anchor of each image ``(B, A)`` the row of its box, or less than 0.

        As torchvision's `Matcher`, which waits for the GPU at each image.
        """
        matcher = self.proposal_matcher
        overlaps = box_iou(boxes, anchors)  # (N, A)
        is_closest = overlaps == overlaps.amax(dim=1, keepdim=True)
        matches = []
        first = 0
        for overlap, closest in zip(overlaps.split(counts), is_closest.split(counts), strict=True):
            if not len(overlap):
                matches.append(anchors.new_full((len(anchors),), -1, dtype=torch.int64))
                continue
            highest, row = overlap.max(dim=0)  # (A,)
            other = torch.where(
                highest < matcher.low_threshold,
                matcher.BELOW_LOW_THRESHOLD,
                matcher.BETWEEN_THRESHOLDS,
            )
            # The closest anchor always: small or long lesions reach the threshold with none.
            is_matched = (highest >= matcher.high_threshold) | closest.any(dim=0)
            matches.append(torch.where(is_matched, row + first, other))
            first += len(overlap)
        return torch.stack(matches)

    def _box_losses(self, offsets: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Return the losses ``(M,)`` of matched anchors."""
        kind = self.head.regression_head._loss_type
        if kind == "l1":
            true = self.box_coder.encode_single(boxes, anchors)
            return functional.l1_loss(offsets, true, reduction="none").sum(dim=1)
        return _IOU_LOSSES[kind](self.box_coder.decode_single(offsets, anchors), boxes)

    def _boxes(
        self,
        outputs: dict[str, Tensor],
        anchors: list[Tensor],
        counts: list[int],
        sides: list[tuple[int, int]],
    ) -> list[Boxes]:
        by_level = [list(of_image.split(counts)) for of_image in anchors]
        offsets = list(outputs["bbox_regression"].split(counts, dim=1))
        # torchvision drops boxes whose score is NaN, and the image would pass as negative: an image
        # whose output is not finite gets boxes for certain, and their scores are NaN.
        are_finite = [values.isfinite().all(dim=2).all(dim=1) for values in outputs.values()]
        finite = (are_finite[0] & are_finite[1])[:, None, None]
        certain = torch.full_like(outputs["cls_logits"], torch.inf)
        all_logits = torch.where(finite, outputs["cls_logits"], certain)
        boxes_of_classes: list[list[Boxes]] = []
        for label in range(1, self.n_findings + 1):  # the class 0 is background, and never learned
            logits = all_logits[..., label : label + 1]
            heads = {"cls_logits": list(logits.split(counts, 1)), "bbox_regression": offsets}
            boxes_of_classes.append(self.postprocess_detections(heads, by_level, sides))
            for boxes, is_finite in zip(boxes_of_classes[-1], finite[:, 0, 0], strict=True):
                boxes["labels"] = boxes["labels"] + label
                failed = torch.full_like(boxes["scores"], torch.nan)
                boxes["scores"] = torch.where(is_finite, boxes["scores"], failed)
        keys = ("boxes", "scores", "labels")
        return [
            {key: torch.cat([boxes[key] for boxes in of_image]) for key in keys}
            for of_image in zip(*boxes_of_classes, strict=True)
        ]

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[tuple[int, int]],
    ) -> list[Boxes]:
        """Return the boxes of one class on each image: torchvision's, by a shorter suppression."""
        boxes_of_images = []
        for image, shape in enumerate(image_shapes):
            taken_scores, taken_offsets, taken_anchors = [], [], []
            for level, logits in enumerate(head_outputs["cls_logits"]):  # (B, N, 1)
                scores = logits[image].sigmoid().flatten()
                rows = torch.where(scores > self.score_thresh)[0]
                highest, order = scores[rows].topk(_at_most(self.topk_candidates, rows))
                rows = rows[order]
                taken_scores.append(highest)
                taken_offsets.append(head_outputs["bbox_regression"][level][image][rows])
                taken_anchors.append(anchors[image][level][rows])
            scores, offsets = torch.cat(taken_scores), torch.cat(taken_offsets)
            boxes_of_images.append(
                self._highest_boxes(scores, offsets, torch.cat(taken_anchors), shape)
            )
        return boxes_of_images

    def _highest_boxes(
        self, scores: Tensor, offsets: Tensor, anchors: Tensor, shape: tuple[int, int]
    ) -> Boxes:
        """Suppress the highest candidates, and more of them only if too few boxes stay.

        Whether a box stays depends on those of higher scores alone.
        """
        if torch.onnx.is_in_onnx_export():
            # It is traced from one image, which would fix how many are tried. Nor has ONNX a stable
            # sort.
            return self._suppress(scores, offsets, anchors, shape)
        scores, order = scores.sort(descending=True, stable=True)  # (N,)
        offsets, anchors = offsets[order], anchors[order]  # (N, 4)
        most = self.detections_per_img
        tried = 4 * most
        while True:
            boxes = self._suppress(scores[:tried], offsets[:tried], anchors[:tried], shape)
            if len(boxes["scores"]) == most or tried >= len(scores):
                return boxes
            tried *= 4

    def _suppress(
        self, scores: Tensor, offsets: Tensor, anchors: Tensor, shape: tuple[int, int]
    ) -> Boxes:
        """Return the boxes that non-maximum suppression leaves, at most `detections_per_img`."""
        boxes = clip_boxes_to_image(self.box_coder.decode_single(offsets, anchors), shape)
        # Neither batched_nms nor zeros_like: in an export that has no candidate, OpenVINO gives
        # either one row, with the box that memory still holds of the image before.
        remaining = nms(boxes, scores, self.nms_thresh)[: self.detections_per_img]
        return {"boxes": boxes[remaining], "scores": scores[remaining], "labels": remaining * 0}


def _at_most(limit: int, rows: Tensor) -> Any:
    """Return the number of rows, or a limit; in an export this depends on the image, too."""
    n_rows: Any = rows.shape[0]
    is_traced = isinstance(n_rows, Tensor)
    return torch.minimum(n_rows, torch.tensor(limit)) if is_traced else min(n_rows, limit)
