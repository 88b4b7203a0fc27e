"""RetinaNet for images of the pixel store: anchors, heads and losses."""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import Matcher, encode_boxes
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import sigmoid_focal_loss

from cxr_compare.configs.model_settings import RetinaNetSettings
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.detection.backbone import DetectorStart, group_norm
from cxr_compare.detection.dense import DenseDetector, HeadPass, decode_anchors
from cxr_compare.detection.detector import Targets
from cxr_compare.detection.frames import LARGEST_GROWTH
from cxr_compare.networks.weight_files import fetch_coco

_LEVELS = 5  # P3 to P7, or P2 to P6; each doubles the stride
DEFAULT_RATIOS = (0.5, 1.0, 2.0)


class Anchors(NamedTuple):
    """An anchor generator with its arguments, ``anchor_sizes`` in px and ``anchor_ratios``."""

    generator: AnchorGenerator
    arguments: dict[str, list[float]]


def build_anchors(
    sizes: Sequence[float] | None, ratios: Sequence[float], image_size: int, stride: int, steps: int
) -> Anchors:
    """Build the anchors of five pyramid levels.

    `sizes` are the sides of the smallest anchor of each level, px. None takes torchvision's sizes
    for images of 512 px, scaled to the image size; they begin at two strides of the finest level or
    more, because a lesion between two smaller anchors would overlap neither by half. `ratios` are
    height divided by width; each is used with every size. A level has `steps` sizes: its own times
    2^(i / steps), i from 0 to steps - 1. `stride` is that of the finest level, px. Raises
    InputError if there are not five sizes, a size is below 1 px, there is no ratio, or a ratio is
    not above 0.

    Example:
        >>> build_anchors(None, (1.0,), 512, stride=8, steps=3).arguments["anchor_sizes"]
        [32, 64, 128, 256, 512]
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
    arguments = {"anchor_sizes": list(sizes), "anchor_ratios": list(ratios)}
    return Anchors(AnchorGenerator(octaves, (tuple(ratios),) * _LEVELS), arguments)


_AUTO_BOX_LOSS = {"v1": "l1", "v2": "giou"}  # by the version of the head, as in torchvision
_BOX_LOSSES = ("auto", "l1", "smooth_l1", "giou", "diou", "ciou")
_EPSILON = 1e-7  # torchvision's, against division by 0
SMOOTH_L1_BETA = 1 / 9  # Detectron's, for offsets that are not divided by a deviation
_MAX_CONVS = 4  # torchvision's heads have four; a shallower one keeps the first


def box_loss(kind: str, offsets: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
    """Compute the sum of the box losses of the M matched anchors of an image.

    `kind` is ``l1``, ``smooth_l1``, ``giou``, ``diou`` or ``ciou``. Offsets (M, 4) are those of
    `decode_anchors`; anchors and their true boxes are (M, 4) xyxy in px of the square image.

    Source:
        Smooth L1: Girshick 2015; GIoU: Rezatofighi et al. 2019; DIoU and CIoU: Zheng et al. 2020.
    """
    if kind in ("l1", "smooth_l1"):
        target = encode_boxes(boxes, anchors, anchors.new_ones(4))  # (M, 4)
        if kind == "l1":
            return functional.l1_loss(offsets, target, reduction="sum")
        return functional.smooth_l1_loss(offsets, target, reduction="sum", beta=SMOOTH_L1_BETA)
    if kind == "ciou":
        # It divides by the height, which must not be 0; the decoding limits the other end.
        growth = offsets[:, 2:].clamp(min=-LARGEST_GROWTH)
        offsets = torch.cat([offsets[:, :2], growth], dim=1)
    return iou_losses(kind, decode_anchors(offsets, anchors), boxes).sum()


def iou_losses(kind: str, boxes: Tensor, true_boxes: Tensor) -> Tensor:
    """Compute a loss from the overlap of each predicted box with its true box.

    The results are those of torchvision, whose functions wait for the GPU; this function does not.

    Boxes and true boxes are (M, 4) xyxy, px; the result is (M,).
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    true_x1, true_y1, true_x2, true_y2 = true_boxes.unbind(-1)
    left = x1.max(true_x1)
    top = y1.max(true_y1)
    right = x2.min(true_x2)
    bottom = y2.min(true_y2)
    is_apart = (bottom <= top) | (right <= left)
    overlap = ((right - left) * (bottom - top)).masked_fill(is_apart, 0.0)
    union = (x2 - x1) * (y2 - y1) + (true_x2 - true_x1) * (true_y2 - true_y1) - overlap
    iou = overlap / (union + _EPSILON)
    # Unbound again, so that gradients are summed in torchvision's order.
    x1, y1, x2, y2 = boxes.unbind(-1)
    true_x1, true_y1, true_x2, true_y2 = true_boxes.unbind(-1)
    # Width and height of the smallest box around both.
    hull_width = x2.max(true_x2) - x1.min(true_x1)
    hull_height = y2.max(true_y2) - y1.min(true_y1)
    if kind == "giou":
        area = hull_width * hull_height
        return 1 - (iou - (area - union) / (area + _EPSILON))
    between_x = ((x2 + x1) / 2 - (true_x1 + true_x2) / 2) ** 2
    between_y = ((y2 + y1) / 2 - (true_y1 + true_y2) / 2) ** 2
    between = between_x + between_y
    loss = 1 - iou + between / (hull_width**2 + hull_height**2 + _EPSILON)
    if kind == "diou":
        return loss
    x1, y1, x2, y2 = boxes.unbind(-1)
    true_angle = torch.atan((true_x2 - true_x1) / (true_y2 - true_y1))
    angle = true_angle - torch.atan((x2 - x1) / (y2 - y1))
    aspect = (4 / torch.pi**2) * angle.pow(2)
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + _EPSILON)
    return loss + alpha * aspect


