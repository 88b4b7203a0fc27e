"""RetinaNet on store pixels: anchors, heads and losses."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import Matcher, encode_boxes
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import sigmoid_focal_loss

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.detection.backbone import DetectorStart, group_norm
from cxr_compare.detection.dense import DenseDetector, HeadPass, decode_anchors
from cxr_compare.detection.detector import Targets
from cxr_compare.detection.frames import LARGEST_GROWTH
from cxr_compare.networks.published import fetch_coco

_LEVELS = 5  # P3 to P7, or P2 to P6; each doubles the stride
DEFAULT_RATIOS = (0.5, 1.0, 2.0)


def build_anchors(
    sizes: Sequence[float] | None, ratios: Sequence[float], image_size: int, stride: int, steps: int
) -> tuple[AnchorGenerator, dict[str, Any]]:
    """The anchors of five levels: each level's smallest, steps of its octave, at every ratio.

    Sizes that are left out, px, are torchvision's at 512 px, and the same share of other images,
    but at least two strides of the finest level: a lesion between two smaller anchors overlaps
    neither by half. Sizes and ratios come back, too, as `Detector.resolved` has them.
    """
    if sizes is None:
        finest = max(2 * stride, round(image_size / 16))
        sizes = [finest * 2**level for level in range(_LEVELS)]
    if len(sizes) != _LEVELS or not all(1 <= size < float("inf") for size in sizes):
        raise InputError(
            f"anchor_sizes: expected {_LEVELS} sides of at least 1 px, but got {list(sizes)}"
        )
    if not ratios or not all(0 < ratio < float("inf") for ratio in ratios):
        raise InputError(f"anchor_ratios: expected ratios above 0, but got {list(ratios)}")
    # In whole px, as torchvision's COCO weights were trained.
    octaves = tuple(tuple(int(size * 2 ** (n / steps)) for n in range(steps)) for size in sizes)
    resolved = {"anchor_sizes": list(sizes), "anchor_ratios": list(ratios)}
    return AnchorGenerator(octaves, (tuple(ratios),) * _LEVELS), resolved


_AUTO_BOX_LOSS = {"v1": "l1", "v2": "giou"}  # by the version of the head, as in torchvision
_BOX_LOSSES = ("auto", "l1", "smooth_l1", "giou", "diou", "ciou")
_EPSILON = 1e-7  # torchvision's, against division by 0
_SMOOTH_L1_BETA = 1 / 9  # Detectron's, for offsets that are not divided by a deviation
_MAX_CONVS = 4  # torchvision's heads have four; a shallower one keeps the first


def _box_loss(kind: str, offsets: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
    """Sum over the M matched anchors of an image; all (M, 4).

    Smooth L1: Girshick 2015; GIoU: Rezatofighi et al. 2019; DIoU and CIoU: Zheng et al. 2020.
    """
    if kind in ("l1", "smooth_l1"):
        wanted = encode_boxes(boxes, anchors, anchors.new_ones(4))
        if kind == "l1":
            return functional.l1_loss(offsets, wanted, reduction="sum")
        return functional.smooth_l1_loss(offsets, wanted, reduction="sum", beta=_SMOOTH_L1_BETA)
    if kind == "ciou":
        # It divides by the height, which must not be 0; the decoding stops the other end.
        shape = offsets[:, 2:].clamp(min=-LARGEST_GROWTH)
        offsets = torch.cat([offsets[:, :2], shape], dim=1)
    return _iou_loss(kind, decode_anchors(offsets, anchors), boxes).sum()


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

    def __init__(
        self, channels: int, anchors: int, n_classes: int, version: str, convs: int, loss: str
    ) -> None:
        if version not in _AUTO_BOX_LOSS:
            raise InputError(f"head: expected v1 or v2, but got {version!r}")
        if not 1 <= convs <= _MAX_CONVS:
            raise InputError(f"head_convs: expected 1 to {_MAX_CONVS}, but got {convs}")
        if loss not in _BOX_LOSSES:
            raise InputError(
                f"box_loss: expected one of {', '.join(_BOX_LOSSES)}, but got {loss!r}"
            )
        RetinaNetHead(channels, anchors, n_classes)  # its random values are part of a seed's
        super().__init__(channels, anchors, n_classes, group_norm if version == "v2" else None)
        for head in (self.classification_head, self.regression_head):
            head.conv = head.conv[:convs]
        self.box_loss = _AUTO_BOX_LOSS[version] if loss == "auto" else loss

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
        classes = head_outputs["cls_logits"].unbind()
        offsets = head_outputs["bbox_regression"].unbind()
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
            losses["bbox_regression"].append(_box_loss(self.box_loss, *own) / n_matched)
        # One by one as torchvision: equal bits.
        return {name: reduce(torch.add, parts) / len(targets) for name, parts in losses.items()}


class LesionRetinaNet(DenseDetector, RetinaNet):  # type: ignore[misc]  # forward is Detector's
    """torchvision's RetinaNet for store pixels, with a feature pyramid, P3 to P7.

    Head ``v1`` is torchvision's ``retinanet_resnet50_fpn``: plain convolutions, L1 box loss, P6
    from P5. ``v2`` is its ``retinanet_resnet50_fpn_v2``: group norm in the heads, generalised
    IoU loss, P6 from C5. `configs.settings.RetinaNetSettings` says what the keys are; each of the
    `anchor_sizes` is there three times, at 2^0, 2^(1/3) and 2^(2/3).

    Source:
        Lin et al. 2017, Focal Loss for Dense Object Detection.
    """

    class_layers = ("cls_logits",)

    def __init__(
        self,
        start: DetectorStart,
        *,
        head: str = "v1",
        fpn_channels: int = 256,
        head_convs: int = 4,
        anchor_sizes: Sequence[float] | None = None,
        anchor_ratios: Sequence[float] = DEFAULT_RATIOS,
        box_loss: str = "auto",
    ) -> None:
        pyramid = start.pyramid(fpn_channels, p6_from_c5=head == "v2")
        anchors, self.resolved = build_anchors(
            anchor_sizes, anchor_ratios, start.preprocess.size, stride=8, steps=3
        )
        n_anchors, n_classes = anchors.num_anchors_per_location()[0], start.n_findings + 1
        heads = _Head(fpn_channels, n_anchors, n_classes, head, head_convs, box_loss)
        matcher = _AnchorMatcher(0.5, 0.4, allow_low_quality_matches=True)
        super().__init__(
            pyramid, n_classes, anchor_generator=anchors, head=heads, proposal_matcher=matcher
        )
        self.coco_without_epsilon = head == "v1"

    def coded(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The head's own, without background."""
        return outputs["cls_logits"][..., 1:], outputs["bbox_regression"]

    def losses(self, passed: HeadPass, targets: Targets) -> dict[str, Tensor]:
        """``classification`` and ``bbox_regression`` as in torchvision, means over the images."""
        with torch.autocast(passed.anchors[0].device.type, enabled=False):
            return self.compute_loss(targets, passed.outputs, passed.anchors)

    def fetch_coco(self) -> dict[str, Tensor]:
        """Of torchvision's model with the same head."""
        keys = self.architecture["arguments"]
        own = [keys[key] for key in ("backbone", "fpn_channels", "head_convs")]
        if [*own, len(keys["anchor_ratios"])] != ["resnet50", 256, 4, 3]:
            raise InputError(
                "weights coco: need backbone resnet50, fpn_channels 256, head_convs 4 and three "
                "anchor_ratios"
            )
        return fetch_coco(keys["head"])
