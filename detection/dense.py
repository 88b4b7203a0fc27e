"""Detectors that score every place of their feature maps: one pass, and its boxes."""

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, nms

from data_prep.contracts.boxes import Boxes
from detection.detector import Detections, Detector, Targets
from detection.frames import (
    CANDIDATES_PER_LEVEL,
    LARGEST_GROWTH,
    MIN_SCORE,
    NMS_IOU,
    best_boxes,
    decode_boxes,
)


class HeadPass(NamedTuple):
    """What one pass through backbone and heads gives, in full precision."""

    outputs: dict[str, Tensor]  # of the head, each (B, A, ...), float32
    anchors: list[Tensor]  # per image (A, 4) xyxy, store px, float32
    level_sizes: list[int]  # anchors on each level; they add up to A


class DenseDetector(Detector):
    """A detector of torchvision's with scores and a box for every anchor of its feature maps.

    Pixels come from the store as they are, and anchors, losses, boxes and suppression are computed
    in float32 under autocast: bfloat16 has steps of 2 px from 256 px on. It differs from
    torchvision's where that would be wrong for this work:

    - Background (class 0) is never a detection.
    - An image whose output is not finite says so; torchvision's returns no boxes, which would read
      as "nothing found".
    - At most 100 boxes for each finding rather than for all findings together.
    """

    backbone: Any
    head: Any
    anchor_generator: Any

    @abstractmethod
    def coded(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of the findings (B, A, K), and offsets (B, A, 4) as `decode_boxes` takes them."""

    def run(self, images: Tensor, targets: Targets | None = None) -> HeadPass:
        """Outputs and anchors are float32, whatever autocast does inside."""
        pixels = self.pixels(images)
        features = list(self.backbone(pixels).values())
        outputs = {name: output.float() for name, output in self.head(features).items()}
        # The generator reads shape, type and device only: stand-ins keep the anchors float32.
        shapes = [f.new_empty((1, 1, *f.shape[-2:]), dtype=torch.float32) for f in features]
        per_place = self.anchor_generator.num_anchors_per_location()
        sizes = [f.shape[-2] * f.shape[-1] * n for f, n in zip(features, per_place, strict=True)]
        return HeadPass(outputs, self.anchor_generator(image_list(pixels), shapes), sizes)

    def detections(self, passed: HeadPass) -> Detections:
        """On a CPU by `detection.frames`, as exports do; on a GPU all images at once."""
        outputs = {name: output.detach() for name, output in passed.outputs.items()}
        with torch.autocast(passed.anchors[0].device.type, enabled=False):
            logits, offsets = self.coded(outputs)
            if logits.device.type != "cpu":
                return self.decode_together(logits, offsets, passed)
        size, anchors = self.preprocess.size, passed.anchors[0].numpy()
        return decode_boxes(logits.numpy(), offsets.numpy(), anchors, passed.level_sizes, size)

    def decode_together(self, logits: Tensor, offsets: Tensor, passed: HeadPass) -> Detections:
        """What `decode_boxes` gives, of all images of a batch at once, on their device.

        Of logits (B, A, K), findings only, and offsets (B, A, 4), float32. The host waits three
        times a batch: for the candidates, the suppression and the results.
        """
        count, _, n_findings = logits.shape
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
            boxes = decode_anchors(chosen.flatten(0, 1), anchors[rows.flatten()], LARGEST_GROWTH)
            parts.append((boxes.view(count, -1, 4), scores, places % n_findings))
        boxes, scores, labels = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return suppressed(boxes, scores, labels, finite, n_findings, self.preprocess.size)


def image_list(pixels: Tensor) -> ImageList:
    """Pixels (B, 3, S, S) as torchvision takes them; nothing is padded."""
    return ImageList(pixels, [(pixels.shape[2], pixels.shape[3])] * len(pixels))


def decode_anchors(offsets: Tensor, anchors: Tensor, limit: float) -> Tensor:
    """Boxes (N, 4) xyxy of anchors; torchvision's coder sends a constant to the device."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = offsets[:, :2] * sides + (anchors[:, :2] + 0.5 * sides)
    half = 0.5 * (offsets[:, 2:].clamp(max=limit).exp() * sides)
    return torch.cat([centres - half, centres + half], dim=1)


def suppressed(
    boxes: Tensor, scores: Tensor, labels: Tensor, finite: Tensor, n_findings: int, size: int
) -> Detections:
    """The best boxes of each image and finding, less those that overlap a better one.

    Of boxes (B, N, 4) in store px, float32 scores and labels (B, N), counted from 0, and whether
    the network's output is finite (B,).
    """
    count = len(boxes)
    boxes = boxes.clamp(0.0, float(size))
    images, places = torch.where((scores >= MIN_SCORE) & finite[:, None])
    boxes, scores, labels = (each[images, places] for each in (boxes, scores, labels))
    groups = images * n_findings + labels
    # In float64: groups are moved apart by whole images, which would cost float32 its digits.
    exact = boxes.double(), scores.double()
    if boxes.device.type == "cpu" or len(scores) > _MOST_AT_ONCE:
        kept = batched_nms(*exact, groups, NMS_IOU)
    else:  # what that does, less a constant that it sends
        kept = nms(exact[0] + groups.double()[:, None] * (size + 1.0), exact[1], NMS_IOU)
    rows = torch.cat([boxes, scores[:, None], groups[:, None]], dim=1)[kept.sort().values]
    found = torch.cat([finite.double(), rows.double().flatten()]).cpu().numpy()
    finite_images, table = found[:count], found[count:].reshape(-1, 6)
    owners, positions = np.divmod(table[:, 5].astype(np.int64), n_findings)
    every = Boxes(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), positions + 1)
    return [
        best_boxes(every[owners == image]) if ok else None for image, ok in enumerate(finite_images)
    ]


_MOST_AT_ONCE = 100_000  # boxes: beyond, torchvision suppresses group by group, in less memory
