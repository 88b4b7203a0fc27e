"""Base class of every detector, the batch that it learns from, and its losses."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, nms

from cxr_compare.configs.model_settings import BackboneDetectorSettings, DetectorModelSettings
from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.prediction_writer import Part
from cxr_compare.detection.backbone import body_stages
from cxr_compare.detection.frames import MIN_SCORE, NMS_IOU, best_boxes, boxes_frames
from cxr_compare.networks.store_model import (
    ImageBatch,
    StoreModel,
    evaluation_mode,
    require_findings,
)


@dataclass(frozen=True)
class LesionBatch(ImageBatch):
    """A batch of images with lesion boxes, from which a detector learns.

    Each image has N boxes, float32 (N, 4) xyxy in px of the images of the batch, with the number of
    the finding of each, from 1, int64 (N,).
    """

    boxes: list[Tensor]
    labels: list[Tensor]


Targets = list[dict[str, Tensor]]
"""Per image ``boxes`` (N, 4) xyxy, store px, and ``labels`` (N,), 1 to K, on the model's device."""
Detections = list[Boxes | None]
"""Per image its boxes, float32 xyxy, store px, clipped to the image, by falling score, at least
`MIN_SCORE`; labels 1 to K, at most `MAX_PER_FINDING` of each. None if the network's output has a
NaN or an infinity."""
_MOST_AT_ONCE = 100_000  # boxes: beyond, torchvision suppresses group by group, in less memory