class _AnchorMatcher(Matcher):
    """torchvision's matcher without its list of the best anchors, whose length the host reads."""

    def set_low_quality_matches_(
        self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor
    ) -> None:
        """Give each box the anchors that overlap it most, and each such anchor its best box."""
        best = match_quality_matrix.amax(dim=1, keepdim=True)
        is_best = (match_quality_matrix == best).any(dim=0)
        matches.copy_(torch.where(is_best, all_matches, matches))


class _Head(RetinaNetHead):
    """Both heads; for their losses the host waits once, for the numbers of counted anchors."""

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
        """Compute means over the images of their losses per matched anchor, as in torchvision.

        `matched_idxs` (A,) is -1 for an anchor without a box and -2 for one that does not count.
        """
        matched = torch.stack(matched_idxs)  # (B, A)
        is_lesion = matched >= 0
        is_counted = matched != Matcher.BETWEEN_THRESHOLDS
        masks = torch.stack([is_lesion, is_counted], dim=1)  # (B, 2, A)
        counts = masks.sum(2).tolist()  # the host waits here
        class_logits = head_outputs["cls_logits"].unbind()
        offsets = head_outputs["bbox_regression"].unbind()
        losses: dict[str, list[Tensor]] = {"classification": [], "bbox_regression": []}
        for image, (target, image_counts) in enumerate(zip(targets, counts, strict=True)):
            lesion_rows, counted_rows = (
                mask.nonzero_static(size=count)[:, 0]
                for mask, count in zip(masks[image], image_counts, strict=True)
            )
            box_rows = matched[image][lesion_rows]  # (M,)
            n_matched = max(1, len(lesion_rows))
            class_targets = torch.zeros_like(class_logits[image])  # (A, K + 1)
            labels = target["labels"][box_rows]
            class_targets[lesion_rows, labels] = class_targets.new_ones(())
            focal = sigmoid_focal_loss(
                class_logits[image][counted_rows], class_targets[counted_rows], reduction="sum"
            )
            losses["classification"].append(focal / n_matched)
            regression = box_loss(
                self.box_loss,
                offsets[image][lesion_rows],
                anchors[image][lesion_rows],
                target["boxes"][box_rows],
            )
            losses["bbox_regression"].append(regression / n_matched)
        # Added one by one, as torchvision does, for equal bits.
        return {name: reduce(torch.add, parts) / len(targets) for name, parts in losses.items()}


class LesionRetinaNet(DenseDetector, RetinaNet):  # type: ignore[misc]  # forward is Detector's
    """torchvision's RetinaNet for grey images, with a feature pyramid, P3 to P7 (8 to 128 px).

    It reads images of the pixel store, a folder of images resized to squares.

    Head ``v1`` is that of torchvision's ``retinanet_resnet50_fpn``: plain convolutions, L1 box
    loss, P6 from P5. Head ``v2`` is that of ``retinanet_resnet50_fpn_v2``: group norm in the heads,
    generalised IoU loss, P6 from C5. `configs.model_settings.RetinaNetSettings` explains the
    settings. Each of the `anchor_sizes` is used in three scales: 2^0, 2^(1/3) and 2^(2/3). The
    heads are the two stacks of convolutions that score anchors and fit boxes.

    Source:
        Lin et al. 2017, Focal Loss for Dense Object Detection.
    """

    Settings = RetinaNetSettings
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
        anchors = build_anchors(
            anchor_sizes, anchor_ratios, start.preprocess.size, stride=8, steps=3
        )
        self.resolved = anchors.arguments
        n_anchors = anchors.generator.num_anchors_per_location()[0]
        n_classes = start.n_findings + 1
        heads = _Head(fpn_channels, n_anchors, n_classes, head, head_convs, box_loss)
        matcher = _AnchorMatcher(0.5, 0.4, allow_low_quality_matches=True)
        super().__init__(
            pyramid,
            n_classes,
            anchor_generator=anchors.generator,
            head=heads,
            proposal_matcher=matcher,
        )
        self.coco_without_epsilon = head == "v1"

    def box_outputs(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits and offsets of the head, without the background class.

        The inputs are ``cls_logits`` (B, A, K + 1) and ``bbox_regression`` (B, A, 4).
        """
        return outputs["cls_logits"][..., 1:], outputs["bbox_regression"]

    def losses(self, passed: HeadPass, targets: Targets) -> dict[str, Tensor]:
        """Compute the losses of a batch: means of torchvision's loss of each of its images."""
        with torch.autocast(passed.anchors[0].device.type, enabled=False):
            return self.compute_loss(targets, passed.outputs, passed.anchors)

    def fetch_coco(self) -> dict[str, Tensor]:
        """Read torchvision's COCO weights of the model with the same head.

        They are downloaded if torch's cache lacks them.

        Raises InputError if the model has another backbone or other sizes than torchvision's, or
        the file cannot be downloaded.
        """
        arguments = self.architecture["arguments"]
        sizes = [arguments[key] for key in ("backbone", "fpn_channels", "head_convs")]
        if [*sizes, len(arguments["anchor_ratios"])] != ["resnet50", 256, 4, 3]:
            raise InputError(
                "weights coco: need backbone resnet50, fpn_channels 256, head_convs 4 and three "
                "anchor_ratios"
            )
        return fetch_coco(arguments["head"])
