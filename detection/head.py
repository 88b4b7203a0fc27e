"""RetinaNet heads with a configurable depth, score prior, focal loss and box loss."""

from functools import reduce
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetHead,
    RetinaNetRegressionHead,
)
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from data_prep.contracts.errors import InputError
from detection.backbone import group_norm

HeadVersion = Literal["v1", "v2"]
BoxLoss = Literal["auto", "l1", "smooth_l1", "giou", "diou", "ciou"]
AUTO_BOX_LOSS: dict[HeadVersion, BoxLoss] = {"v1": "l1", "v2": "giou"}  # as in torchvision
IOU_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}
SMOOTH_L1_BETA = 1 / 9  # Detectron's, for offsets that are not divided by a deviation
MAX_CONVS = 4  # torchvision's heads have four; a shallower one keeps the first


class FocalHead(RetinaNetClassificationHead):
    """torchvision's classification head, with ``alpha`` and ``gamma`` free and less depth.

    Args:
        channels: Channels of the pyramid.
        anchors: Anchors at each position.
        classes: Findings plus one; class 0 is background.
        version: ``v1`` has no normalisation, ``v2`` has group norm after each convolution.
        convs: Hidden convolutions, 1 to 4.
        prior: Probability that every anchor starts with, so that the first steps are not
            swamped by the background.
        alpha: Weight of a lesion's anchor; background weighs ``1 - alpha``.
        gamma: How strongly easy anchors count less; 0 gives cross entropy.

    Source:
        Lin et al. 2017, Focal Loss for Dense Object Detection.
    """

    def __init__(
        self,
        channels: int,
        anchors: int,
        classes: int,
        *,
        version: HeadVersion,
        convs: int,
        prior: float,
        alpha: float,
        gamma: float,
    ) -> None:
        norm = group_norm if version == "v2" else None
        super().__init__(channels, anchors, classes, prior_probability=prior, norm_layer=norm)
        self.conv = self.conv[:convs]
        self.alpha = alpha
        self.gamma = gamma

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        matched_idxs: list[Tensor],
    ) -> Tensor:
        """Focal loss over all anchors, divided by each image's number of matched anchors.

        Args:
            targets: Per image ``labels`` (N,), int64.
            head_outputs: ``cls_logits`` (B, A, classes), float32.
            matched_idxs: Per image (A,): index of the matched box, -1 background, -2 ignored.

        Returns:
            The mean over the images, a scalar.
        """
        losses = []
        for target, logits, matched in zip(
            targets, head_outputs["cls_logits"], matched_idxs, strict=True
        ):
            foreground = matched >= 0  # (A,)
            truth = torch.zeros_like(logits)  # (A, classes)
            truth[foreground, target["labels"][matched[foreground]]] = 1.0
            counted = matched != self.BETWEEN_THRESHOLDS
            loss = sigmoid_focal_loss(
                logits[counted], truth[counted], alpha=self.alpha, gamma=self.gamma, reduction="sum"
            )
            losses.append(loss / foreground.sum().clamp(min=1))
        return _mean(losses)


