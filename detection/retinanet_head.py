"""RetinaNet's anchors, heads and their losses, on torchvision's."""

from collections.abc import Sequence
from functools import reduce
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection._utils import Matcher, encode_boxes
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetHead,
    RetinaNetRegressionHead,
)
from torchvision.ops import sigmoid_focal_loss

from data_prep.contracts.errors import InputError
from detection.backbone import group_norm
from detection.dense import decode_anchors

LEVELS = 5  # P3 to P7, or P2 to P6; each doubles the stride
_OCTAVE_STEPS = 3  # sizes on each level, a third of an octave apart
DEFAULT_RATIOS = (0.5, 1.0, 2.0)


def default_anchor_sizes(image_size: int, finest_stride: int = 8) -> tuple[int, ...]:
    """Smallest anchor of each level, px: torchvision's at 512 px, the same share of other images.

    At least two strides: a lesion between two smaller anchors overlaps neither by half.
    """
    finest = max(2 * finest_stride, round(image_size / 16))
    return tuple(finest * 2**level for level in range(LEVELS))


def build_anchors(
    sizes: Sequence[float], ratios: Sequence[float], *, steps: int = _OCTAVE_STEPS
) -> AnchorGenerator:
    """The anchors of five levels: each level's smallest, steps of its octave, at every ratio."""
    if len(sizes) != LEVELS or not all(1 <= size < float("inf") for size in sizes):
        raise InputError(
            f"anchor_sizes: expected {LEVELS} sides of at least 1 px, but got {list(sizes)}"
        )
    if not ratios or not all(0 < ratio < float("inf") for ratio in ratios):
        raise InputError(f"anchor_ratios: expected ratios above 0, but got {list(ratios)}")
    octaves = tuple(_octave_sizes(size)[:steps] for size in sizes)
    return AnchorGenerator(octaves, (tuple(ratios),) * LEVELS)


def _octave_sizes(smallest: float) -> tuple[int, ...]:
    """The three sizes of one level, in whole px as torchvision's COCO weights were trained."""
    return tuple(int(smallest * 2 ** (step / _OCTAVE_STEPS)) for step in range(_OCTAVE_STEPS))


HeadVersion = Literal["v1", "v2"]
BoxLoss = Literal["auto", "l1", "smooth_l1", "giou", "diou", "ciou"]
_AUTO_BOX_LOSS: dict[HeadVersion, BoxLoss] = {"v1": "l1", "v2": "giou"}  # as in torchvision
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
        version: HeadVersion,
        convs: int,
        loss: BoxLoss = "auto",
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
        return iou_loss(self.loss, decode_anchors(offsets, anchors, limit), boxes).sum()


def iou_loss(kind: str, boxes: Tensor, true: Tensor) -> Tensor:
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


class AnchorMatcher(Matcher):
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


def build_head(
    channels: int,
    anchors: int,
    n_findings: int,
    *,
    version: HeadVersion = "v1",
    convs: int = 4,
    box_loss: BoxLoss = "auto",
) -> RetinaNetHead:
    """Both heads of a RetinaNet: the pyramid to ``cls_logits`` and ``bbox_regression``."""
    if version not in ("v1", "v2"):
        raise InputError(f"head: expected v1 or v2, but got {version!r}")
    if not 1 <= convs <= _MAX_CONVS:
        raise InputError(f"head_convs: expected 1 to {_MAX_CONVS}, but got {convs}")
    if box_loss not in get_args(BoxLoss):
        raise InputError(
            f"box_loss: expected one of {', '.join(get_args(BoxLoss))}, but got {box_loss!r}"
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
