"""RetinaNet on store pixels: anchors, heads, losses, and its builder."""

from collections.abc import Sequence
from functools import reduce
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import Matcher, encode_boxes
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetHead,
    RetinaNetRegressionHead,
)
from torchvision.ops import sigmoid_focal_loss

from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Preprocess
from detection.backbone import Norm, build_pyramid, group_norm
from detection.dense import DenseDetector, HeadPass, decode_anchors
from detection.detector import Targets
from detection.frames import CANDIDATES_PER_LEVEL, MIN_SCORE, NMS_IOU
from detection.weights import build_start, start_from
from networks.checkpoints import Checkpoint
from networks.published import fetch_coco

_LEVELS = 5  # P3 to P7, or P2 to P6; each doubles the stride
_OCTAVE_STEPS = 3  # sizes on each level, a third of an octave apart
DEFAULT_RATIOS = (0.5, 1.0, 2.0)


def default_anchor_sizes(image_size: int, finest_stride: int = 8) -> tuple[int, ...]:
    """Smallest anchor of each level, px: torchvision's at 512 px, the same share of other images.

    At least two strides: a lesion between two smaller anchors overlaps neither by half.
    """
    finest = max(2 * finest_stride, round(image_size / 16))
    return tuple(finest * 2**level for level in range(_LEVELS))


def build_anchors(
    sizes: Sequence[float], ratios: Sequence[float], *, steps: int = _OCTAVE_STEPS
) -> AnchorGenerator:
    """The anchors of five levels: each level's smallest, steps of its octave, at every ratio."""
    if len(sizes) != _LEVELS or not all(1 <= size < float("inf") for size in sizes):
        raise InputError(
            f"anchor_sizes: expected {_LEVELS} sides of at least 1 px, but got {list(sizes)}"
        )
    if not ratios or not all(0 < ratio < float("inf") for ratio in ratios):
        raise InputError(f"anchor_ratios: expected ratios above 0, but got {list(ratios)}")
    octaves = tuple(_octave_sizes(size)[:steps] for size in sizes)
    return AnchorGenerator(octaves, (tuple(ratios),) * _LEVELS)


def _octave_sizes(smallest: float) -> tuple[int, ...]:
    """The three sizes of one level, in whole px as torchvision's COCO weights were trained."""
    return tuple(int(smallest * 2 ** (step / _OCTAVE_STEPS)) for step in range(_OCTAVE_STEPS))


_HeadVersion = Literal["v1", "v2"]
_BoxLoss = Literal["auto", "l1", "smooth_l1", "giou", "diou", "ciou"]
_AUTO_BOX_LOSS: dict[_HeadVersion, _BoxLoss] = {"v1": "l1", "v2": "giou"}  # as in torchvision
_EPSILON = 1e-7  # torchvision's, against division by 0
_SMOOTH_L1_BETA = 1 / 9  # Detectron's, for offsets that are not divided by a deviation
_MAX_CONVS = 4  # torchvision's heads have four; a shallower one keeps the first


