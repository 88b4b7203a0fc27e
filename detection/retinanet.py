"""RetinaNet on store pixels: one forward gives losses, boxes or both."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead

from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Preprocess
from detection.backbone import Norm, build_pyramid
from detection.dense import DenseDetector, HeadPass
from detection.detector import Targets
from detection.frames import CANDIDATES_PER_LEVEL, MIN_SCORE, NMS_IOU
from detection.retinanet_head import (
    DEFAULT_RATIOS,
    LEVELS,
    AnchorMatcher,
    BoxLoss,
    HeadVersion,
    build_anchors,
    build_head,
    default_anchor_sizes,
)
from detection.weights import build_start, start_from
from networks.checkpoints import Checkpoint
from networks.published import fetch_coco


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
            proposal_matcher=AnchorMatcher(0.5, 0.4, allow_low_quality_matches=True),
            # The parent compares with `>`; here a score of exactly 0.001 counts.
            score_thresh=float(np.nextafter(np.float32(MIN_SCORE), np.float32(0))),
            nms_thresh=NMS_IOU,
            detections_per_img=LEVELS * CANDIDATES_PER_LEVEL * n_findings,
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
    head: HeadVersion = "v1",
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
    box_loss: BoxLoss = "auto",
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
            to the image; see `detection.retinanet_head.default_anchor_sizes`.
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
        build_head(
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