class Detector(StoreModel):
    """Base class of a detector of lesions; a class of the user may extend it.

    The method `run` computes the output that losses and boxes share, and the methods `losses` and
    `detections` take this output. `detection.model.build_detector` sets `architecture`,
    `preprocess` and `n_findings`. A finding is a disease sign, such as a mass; the numbers of
    findings are 1 to K.

    Attributes:
        Settings: Keys of the class in the section ``[model]``; a subclass inherits them.
        resolved: Values that were chosen for arguments of the constructor that the caller left out,
            by name of the argument, such as ``anchor_sizes``.
        class_layers: Parts of the names of those layers whose size depends on the number of
            findings, such as ``cls_logits``.
        coco_without_epsilon: True if the published COCO weights of this detector have batch norms
            with an epsilon of 0.
        body_path: Name of the module that is the backbone, without any feature pyramid. It can
            receive weights of other networks.
    """

    Settings: type[DetectorModelSettings] = BackboneDetectorSettings
    resolved: Mapping[str, Any] = MappingProxyType({})
    class_layers: tuple[str, ...] = ()
    coco_without_epsilon = False  # True if its COCO weights have a batch-norm epsilon of 0
    body_path = "backbone.body"  # module below any pyramid, into which other weights are loaded

    @property
    def body(self) -> nn.Module:
        """Backbone without the feature pyramid: the module that `body_path` names."""
        return self.get_submodule(self.body_path)

    @property
    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """Layers of the backbone in stages with strides of 2, 4, 8, 16 and 32 px."""
        return body_stages(self.architecture["arguments"]["backbone"], self.body)

    @abstractmethod
    def run(self, images: Tensor, targets: Targets | None = None) -> Any:
        """Run the network once over images.

        Args:
            images: B square grey images of S x S px (resized, with black borders), uint8 (B, 1, S,
                S).
            targets: True boxes and labels of each image, as `build_targets` returns them, for
                networks that read them in training, such as a denoising DETR; None without true
                boxes.

        Returns:
            The output, in any form that `losses` and `detections` of the class accept.
        """

    @abstractmethod
    def losses(self, passed: Any, targets: Targets) -> dict[str, Tensor]:
        """Compute the losses by name: float32 scalars, each the mean over the images of the batch.

        Training minimises their sum.

        Args:
            passed: Output of the method `run` for the same images.
            targets: True boxes and labels of each image, as `build_targets` returns them.

        Returns:
            The losses by name, such as ``classification``.
        """

    @abstractmethod
    def detections(self, passed: Any) -> Detections:
        """Compute the boxes of each image in float32, without a gradient.

        Args:
            passed: Output of the method `run` for the images.

        Returns:
            For each image its boxes (xyxy in px of the square images, with scores and numbers of
            findings) by falling score, at most 100 of each finding; None for an image whose output
            has a NaN or an infinity.
        """

    def fetch_coco(self) -> dict[str, Tensor]:
        """Read torchvision's COCO weights of this detector, which may have to be downloaded.

        Tensors have torchvision's names. Raises InputError if this detector has no such weights.
        """
        raise InputError("weights: expected none, imagenet, a file or a run, but got 'coco'")

    def suppress_overlaps(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, finite: Tensor
    ) -> Detections:
        """Keep the best boxes of each image and finding, without those that overlap a better one.

        A box is left out if its score is below 0.001, or if its IoU with a better box of the same
        finding is above 0.6. On a GPU the program waits three times: for the candidates, the
        suppression and the results.

        Args:
            boxes: N candidate boxes of each of B images, float32 (B, N, 4) xyxy in px of the square
                images. They are clipped to the image.
            scores: Scores in [0, 1], float32 (B, N).
            labels: Numbers of the findings, 1 to K, int64 (B, N).
            finite: False for an image whose output is not finite, bool (B,).

        Returns:
            For each image the boxes that remain, by falling score, at most 100 of each finding;
            None for an image whose output is not finite.
        """
        size = float(self.preprocess.size)
        n_findings = self.n_findings
        images, positions = torch.where((scores >= MIN_SCORE) & finite[:, None])
        scores = scores[images, positions]  # (M,)
        boxes = boxes[images, positions].clamp(0.0, size)  # (M, 4)
        groups = images * n_findings + labels[images, positions] - 1  # (M,), image and finding
        # In float64: groups are moved apart by whole images, which would cost float32 its digits.
        exact_boxes = boxes.double()
        exact_scores = scores.double()
        if boxes.device.type == "cpu" or len(scores) > _MOST_AT_ONCE:
            kept = batched_nms(exact_boxes, exact_scores, groups, NMS_IOU)
        else:  # the same as batched_nms, without a constant that it sends to the device
            shifted = exact_boxes + groups.double()[:, None] * (size + 1.0)
            kept = nms(shifted, exact_scores, NMS_IOU)
        rows = torch.cat([boxes, scores[:, None], groups[:, None]], dim=1)[kept.sort().values]
        joined = torch.cat([finite.float(), rows.flatten()]).cpu().numpy()
        is_finite = joined[: len(finite)]
        table = joined[len(finite) :].reshape(-1, 6)  # x1, y1, x2, y2, score, group
        image_rows, finding_rows = np.divmod(table[:, 5].astype(np.int64), n_findings)
        suppressed = Boxes(table[:, :4], table[:, 4], finding_rows + 1)
        return [
            best_boxes(suppressed[image_rows == row]) if ok else None
            for row, ok in enumerate(is_finite)
        ]

    def forward(self, images: Tensor, targets: Targets | None = None) -> Any:
        """Return losses in training mode and `Detections` in evaluation mode, as torchvision does.

        Images are square and grey, S x S px, uint8 ``(B, 1, S, S)``. `targets` are those of
        `build_targets`; ValueError is raised without them in training mode.
        """
        passed = self.run(images, targets)
        if not self.training:
            return self.detections(passed)
        if targets is None:
            raise ValueError("Expected targets in training mode, but got none")
        return self.losses(passed, targets)


def training_losses(model: Detector, batch: LesionBatch) -> dict[str, Tensor]:
    """Compute the losses of a training batch. Training minimises their sum.

    Any number of the images may have no boxes.

    Raises InputError as `build_targets` does.
    """
    return model(batch.images, build_targets(batch, model.n_findings))


