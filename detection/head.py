"""RetinaNet heads with a configurable depth, score prior and focal loss."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetHead,
    RetinaNetRegressionHead,
)
from torchvision.ops import sigmoid_focal_loss

from data_prep.tables import InputError
from detection.backbone import group_norm

HeadVersion = Literal["v1", "v2"]
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
        return torch.stack(losses).mean()


class BoxHead(RetinaNetRegressionHead):
    """torchvision's box head with less depth: L1 on offsets in v1, generalised IoU in v2.

    Args:
        channels: Channels of the pyramid.
        anchors: Anchors at each position.
        version: ``v1`` or ``v2``.
        convs: Hidden convolutions, 1 to 4.
    """

    def __init__(self, channels: int, anchors: int, *, version: HeadVersion, convs: int) -> None:
        super().__init__(channels, anchors, norm_layer=group_norm if version == "v2" else None)
        self.conv = self.conv[:convs]
        self._loss_type = "giou" if version == "v2" else "l1"


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
    head.regression_head = BoxHead(channels, anchors, version=version, convs=convs)
    return head
