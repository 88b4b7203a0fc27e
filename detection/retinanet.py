"""RetinaNet on store pixels, its anchors and heads: one forward gives losses, boxes or both."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import Matcher, encode_boxes
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetHead,
    RetinaNetRegressionHead,
)
from torchvision.ops import batched_nms, nms, sigmoid_focal_loss

from data_prep.contracts.boxes import Boxes
from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Preprocess
from detection.backbone import group_norm
from detection.frames import (
    CANDIDATES_PER_LEVEL,
    MAX_PER_FINDING,
    MIN_SCORE,
    NMS_IOU,
    decode_boxes,
)
from networks.inference import require_store_pixels

_LEVELS = 5  # P3 to P7
_FINEST_STRIDE = 8  # px, of P3; each level doubles it
_OCTAVE_STEPS = 3  # sizes on each level, a third of an octave apart
DEFAULT_RATIOS = (0.5, 1.0, 2.0)
_MIN_IMAGE = 32  # px: P5 is then one pixel

Targets = list[dict[str, Tensor]]
Detections = list[dict[str, Tensor]]


def default_anchor_sizes(image_size: int) -> tuple[int, ...]:
    """Smallest anchor of each level, px: torchvision's at 512 px, the same share of other images.

    At least two strides: a lesion between two smaller anchors overlaps neither by half.
    """
    finest = max(2 * _FINEST_STRIDE, round(image_size / 16))
    return tuple(finest * 2**level for level in range(_LEVELS))


def build_anchors(
    image_size: int, sizes: Sequence[float], ratios: Sequence[float]
) -> AnchorGenerator:
    """The anchors of P3 to P7: three sizes an octave from each level's smallest, at every ratio."""
    if image_size < _MIN_IMAGE:
        raise InputError(f"image_size: expected at least {_MIN_IMAGE} px, but got {image_size}")
    if len(sizes) != _LEVELS or not all(1 <= size < float("inf") for size in sizes):
        raise InputError(
            f"anchor_sizes: expected {_LEVELS} sides of at least 1 px, but got {list(sizes)}"
        )
    if not ratios or not all(0 < ratio < float("inf") for ratio in ratios):
        raise InputError(f"anchor_ratios: expected ratios above 0, but got {list(ratios)}")
    octaves = tuple(_octave_sizes(size) for size in sizes)
    return AnchorGenerator(octaves, (tuple(ratios),) * _LEVELS)


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
        return _iou_loss(self.loss, _decode(offsets, anchors, limit), boxes).sum()


def _decode(offsets: Tensor, anchors: Tensor, limit: float) -> Tensor:
    """Boxes (N, 4) xyxy of anchors; torchvision's coder sends a constant to the device."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = offsets[:, :2] * sides + (anchors[:, :2] + 0.5 * sides)
    half = 0.5 * (offsets[:, 2:].clamp(max=limit).exp() * sides)
    return torch.cat([centres - half, centres + half], dim=1)


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


class _Matcher(Matcher):
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


class _StoreTransform(nn.Module):
    """Normalise store pixels; torchvision's own transform would resize and normalise again."""

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> ImageList:
        """Losses in training mode, detections in evaluation mode, as in torchvision.

        Of store pixels, uint8 (B, 1, S, S), and in training mode per image ``boxes`` (N, 4) xyxy,
        store px, and ``labels`` (N,), 1 to K.
        """
        size = self.preprocess.size
        require_store_pixels(images, size, "detector")
        pixels = self.preprocess.normalise(images)  # (B, 1, S, S) float32
        return ImageList(pixels.expand(-1, 3, -1, -1), [(size, size)] * len(images))


class _HeadPass(NamedTuple):
    """What one pass through backbone and heads gives, in full precision."""

    outputs: dict[str, Tensor]  # cls_logits (B, A, K + 1), bbox_regression (B, A, 4), float32
    anchors: list[Tensor]  # per image (A, 4) xyxy, store px, float32
    level_sizes: list[int]  # anchors on each of the five levels; they add up to A
    image_sizes: list[tuple[int, int]]  # (height, width), store px


