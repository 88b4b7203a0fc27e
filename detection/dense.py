"""Base class of the detectors that score every anchor of their feature maps."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from cxr_compare.detection.detector import Detections, Detector, Targets
from cxr_compare.detection.frames import CANDIDATES_PER_LEVEL, LARGEST_GROWTH, decode_boxes


class HeadPass(NamedTuple):
    """Output of one pass of images through a detector's backbone and heads, in float32.

    B is the number of images, A the number of anchors of an image.

    Attributes:
        outputs: Outputs of the heads (the layers that score anchors and fit boxes) by name, such as
            ``cls_logits``, each (B, A, ...).
        anchors: Anchors of each image, (A, 4) xyxy in px of the square images that the network
            reads.
        level_sizes: Number of anchors on each level of the feature pyramid; the sum is A.
    """

    outputs: dict[str, Tensor]
    anchors: list[Tensor]
    level_sizes: list[int]


class DenseDetector(Detector):
    """A detector of torchvision that scores every anchor of its feature maps and fits a box to it.

    Under autocast, anchors, losses, boxes and non-maximum suppression are still computed in
    float32, because bfloat16 has steps of 2 px from 256 px on. The class differs from torchvision's
    detector in three points:

    - Background (class 0) is never a detection.
    - An image whose output is not finite gets None instead of boxes. torchvision returns an empty
      list of boxes for it, which would look like a negative image.
    - At most 100 boxes are kept for each finding, not for all findings together.

    Attributes:
        backbone: Network with the feature pyramid.
        head: Layers that compute scores and boxes from each level.
        anchor_generator: Generator of the anchors.
    """

    backbone: Any
    head: Any
    anchor_generator: Any

    @abstractmethod
    def box_outputs(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the part of the heads' outputs from which `decode_boxes` computes boxes.

        Args:
            outputs: Outputs of the heads by name, such as ``cls_logits``, each (B, A, ...) for B
                images and A anchors.

        Returns:
            Logits of the K findings without background (B, A, K), and offsets of the boxes from the
            anchors (B, A, 4), as for `decode_anchors`.
        """

    def run(self, images: Tensor, targets: Targets | None = None) -> HeadPass:
        """Run the backbone and the heads over square grey images, uint8 ``(B, 1, S, S)``.

        Outputs and anchors are float32 also under autocast. The targets are not used.
        """
        pixels = self.pixels(images)  # (B, 3, S, S)
        features = list(self.backbone(pixels).values())
        outputs = {name: output.float() for name, output in self.head(features).items()}
        # The generator reads shape, type and device only: stand-ins keep the anchors float32.
        shapes = [
            level.new_empty((1, 1, *level.shape[-2:]), dtype=torch.float32) for level in features
        ]
        anchors_per_cell = self.anchor_generator.num_anchors_per_location()
        level_sizes = [
            level.shape[-2] * level.shape[-1] * n_anchors
            for level, n_anchors in zip(features, anchors_per_cell, strict=True)
        ]
        anchors = self.anchor_generator(image_list(pixels), shapes)
        return HeadPass(outputs, anchors, level_sizes)

    def detections(self, passed: HeadPass) -> Detections:
        """Compute the boxes of each image from the outputs of the heads.

        On a CPU `detection.frames` computes them, as for exported networks. On a GPU the whole
        batch is computed at once.

        Boxes are in px of the square images, by falling score, at most 100 of each finding; None
        for an image whose output is not finite.
        """
        outputs = {name: output.detach() for name, output in passed.outputs.items()}
        with torch.autocast(passed.anchors[0].device.type, enabled=False):
            logits, offsets = self.box_outputs(outputs)
            if logits.device.type != "cpu":
                return self.decode_batch(logits, offsets, passed)
        anchors = passed.anchors[0].numpy()  # (A, 4)
        return decode_boxes(
            logits.numpy(), offsets.numpy(), anchors, passed.level_sizes, self.preprocess.size
        )

    def decode_batch(self, logits: Tensor, offsets: Tensor, passed: HeadPass) -> Detections:
        """Compute the boxes of all images of a batch at once, by the rules of `decode_boxes`.

        Logits of the K findings, without background, are float32 (B, A, K); offsets are (B, A, 4),
        as for `decode_anchors`. Boxes are in px of the square images, by falling score; None for an
        image whose output is not finite.
        """
        n_images, _, n_findings = logits.shape
        finite = logits.isfinite().all(dim=(1, 2)) & offsets.isfinite().all(dim=(1, 2))  # (B,)
        most = CANDIDATES_PER_LEVEL * n_findings
        boxes, scores, labels = [], [], []
        for level_logits, level_offsets, level_anchors in zip(
            logits.split(passed.level_sizes, dim=1),
            offsets.split(passed.level_sizes, dim=1),
            passed.anchors[0].split(passed.level_sizes),
            strict=True,
        ):
            # Of equal scores the earlier anchor comes first, as in numpy; topk has no fixed order.
            ordered = level_logits.sigmoid().flatten(1).sort(dim=1, descending=True, stable=True)
            positions = ordered.indices[:, :most]  # (B, N), in the flat (anchors * K)
            rows = positions // n_findings  # (B, N)
            best_offsets = level_offsets.gather(1, rows[..., None].expand(-1, -1, 4))  # (B, N, 4)
            corners = decode_anchors(best_offsets.flatten(0, 1), level_anchors[rows.flatten()])
            boxes.append(corners.view(n_images, -1, 4))
            scores.append(ordered.values[:, :most])
            labels.append(positions % n_findings + 1)
        return self.suppress_overlaps(
            torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(labels, dim=1), finite
        )


def image_list(pixels: Tensor) -> ImageList:
    """Wrap pixels, float (B, 3, S, S), in the class that torchvision's detectors read."""
    return ImageList(pixels, [(pixels.shape[2], pixels.shape[3])] * len(pixels))


def decode_anchors(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Compute boxes by moving and scaling anchors by predicted offsets.

    This function replaces that of torchvision, which would send a constant to the GPU at each call.
    The logarithms are limited, so that a box is at most 62.5 times as wide or high as its anchor.

    Anchors and boxes are (N, 4) xyxy, px. Offsets (N, 4) are the shift of the centre along x and y
    as shares of the anchor's width and height, then the logarithms of the factors for width and
    height.

    Example:
        >>> decode_anchors(torch.tensor([[0.5, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0, 8, 8]]))
        tensor([[ 4.,  0., 12.,  8.]])
    """
    sides = anchors[:, 2:] - anchors[:, :2]  # (N, 2)
    centres = offsets[:, :2] * sides + (anchors[:, :2] + 0.5 * sides)  # (N, 2)
    half = 0.5 * (offsets[:, 2:].clamp(max=LARGEST_GROWTH).exp() * sides)  # (N, 2)
    return torch.cat([centres - half, centres + half], dim=1)