class _BoxHead(RetinaNetRegressionHead):
    """torchvision's box head, with less depth and a choice of loss.

    Smooth L1: Girshick 2015; GIoU: Rezatofighi et al. 2019; DIoU and CIoU: Zheng et al. 2020.
    """

    def __init__(
        self,
        channels: int,
        anchors: int,
        *,
        version: _HeadVersion,
        convs: int,
        loss: _BoxLoss = "auto",
    ) -> None:
        super().__init__(channels, anchors, norm_layer=group_norm if version == "v2" else None)
        self.conv = self.conv[:convs]
        self.loss = _AUTO_BOX_LOSS[version] if loss == "auto" else loss

    def image_loss(self, offsets: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Sum over the M matched anchors of an image; all (M, 4)."""
        if self.loss in ("l1", "smooth_l1"):
            wanted = encode_boxes(boxes, anchors, anchors.new_ones(4))
            if self.loss == "l1":
                return functional.l1_loss(offsets, wanted, reduction="sum")
            return functional.smooth_l1_loss(offsets, wanted, reduction="sum", beta=_SMOOTH_L1_BETA)
        limit = self.box_coder.bbox_xform_clip
        if self.loss == "ciou":
            # It divides by the height, which must not be 0; the decoding stops the other end.
            shape = offsets[:, 2:].clamp(min=-limit)
            offsets = torch.cat([offsets[:, :2], shape], dim=1)
        return _iou_loss(self.loss, decode_anchors(offsets, anchors, limit), boxes).sum()


def _iou_loss(kind: str, boxes: Tensor, true: Tensor) -> Tensor:
    """``giou``, ``diou`` or ``ciou`` of pairs of boxes (M, 4); torchvision's index by a mask."""
    (x1, y1, x2, y2), (x1g, y1g, x2g, y2g) = boxes.unbind(-1), true.unbind(-1)
    left, top, right, bottom = x1.max(x1g), y1.max(y1g), x2.min(x2g), y2.min(y2g)
    apart = (bottom <= top) | (right <= left)
    overlap = ((right - left) * (bottom - top)).masked_fill(apart, 0.0)
    union = (x2 - x1) * (y2 - y1) + (x2g - x1g) * (y2g - y1g) - overlap
    iou = overlap / (union + _EPSILON)
    # Anew, so that gradients are summed in torchvision's order.
    (x1, y1, x2, y2), (x1g, y1g, x2g, y2g) = boxes.unbind(-1), true.unbind(-1)
    # The smallest box around both.
    wide, high = x2.max(x2g) - x1.min(x1g), y2.max(y2g) - y1.min(y1g)
    if kind == "giou":
        area = wide * high
        return 1 - (iou - (area - union) / (area + _EPSILON))
    between = ((x2 + x1) / 2 - (x1g + x2g) / 2) ** 2 + ((y2 + y1) / 2 - (y1g + y2g) / 2) ** 2
    loss = 1 - iou + between / (wide**2 + high**2 + _EPSILON)
    if kind == "diou":
        return loss
    x1, y1, x2, y2 = boxes.unbind(-1)
    angle = torch.atan((x2g - x1g) / (y2g - y1g)) - torch.atan((x2 - x1) / (y2 - y1))
    aspect = (4 / torch.pi**2) * angle.pow(2)
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + _EPSILON)
    return loss + alpha * aspect


class _AnchorMatcher(Matcher):
    """torchvision's, without a list of the anchors that a box keeps, whose length would be read."""

    def set_low_quality_matches_(
        self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor
    ) -> None:
        """Give each box the anchors that overlap it most, and an anchor its best box."""
        best = match_quality_matrix.amax(dim=1, keepdim=True)
        kept = (match_quality_matrix == best).any(dim=0)
        matches.copy_(torch.where(kept, all_matches, matches))


class _Head(RetinaNetHead):
    """Both heads; for their losses the host waits once, for the numbers of anchors that count."""

    regression_head: _BoxHead

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """Means over the images of their losses per matched anchor, as in torchvision.

        `matched_idxs` (A,) is -1 where an anchor has no box and -2 where it does not count.
        """
        matched = torch.stack(matched_idxs)  # (B, A)
        masks = torch.stack([matched >= 0, matched != Matcher.BETWEEN_THRESHOLDS], dim=1)
        counts = masks.sum(2).tolist()  # the wait
        classes, offsets = (
            head_outputs[name].unbind() for name in ("cls_logits", "bbox_regression")
        )
        losses: dict[str, list[Tensor]] = {"classification": [], "bbox_regression": []}
        for image, (target, of_image) in enumerate(zip(targets, counts, strict=True)):
            lesion, used = (
                mask.nonzero_static(size=count)[:, 0]
                for mask, count in zip(masks[image], of_image, strict=True)
            )
            box, n_matched = matched[image][lesion], max(1, len(lesion))  # (M,)
            wanted = torch.zeros_like(classes[image])  # (A, K + 1)
            wanted[lesion, target["labels"][box]] = wanted.new_ones(())
            focal = sigmoid_focal_loss(classes[image][used], wanted[used], reduction="sum")
            losses["classification"].append(focal / n_matched)
            own = offsets[image][lesion], anchors[image][lesion], target["boxes"][box]
            losses["bbox_regression"].append(self.regression_head.image_loss(*own) / n_matched)
        # One by one as torchvision: equal bits.
        return {name: reduce(torch.add, parts) / len(targets) for name, parts in losses.items()}


