"""RetinaNet on store pixels: one forward gives losses, boxes or both."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import batched_nms, nms

from data_prep.contracts.boxes import Boxes
from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Preprocess
from detection.backbone import Norm, build_body, build_pyramid, pyramid_stages
from detection.detector import Detections, Detector, Targets, to_tensors
from detection.frames import (
    CANDIDATES_PER_LEVEL,
    MAX_PER_FINDING,
    MIN_SCORE,
    NMS_IOU,
    decode_boxes,
)
from detection.retinanet_head import (
    DEFAULT_RATIOS,
    LEVELS,
    AnchorMatcher,
    BoxLoss,
    HeadVersion,
    build_anchors,
    build_head,
    decode_anchors,
    default_anchor_sizes,
)
from detection.weights import load_coco, load_imagenet
from networks.published import find_network


class _HeadPass(NamedTuple):
    """What one pass through backbone and heads gives, in full precision."""

    outputs: dict[str, Tensor]  # cls_logits (B, A, K + 1), bbox_regression (B, A, 4), float32
    anchors: list[Tensor]  # per image (A, 4) xyxy, store px, float32
    level_sizes: list[int]  # anchors on each of the five levels; they add up to A
    image_sizes: list[tuple[int, int]]  # (height, width), store px


class LesionRetinaNet(Detector, RetinaNet):  # type: ignore[misc]  # forward is Detector's
    """torchvision's RetinaNet for store pixels; build it with `build_retinanet`.

    It differs from its parent where the parent would be wrong for this work:

    - Pixels come from the store as they are.
    - Anchors, losses, box decoding and NMS run in float32 under autocast. The parent makes its
      anchors in the precision of the features, and bfloat16 has steps of 2 px from 256 px on.
    - Background (class 0) is never a detection; the parent returns it with a score.
    - An image whose output is not finite says so (``finite``); the parent returns no boxes,
      which would read as "nothing found".
    - At most 100 boxes for each finding rather than for all findings together.

    Source:
        Lin et al. 2017, Focal Loss for Dense Object Detection.
    """

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
        self.preprocess = preprocess
        self.n_findings = n_findings
        del self.transform  # torchvision's would resize and normalise again

    @property
    def body(self) -> nn.Module:
        """The backbone below the pyramid."""
        return self.backbone.get_submodule("body")

    @property
    def stages(self) -> list[list[nn.Module]]:
        """What works at strides of 2, 4, 8, 16 and 32 px."""
        return pyramid_stages(self.architecture["arguments"]["backbone"], self.backbone)

    def run(self, images: Tensor, targets: Targets | None = None) -> _HeadPass:
        """Outputs and anchors are float32, whatever autocast does inside."""
        pixels = self.pixels(images)
        batch = ImageList(pixels, [(self.preprocess.size, self.preprocess.size)] * len(images))
        features = list(self.backbone(pixels).values())
        outputs = {name: output.float() for name, output in self.head(features).items()}
        # The generator reads shape, type and device only: stand-ins keep the anchors float32.
        shapes = [f.new_empty((1, 1, *f.shape[-2:]), dtype=torch.float32) for f in features]
        per_place = self.anchor_generator.num_anchors_per_location()
        sizes = [f.shape[-2] * f.shape[-1] * n for f, n in zip(features, per_place, strict=True)]
        anchors = self.anchor_generator(batch, shapes)
        return _HeadPass(outputs, anchors, sizes, batch.image_sizes)

    def losses(self, passed: _HeadPass, targets: Targets) -> dict[str, Tensor]:
        """``classification`` and ``bbox_regression`` as in torchvision, means over the images."""
        with torch.autocast(passed.anchors[0].device.type, enabled=False):
            return self.compute_loss(targets, passed.outputs, passed.anchors)

    def image_scores(self, passed: _HeadPass) -> Tensor:
        """The most confident anchor's, of any finding."""
        logits = passed.outputs["cls_logits"].detach()[..., 1:]  # class 0 is background
        return logits.flatten(1).amax(dim=1).sigmoid()

    def detections(self, passed: _HeadPass) -> Detections:
        """On a CPU by `detection.frames`, as exports do; on a GPU all images at once."""
        logits = passed.outputs["cls_logits"].detach()[..., 1:]  # without background
        offsets = passed.outputs["bbox_regression"].detach()
        if logits.device.type != "cpu":
            with torch.autocast(logits.device.type, enabled=False):
                return _decode_together(logits, offsets, passed, self.box_coder.bbox_xform_clip)
        size, anchors = self.preprocess.size, passed.anchors[0].numpy()
        decoded = decode_boxes(logits.numpy(), offsets.numpy(), anchors, passed.level_sizes, size)
        return [to_tensors(boxes) for boxes in decoded]


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
    body = build_body(backbone, norm)
    network = find_network(backbone, "detector")
    mean = network.mean if mean is None else mean
    std = network.std if std is None else std
    if weights == "imagenet":
        load_imagenet(body, backbone, norm)
    pyramid = build_pyramid(backbone, body, fpn_channels, p6_from_c5=head == "v2")
    sizes = default_anchor_sizes(image_size) if anchor_sizes is None else tuple(anchor_sizes)
    anchors = build_anchors(image_size, sizes, anchor_ratios)
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
        Preprocess(image_size, mean, std),
        n_findings,
    )
    if weights == "coco":
        load_coco(model, backbone=backbone, head=head, norm=norm)
    model.resolved = {"anchor_sizes": list(sizes)}
    return model


