"""Detectors that score every place of their feature maps: one pass, and its boxes."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from cxr_compare.detection.detector import Detections, Detector, Targets
from cxr_compare.detection.frames import CANDIDATES_PER_LEVEL, LARGEST_GROWTH, decode_boxes


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

        Of logits (B, A, K), findings only, and offsets (B, A, 4), float32.
        """
        count, _, n_findings = logits.shape
        finite = logits.isfinite().all(dim=(1, 2)) & offsets.isfinite().all(dim=(1, 2))  # (B,)
        most, parts = CANDIDATES_PER_LEVEL * n_findings, []
        outputs = (logits, offsets, passed.anchors[0][None])
        by_level = zip(*(each.split(passed.level_sizes, dim=1) for each in outputs), strict=True)
        for level, level_offsets, anchors in by_level:
            # Of equal scores the earlier anchor is first, as in numpy; topk would not say.
            ordered = level.sigmoid().flatten(1).sort(dim=1, descending=True, stable=True)
            scores, places = ordered.values[:, :most], ordered.indices[:, :most]  # (B, N)
            rows = places // n_findings
            chosen = level_offsets.gather(1, rows[..., None].expand(-1, -1, 4))
            boxes = decode_anchors(chosen.flatten(0, 1), anchors[0, rows.flatten()])
            parts.append((boxes.view(count, -1, 4), scores, places % n_findings + 1))
        boxes, scores, labels = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return self.suppressed(boxes, scores, labels, finite)


def image_list(pixels: Tensor) -> ImageList:
    """Pixels (B, 3, S, S) as torchvision takes them; nothing is padded."""
    return ImageList(pixels, [(pixels.shape[2], pixels.shape[3])] * len(pixels))


def decode_anchors(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (N, 4) xyxy of anchors; torchvision's coder sends a constant to the device."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = offsets[:, :2] * sides + (anchors[:, :2] + 0.5 * sides)
    half = 0.5 * (offsets[:, 2:].clamp(max=LARGEST_GROWTH).exp() * sides)
    return torch.cat([centres - half, centres + half], dim=1)