def _build_head(
    channels: int,
    anchors: int,
    n_findings: int,
    *,
    version: _HeadVersion = "v1",
    convs: int = 4,
    box_loss: _BoxLoss = "auto",
) -> RetinaNetHead:
    """Both heads of a RetinaNet: the pyramid to ``cls_logits`` and ``bbox_regression``."""
    if version not in ("v1", "v2"):
        raise InputError(f"head: expected v1 or v2, but got {version!r}")
    if not 1 <= convs <= _MAX_CONVS:
        raise InputError(f"head_convs: expected 1 to {_MAX_CONVS}, but got {convs}")
    if box_loss not in get_args(_BoxLoss):
        raise InputError(
            f"box_loss: expected one of {', '.join(get_args(_BoxLoss))}, but got {box_loss!r}"
        )
    classes = n_findings + 1
    head = _Head(channels, anchors, classes)
    norm = group_norm if version == "v2" else None
    head.classification_head = RetinaNetClassificationHead(
        channels, anchors, classes, norm_layer=norm
    )
    head.classification_head.conv = head.classification_head.conv[:convs]
    head.regression_head = _BoxHead(channels, anchors, version=version, convs=convs, loss=box_loss)
    return head


class LesionRetinaNet(DenseDetector, RetinaNet):  # type: ignore[misc]  # forward is Detector's
    """torchvision's RetinaNet for store pixels; build it with `build_retinanet`.

    Source:
        Lin et al. 2017, Focal Loss for Dense Object Detection.
    """

    class_layers = ("cls_logits",)

    def __init__(
        self,
        backbone: BackboneWithFPN,
        head: RetinaNetHead,
        anchor_generator: AnchorGenerator,
        preprocess: Preprocess,
        n_findings: int,
    ) -> None:
        super().__init__(
            backbone,
            n_findings + 1,
            anchor_generator=anchor_generator,
            head=head,
            proposal_matcher=_AnchorMatcher(0.5, 0.4, allow_low_quality_matches=True),
            # The parent compares with `>`; here a score of exactly 0.001 counts.
            score_thresh=float(np.nextafter(np.float32(MIN_SCORE), np.float32(0))),
            nms_thresh=NMS_IOU,
            detections_per_img=_LEVELS * CANDIDATES_PER_LEVEL * n_findings,
            topk_candidates=CANDIDATES_PER_LEVEL * n_findings,
        )
        self.prepare(preprocess, n_findings)

    def coded(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The head's own, without background."""
        return outputs["cls_logits"][..., 1:], outputs["bbox_regression"]

    def losses(self, passed: HeadPass, targets: Targets) -> dict[str, Tensor]:
        """``classification`` and ``bbox_regression`` as in torchvision, means over the images."""
        with torch.autocast(passed.anchors[0].device.type, enabled=False):
            return self.compute_loss(targets, passed.outputs, passed.anchors)


def build_retinanet(
    *,
    backbone: str = "resnet50",
    head: _HeadVersion = "v1",
    norm: Norm = "group",
    fpn_channels: int = 256,
    head_convs: int = 4,
    n_findings: int = 1,
    image_size: int = 512,
    anchor_sizes: Sequence[float] | None = None,
    anchor_ratios: Sequence[float] = DEFAULT_RATIOS,
    weights: Literal["imagenet", "coco"] | None = None,
    mean: float | None = None,
    std: float | None = None,
    box_loss: _BoxLoss = "auto",
) -> LesionRetinaNet:
    """Build a RetinaNet with a feature pyramid, P3 to P7.

    Head ``v1`` is torchvision's ``retinanet_resnet50_fpn``: plain convolutions, L1 box loss, P6
    from P5. ``v2`` is its ``retinanet_resnet50_fpn_v2``: group norm in the heads, generalised
    IoU loss, P6 from C5.

    Args:
        backbone: A detector's backbone in `networks.registry`, such as ``resnet50``.
        head: ``v1`` or ``v2``.
        norm: Backbone's normalisation: ``frozen`` batch norm for pretrained weights, ``group``
            (or live ``batch``) for random ones.
        fpn_channels: Channels of every pyramid level; a multiple of 8 for ``v2``.
        head_convs: Hidden convolutions in each head, 1 to 4.
        n_findings: Findings to tell apart; label k is the k-th, 0 is background.
        image_size: Side of the pixel store's images, px.
        anchor_sizes: Side of the smallest anchor on each of P3 to P7, store px; each level has
            it three times, at 2^0, 2^(1/3) and 2^(2/3). None scales torchvision's (32 to 512 px)
            to the image; see `detection.retinanet.default_anchor_sizes`.
        anchor_ratios: Height over width.
        weights: None, ``imagenet`` (backbone) or ``coco`` (everything but the class layer);
            downloaded on first use, or from an installed package. Weights from a file or a run
            are loaded into the built model, see `detection.weights`.
        mean: Mean of the pixels, in [0, 1]; None for what the backbone's published weights want,
            mostly ImageNet's averaged over colours.
        std: Standard deviation of the pixels, likewise.
        box_loss: ``l1``, ``smooth_l1``, ``giou``, ``diou`` or ``ciou``; ``auto`` is the head
            version's own.

    Returns:
        The model in training mode. It reads uint8 (B, 1, S, S).

    Raises:
        InputError: An argument is outside its range, or the weights cannot be had.

    Source:
        Lin et al. 2017, Focal Loss for Dense Object Detection.

    Example:
        >>> model = build_retinanet(
        ...     backbone="resnet18", norm="group", fpn_channels=16, head_convs=1, image_size=64
        ... ).eval()
        >>> with torch.inference_mode():
        ...     found = model(torch.zeros(1, 1, 64, 64, dtype=torch.uint8))
        >>> sorted(found[0])
        ['boxes', 'finite', 'labels', 'scores']
    """
    if weights not in (None, "imagenet", "coco"):
        raise InputError(f"weights: expected none, imagenet or coco, but got {weights!r}")
    own = (backbone, fpn_channels, head_convs, len(anchor_ratios))
    if weights == "coco" and own != ("resnet50", 256, 4, 3):
        raise InputError(
            "weights coco: need backbone resnet50, fpn_channels 256, head_convs 4 and three "
            "anchor_ratios"
        )
    of_body = None if weights == "coco" else weights
    body, preprocess = build_start(backbone, norm, of_body, image_size, mean, std)
    pyramid = build_pyramid(backbone, body, fpn_channels, p6_from_c5=head == "v2")
    sizes = default_anchor_sizes(image_size) if anchor_sizes is None else tuple(anchor_sizes)
    anchors = build_anchors(sizes, anchor_ratios)
    model = LesionRetinaNet(
        pyramid,
        _build_head(
            fpn_channels,
            anchors.num_anchors_per_location()[0],
            n_findings,
            version=head,
            convs=head_convs,
            box_loss=box_loss,
        ),
        anchors,
        preprocess,
        n_findings,
    )
    model.coco_without_epsilon = head == "v1"
    if weights == "coco":
        model.architecture = {"name": "retinanet", "arguments": {"backbone": backbone}}
        start_from(model, Checkpoint("weights coco", fetch_coco(head)))
    model.resolved = {"anchor_sizes": list(sizes)}
    return model
