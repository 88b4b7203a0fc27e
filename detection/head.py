"""RetinaNet heads with a configurable depth and box loss."""

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
)

from data_prep.contracts.errors import InputError
from detection.backbone import group_norm

HeadVersion = Literal["v1", "v2"]
BoxLoss = Literal["auto", "l1", "smooth_l1", "giou", "diou", "ciou"]
_AUTO_BOX_LOSS: dict[HeadVersion, BoxLoss] = {"v1": "l1", "v2": "giou"}  # as in torchvision
_IOU_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}
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

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> Tensor:
        """Mean over the images of their loss per matched anchor; 0 without boxes.

        As in torchvision; `matched_idxs` (A,) is negative where an anchor has no box.
        """
        losses = []
        for target, offsets, places, matched in zip(
            targets, head_outputs["bbox_regression"], anchors, matched_idxs, strict=True
        ):
            lesion = torch.where(matched >= 0)[0]  # (M,)
            loss = self._loss_of(offsets[lesion], places[lesion], target["boxes"][matched[lesion]])
            losses.append(loss / max(1, len(lesion)))
        return reduce(torch.add, losses) / len(losses)  # one by one as torchvision: equal bits

    def _loss_of(self, offsets: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Sum over M anchors; all (M, 4)."""
        if self.loss in _IOU_LOSSES:
            if self.loss == "ciou":
                # It divides by the height, which must not be 0; the coder stops the other end.
                shape = offsets[:, 2:].clamp(min=-self.box_coder.bbox_xform_clip)
                offsets = torch.cat([offsets[:, :2], shape], dim=1)
            decoded = self.box_coder.decode_single(offsets, anchors)
            return _IOU_LOSSES[self.loss](decoded, boxes, reduction="sum")
        wanted = self.box_coder.encode_single(boxes, anchors)
        if self.loss == "l1":
            return functional.l1_loss(offsets, wanted, reduction="sum")
        return functional.smooth_l1_loss(offsets, wanted, reduction="sum", beta=_SMOOTH_L1_BETA)


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
    head = RetinaNetHead(channels, anchors, classes)
    norm = group_norm if version == "v2" else None
    head.classification_head = RetinaNetClassificationHead(
        channels, anchors, classes, norm_layer=norm
    )
    head.classification_head.conv = head.classification_head.conv[:convs]
    head.regression_head = _BoxHead(channels, anchors, version=version, convs=convs, loss=box_loss)
    return head