class BoxHead(RetinaNetRegressionHead):
    """torchvision's box head, with less depth, its loss free and weighted.

    Args:
        channels: Channels of the pyramid.
        anchors: Anchors at each position.
        version: ``v1`` or ``v2``.
        convs: Hidden convolutions, 1 to 4.
        loss: ``l1`` and ``smooth_l1`` compare offsets from the anchor; ``giou``, ``diou`` and
            ``ciou`` compare boxes by their overlap. ``auto`` is L1 in v1 and GIoU in v2.
        weight: Multiplies the loss.

    Source:
        Girshick 2015, Fast R-CNN (smooth L1); Rezatofighi et al. 2019, Generalized Intersection
        over Union; Zheng et al. 2020, Distance-IoU Loss (DIoU and CIoU).
    """

    def __init__(
        self,
        channels: int,
        anchors: int,
        *,
        version: HeadVersion,
        convs: int,
        loss: BoxLoss = "auto",
        weight: float = 1.0,
    ) -> None:
        super().__init__(channels, anchors, norm_layer=group_norm if version == "v2" else None)
        self.conv = self.conv[:convs]
        self.loss = AUTO_BOX_LOSS[version] if loss == "auto" else loss
        self.weight = weight

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> Tensor:
        """Box loss over the anchors of lesions, divided by each image's number of them.

        Args:
            targets: Per image ``boxes`` (N, 4) xyxy, store px.
            head_outputs: ``bbox_regression`` (B, A, 4), float32.
            anchors: Per image (A, 4) xyxy, store px.
            matched_idxs: Per image (A,): index of the matched box, negative where there is none.

        Returns:
            The mean over the images times the weight, a scalar; 0 for a batch without boxes.
        """
        losses = []
        for target, offsets, places, matched in zip(
            targets, head_outputs["bbox_regression"], anchors, matched_idxs, strict=True
        ):
            lesion = torch.where(matched >= 0)[0]  # (M,)
            loss = self._loss_of(offsets[lesion], places[lesion], target["boxes"][matched[lesion]])
            losses.append(loss / max(1, len(lesion)))
        return self.weight * _mean(losses)

    def _loss_of(self, offsets: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Sum over M anchors; all (M, 4)."""
        if self.loss in IOU_LOSSES:
            if self.loss == "ciou":
                # It divides by the height, which must not be 0; the coder stops the other end.
                shape = offsets[:, 2:].clamp(min=-self.box_coder.bbox_xform_clip)
                offsets = torch.cat([offsets[:, :2], shape], dim=1)
            decoded = self.box_coder.decode_single(offsets, anchors)
            return IOU_LOSSES[self.loss](decoded, boxes, reduction="sum")
        wanted = self.box_coder.encode_single(boxes, anchors)
        if self.loss == "l1":
            return functional.l1_loss(offsets, wanted, reduction="sum")
        return functional.smooth_l1_loss(offsets, wanted, reduction="sum", beta=SMOOTH_L1_BETA)


def _mean(losses: list[Tensor]) -> Tensor:
    """Mean over the images, added one by one as torchvision does: equal to the last bit."""
    return reduce(torch.add, losses) / len(losses)


def build_head(
    channels: int,
    anchors: int,
    n_findings: int,
    *,
    version: HeadVersion = "v1",
    convs: int = 4,
    prior: float = 0.01,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_loss: BoxLoss = "auto",
    box_weight: float = 1.0,
) -> RetinaNetHead:
    """Build both heads of a RetinaNet.

    Args:
        channels: Channels of the pyramid.
        anchors: Anchors at each position.
        n_findings: Findings to tell apart, at least 1.
        version: ``v1`` or ``v2``, as in torchvision.
        convs: Hidden convolutions in each head, 1 to 4.
        prior: Score that every anchor starts with, in (0, 1).
        alpha: Weight of lesions in the focal loss, in [0, 1].
        gamma: Exponent of the focal loss, at least 0.
        box_loss: See `BoxHead`.
        box_weight: Of the box loss against the focal loss, above 0.

    Returns:
        A module that maps the pyramid to ``cls_logits`` and ``bbox_regression``.

    Raises:
        InputError: An argument is outside its range.
    """
    if version not in ("v1", "v2"):
        raise InputError(f"head: expected v1 or v2, but got {version!r}")
    if not 1 <= convs <= MAX_CONVS:
        raise InputError(f"head_convs: expected 1 to {MAX_CONVS}, but got {convs}")
    if not 0 < prior < 1:
        raise InputError(f"prior: expected a probability between 0 and 1, but got {prior}")
    if not 0 <= alpha <= 1 or gamma < 0:
        raise InputError(
            f"focal loss: expected alpha in [0, 1] and gamma >= 0, but got {alpha} and {gamma}"
        )
    if box_loss not in get_args(BoxLoss):
        raise InputError(
            f"box_loss: expected one of {', '.join(get_args(BoxLoss))}, but got {box_loss!r}"
        )
    if not 0 < box_weight < float("inf"):
        raise InputError(f"box_weight: expected a number above 0, but got {box_weight}")
    classes = n_findings + 1
    head = RetinaNetHead(channels, anchors, classes)
    head.classification_head = FocalHead(
        channels,
        anchors,
        classes,
        version=version,
        convs=convs,
        prior=prior,
        alpha=alpha,
        gamma=gamma,
    )
    head.regression_head = BoxHead(
        channels, anchors, version=version, convs=convs, loss=box_loss, weight=box_weight
    )
    return head