class LesionRetinaNet(RetinaNet):
    """torchvision's RetinaNet for store pixels; build it with `build_retinanet`.

    It differs from its parent where the parent would be wrong for this work:

    - Pixels come from the store as they are (`_StoreTransform`).
    - Anchors, losses, box decoding and NMS run in float32 under autocast. The parent makes its
      anchors in the precision of the features, and bfloat16 has steps of 2 px from 256 px on.
    - Background (class 0) is never a detection; the parent returns it with a score.
    - An image whose output is not finite says so (``finite``); the parent returns no boxes,
      which would read as "nothing found".
    - At most 100 boxes for each finding rather than for all findings together.
    - Frozen stages keep their batch-norm statistics in training mode too.

    Attributes:
        architecture: ``kind``, ``name`` and ``arguments``, from which `build_retinanet` makes
            the same network again.
        preprocess: Size and normalisation of the pixels that the model reads.
        n_findings: Number of findings K.

    Source:
        Lin et al. 2017, Focal Loss for Dense Object Detection.
    """

    architecture: dict[str, Any]

    def __init__(
        self,
        backbone: BackboneWithFPN,
        head: RetinaNetHead,
        anchor_generator: AnchorGenerator,
        preprocess: Preprocess,
        n_findings: int,
        frozen: list[nn.Module],
    ) -> None:
        super().__init__(
            backbone,
            n_findings + 1,
            anchor_generator=anchor_generator,
            head=head,
            proposal_matcher=_Matcher(0.5, 0.4, allow_low_quality_matches=True),
            # The parent compares with `>`; here a score of exactly 0.001 counts.
            score_thresh=float(np.nextafter(np.float32(MIN_SCORE), np.float32(0))),
            nms_thresh=NMS_IOU,
            detections_per_img=_LEVELS * CANDIDATES_PER_LEVEL * n_findings,
            topk_candidates=CANDIDATES_PER_LEVEL * n_findings,
        )
        self.transform = _StoreTransform(preprocess)  # type: ignore[assignment]
        self.preprocess = preprocess
        self.n_findings = n_findings
        self._frozen = tuple(frozen)  # a tuple: the modules are registered in the backbone
        self.train()

    def train(self, mode: bool = True) -> "LesionRetinaNet":
        """Switch to training or evaluation; frozen stages stay in evaluation."""
        super().train(mode)
        for stage in getattr(self, "_frozen", ()):
            stage.eval()
        return self

    def forward(  # type: ignore[override]
        self, images: Tensor, targets: Targets | None = None
    ) -> dict[str, Tensor] | Detections:
        """Losses in training mode, detections in evaluation mode, as in torchvision.

        Args:
            images: uint8 (B, 1, S, S), store pixels.
            targets: In training mode, per image ``boxes`` (N, 4) xyxy, store px, and ``labels``
                (N,), 1 to K.

        Returns:
            The losses, or one dictionary of detections an image.

        Raises:
            ValueError: Training mode without targets.
        """
        heads = self.run_heads(images)
        if not self.training:
            return self.detections(heads)
        if targets is None:
            raise ValueError("Expected targets in training mode, but got none")
        return self.losses(heads, targets)

    def run_heads(self, images: Tensor) -> _HeadPass:
        """Run backbone and heads once, for any of the methods below.

        Outputs and anchors are float32, whatever autocast does inside.
        """
        batch = self.transform(images)
        features = list(self.backbone(batch.tensors).values())
        outputs = {name: output.float() for name, output in self.head(features).items()}
        # The generator reads shape, type and device only: stand-ins keep the anchors float32.
        shapes = [f.new_empty((1, 1, *f.shape[-2:]), dtype=torch.float32) for f in features]
        per_place = self.anchor_generator.num_anchors_per_location()
        sizes = [f.shape[-2] * f.shape[-1] * n for f, n in zip(features, per_place, strict=True)]
        anchors = self.anchor_generator(batch, shapes)
        return _HeadPass(outputs, anchors, sizes, batch.image_sizes)

    def losses(self, heads: _HeadPass, targets: Targets) -> dict[str, Tensor]:
        """``classification`` and ``bbox_regression`` as in torchvision, means over the images."""
        with torch.autocast(heads.anchors[0].device.type, enabled=False):
            return self.compute_loss(targets, heads.outputs, heads.anchors)

    def detections(self, heads: _HeadPass) -> Detections:
        """Decode, suppress and sort the boxes of each image, in float32.

        On a CPU by `detection.frames`, as exports do; on a GPU all images at once. Per image, in
        main memory: ``boxes`` (N, 4) xyxy, store px, clipped to the store's image; ``scores`` (N,),
        descending; ``labels`` (N,), 1 to K; and ``finite``, a boolean scalar, false where the
        network's output for this image has a NaN or an infinity.
        """
        logits = heads.outputs["cls_logits"].detach()[..., 1:]  # without background
        offsets = heads.outputs["bbox_regression"].detach()
        if logits.device.type != "cpu":
            with torch.autocast(logits.device.type, enabled=False):
                return _decode_together(logits, offsets, heads, self.box_coder.bbox_xform_clip)
        size = heads.image_sizes[0][0]
        anchors = heads.anchors[0].numpy()
        decoded = decode_boxes(logits.numpy(), offsets.numpy(), anchors, heads.level_sizes, size)
        return [_as_tensors(boxes) for boxes in decoded]


def _as_tensors(boxes: Boxes | None) -> dict[str, Tensor]:
    """One image of `Detections`; `None` where the network's output is not finite."""
    if boxes is None:
        none = {"boxes": torch.zeros((0, 4)), "scores": torch.zeros(0)}
        labels = torch.zeros(0, dtype=torch.int64)
        return none | {"labels": labels, "finite": torch.tensor(False)}
    return {
        "boxes": torch.from_numpy(boxes.corners),
        "scores": torch.from_numpy(boxes.scores),
        "labels": torch.from_numpy(boxes.labels),
        "finite": torch.tensor(True),
    }


def _decode_together(logits: Tensor, offsets: Tensor, heads: _HeadPass, limit: float) -> Detections:
    """What `decode_boxes` gives, of all images of a batch at once, on their device.

    Of logits (B, A, K), findings only, and offsets (B, A, 4), float32. The host waits three times
    a batch: for the candidates, the suppression and the results.
    """
    count, _, n_findings = logits.shape
    size = float(heads.image_sizes[0][0])
    finite = logits.isfinite().all(dim=(1, 2)) & offsets.isfinite().all(dim=(1, 2))  # (B,)
    most, parts = CANDIDATES_PER_LEVEL * n_findings, []
    by_level = (
        logits.split(heads.level_sizes, dim=1),
        offsets.split(heads.level_sizes, dim=1),
        heads.anchors[0].split(heads.level_sizes),
    )
    for level, level_offsets, anchors in zip(*by_level, strict=True):
        # Of equal scores the earlier anchor is first, as in numpy; topk would not say.
        ordered = level.sigmoid().flatten(1).sort(dim=1, descending=True, stable=True)
        scores, places = ordered.values[:, :most], ordered.indices[:, :most]  # (B, N)
        rows = places // n_findings
        chosen = level_offsets.gather(1, rows[..., None].expand(-1, -1, 4))
        boxes = _decode(chosen.flatten(0, 1), anchors[rows.flatten()], limit).clamp(0.0, size)
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
        _as_tensors(_best_boxes(table, image * n_findings, n_findings) if ok else None)
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