def _decode_together(
    logits: Tensor, offsets: Tensor, passed: _HeadPass, limit: float
) -> Detections:
    """What `decode_boxes` gives, of all images of a batch at once, on their device.

    Of logits (B, A, K), findings only, and offsets (B, A, 4), float32. The host waits three times
    a batch: for the candidates, the suppression and the results.
    """
    count, _, n_findings = logits.shape
    size = float(passed.image_sizes[0][0])
    finite = logits.isfinite().all(dim=(1, 2)) & offsets.isfinite().all(dim=(1, 2))  # (B,)
    most, parts = CANDIDATES_PER_LEVEL * n_findings, []
    by_level = (
        logits.split(passed.level_sizes, dim=1),
        offsets.split(passed.level_sizes, dim=1),
        passed.anchors[0].split(passed.level_sizes),
    )
    for level, level_offsets, anchors in zip(*by_level, strict=True):
        # Of equal scores the earlier anchor is first, as in numpy; topk would not say.
        ordered = level.sigmoid().flatten(1).sort(dim=1, descending=True, stable=True)
        scores, places = ordered.values[:, :most], ordered.indices[:, :most]  # (B, N)
        rows = places // n_findings
        chosen = level_offsets.gather(1, rows[..., None].expand(-1, -1, 4))
        boxes = decode_anchors(chosen.flatten(0, 1), anchors[rows.flatten()], limit).clamp(
            0.0, size
        )
        parts.append((boxes.view(count, -1, 4), scores, places % n_findings))
    boxes, scores, labels = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    images, places = torch.where((scores >= MIN_SCORE) & finite[:, None])
    boxes, scores, labels = (each[images, places] for each in (boxes, scores, labels))
    groups = images * n_findings + labels
    # In float64: groups are moved apart by whole images, which would cost float32 its digits.
    exact = boxes.double(), scores.double()
    if len(scores) > _MOST_AT_ONCE:
        kept = batched_nms(*exact, groups, NMS_IOU)
    else:  # what that does, less a constant that it sends
        kept = nms(exact[0] + groups.double()[:, None] * (size + 1.0), exact[1], NMS_IOU)
    rows = torch.cat([boxes, scores[:, None], groups[:, None]], dim=1)[kept.sort().values]
    found = torch.cat([finite.double(), rows.double().flatten()]).cpu().numpy()
    finite_images, table = found[:count], found[count:].reshape(-1, 6)
    return [
        to_tensors(_best_boxes(table, image * n_findings, n_findings) if ok else None)
        for image, ok in enumerate(finite_images)
    ]


_MOST_AT_ONCE = 100_000  # boxes: beyond, torchvision suppresses group by group, in less memory


def _best_boxes(table: np.ndarray, first: int, n_findings: int) -> Boxes:
    """The best boxes of each finding of an image by falling score; of x1, ..., score, group."""
    rows = []
    for group in range(first, first + n_findings):
        own = np.flatnonzero(table[:, 5] == group)
        rows.append(own[np.argsort(-table[own, 4], kind="stable")][:MAX_PER_FINDING])
    best = table[np.concatenate(rows)]
    best = best[np.argsort(-best[:, 4], kind="stable")]
    corners, scores = best[:, :4].astype(np.float32), best[:, 4].astype(np.float32)
    return Boxes(corners, scores, best[:, 5].astype(np.int64) - first + 1)