def validation_losses(model: Detector, batch: LesionBatch) -> tuple[dict[str, Tensor], Detections]:
    """Compute the losses of a validation batch, without gradient, and its detections.

    The model runs once in evaluation mode, so batch-norm statistics and the mode of the model do
    not change.

    Boxes are in px of the resized square image; None for an image whose output is not finite.
    Raises InputError as `build_targets` does.
    """
    targets = build_targets(batch, model.n_findings)
    with evaluation_mode(model), torch.no_grad():
        passed = model.run(batch.images, targets)
        return model.losses(passed, targets), model.detections(passed)


def build_targets(batch: LesionBatch, n_findings: int) -> Targets:
    """Check the true boxes of a batch, and return them in the form that torchvision reads.

    The check is needed because torchvision accepts boxes with NaN, and learns label 0 as
    background, without an error. The boxes are checked in main memory and then sent to the device
    of the images at once.

    Each image has ``boxes``, float32 (N, 4) xyxy in px of the resized square image, and ``labels``,
    int64 (N,), the numbers of the findings from 1 to K. Raises InputError, which names the image,
    if a box is not finite, has no area or lies wholly outside the image, a label is outside 1 to K,
    or there are not as many boxes as labels.
    """
    for image_id, boxes, labels in zip(batch.image_ids, batch.boxes, batch.labels, strict=True):
        if boxes.shape != (len(labels), 4):
            raise InputError(
                f"image {image_id!r}: expected boxes of shape ({len(labels)}, 4), "
                f"but got {tuple(boxes.shape)}"
            )
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            problem = _box_problem(box, label, batch.images.shape[-1], n_findings)
            if problem:
                raise InputError(
                    f"image {image_id!r}: box {box} px with label {label} {problem}; correct it, "
                    "or leave the image out"
                )
    counts = [len(boxes) for boxes in batch.boxes]
    device = batch.images.device
    all_boxes = torch.cat(batch.boxes).to(device, non_blocking=True)
    all_labels = torch.cat(batch.labels).to(device, non_blocking=True)
    return [
        {"boxes": boxes, "labels": labels}
        for boxes, labels in zip(all_boxes.split(counts), all_labels.split(counts), strict=True)
    ]


def _box_problem(box: list[float], label: int, size: int, n_findings: int) -> str | None:
    """Return the rule that a box or its label violates."""
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)):
        return "is not finite"
    if x1 >= x2 or y1 >= y2:
        return "needs x1 < x2 and y1 < y2"
    if max(x1, y1) >= size or min(x2, y2) <= 0:
        return f"lies outside the image of {size} px"
    if not 1 <= label <= n_findings:
        return f"is not a finding of this model, which knows 1 to {n_findings} (0 is background)"
    return None


def predict_boxes(
    model: Detector,
    batches: Iterable[tuple[Sequence[str], Tensor]],
    findings: Sequence[str],
    *,
    placement: Callable[[str], Placement],
    images: pd.DataFrame,
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Iterator[Part]:
    """Detect lesions in images, batch by batch.

    Memory does not grow with the number of images.

    `batches` are ids and square grey pixels, uint8 (B, 1, S, S). `findings` are in the order of
    their numbers. `placement` gives the position of an original image in its resized square, and
    `images` its size, with columns ``image_id, width, height`` in px, to which boxes are clipped.
    The model moves to the device; ``bf16`` computes backbone and heads in bfloat16 (autocast), and
    boxes are always decoded in float32. A `Part` is that of `detection.frames.boxes_frames`. Raises
    InputError if `findings` does not fit the model, or the size of an image is unknown.
    """
    require_findings(findings, model.n_findings, "detector")
    sizes = images.set_index("image_id")
    device = torch.device(device)
    model.to(device)
    with evaluation_mode(model):
        for image_ids, pixels in batches:
            # Entered anew for each batch: a generator must not leave its caller in these modes.
            with (
                torch.inference_mode(),
                torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
            ):
                detections = model(pixels.to(device, non_blocking=True))
            yield boxes_frames(image_ids, detections, findings, placement, sizes)
