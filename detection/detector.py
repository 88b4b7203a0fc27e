"""What every detector reads and does: losses and boxes in store px from one pass over pixels."""

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

from cxr_compare.data_prep.augment.mosaic import N_TILES, NONE_DROPPED, DroppedBoxes, join_mosaic
from cxr_compare.data_prep.contracts.boxes import EDGES, Boxes
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.predictions import Part
from cxr_compare.data_prep.store.preprocess import Placement
from cxr_compare.detection.backbone import body_stages
from cxr_compare.detection.frames import MIN_SCORE, NMS_IOU, best_boxes, boxes_frames
from cxr_compare.networks.inference import (
    ImageBatch,
    ImageDataset,
    ImageSample,
    StoreModel,
    evaluating,
    require_findings,
)

_MOSAIC = 1  # beside the sample's seed, so that mosaics do not follow the other draws


@dataclass(frozen=True)
class _LesionSample(ImageSample):
    boxes: np.ndarray  # float32 (N, 4) xyxy, store px
    labels: np.ndarray  # int64 (N,), the finding's position in ``findings``, from 1
    dropped: DroppedBoxes = NONE_DROPPED  # what augmentation did with the boxes


@dataclass(frozen=True)
class LesionBatch(ImageBatch):
    """A batch for the detector to learn from."""

    boxes: list[Tensor]  # per image float32 (N, 4) xyxy, store px; N may be 0
    labels: list[Tensor]  # per image int64 (N,), from 1
    dropped: DroppedBoxes = NONE_DROPPED  # what augmentation did with the boxes of all images


@dataclass(eq=False)
class LesionDataset(ImageDataset[_LesionSample]):
    """Images with their lesion boxes; without one they are negatives.

    `known` holds ``image_id, finding, x1, y1, x2, y2``, original px, which `detection.detector`
    checks.
    """

    # Probability that a sample which is asked for with a seed is a mosaic: its own image and three
    # that the seed draws from this set, joined before they are augmented together. It keeps the id
    # of its own image, though a negative one may have boxes then.
    mosaic: float = 0.0

    def __post_init__(self, known: pd.DataFrame) -> None:
        super().__post_init__(known)
        table = known[known["image_id"].isin(self.image_ids)]
        rows = self.image_ids.get_indexer(pd.Index(table["image_id"]))
        order = np.argsort(rows, kind="stable")
        # Sorted by image: flat arrays, which worker processes share.
        self._start = np.searchsorted(rows[order], np.arange(len(self.image_ids) + 1))
        boxes = table[EDGES].to_numpy(np.float64)[order]
        for row in np.unique(rows):
            span = self._span(row)
            boxes[span] = self.store.placement(self.image_ids[row]).to_store(boxes[span])
        self._boxes = boxes.astype(np.float32)
        labels = pd.Index(self.findings).get_indexer(pd.Index(table["finding"]))[order] + 1
        self._labels = labels.astype(np.int64)

    def _span(self, row: int) -> slice:
        return slice(self._start[row], self._start[row + 1])

    def _augmented(self, sample: _LesionSample, seed: int) -> _LesionSample:
        if self.mosaic:
            sample = self._maybe_mosaic(sample, seed)
        if self.augmentation is None:
            return sample
        pixels, boxes, kept, now = self.augmentation.apply(sample.pixels, sample.boxes, seed)
        dropped = sample.dropped.plus(now._replace(given=0))  # they were counted when they came
        return _LesionSample(sample.image_id, pixels, boxes, sample.labels[kept], dropped)

    def _plain(self, row: int, image_id: str) -> _LesionSample:
        pixels, span = self.store.image(image_id), self._span(row)
        boxes, labels = self._boxes[span], self._labels[span]
        return _LesionSample(image_id, pixels, boxes, labels, DroppedBoxes(len(boxes)))

    def _maybe_mosaic(self, own: _LesionSample, seed: int) -> _LesionSample:
        rng = np.random.default_rng([seed, _MOSAIC])
        if rng.random() >= self.mosaic:
            return own
        others = rng.integers(len(self), size=N_TILES - 1)
        parts = [own, *(self[int(row)] for row in others)]
        parts = [parts[at] for at in rng.permutation(N_TILES)]
        joined = join_mosaic(
            [part.pixels for part in parts],
            [part.boxes for part in parts],
            seed=int(rng.integers(2**32)),
        )
        labels = [part.labels[kept] for part, kept in zip(parts, joined.kept, strict=True)]
        return _LesionSample(
            own.image_id, joined.pixels, joined.boxes, np.concatenate(labels), joined.dropped
        )


def collate(samples: Sequence[_LesionSample]) -> LesionBatch:
    """Stack samples of one store size into a batch, which owns its memory."""
    return LesionBatch.of(
        samples,
        [torch.from_numpy(sample.boxes.copy()) for sample in samples],
        [torch.from_numpy(sample.labels.copy()) for sample in samples],
        DroppedBoxes(*(sum(counts) for counts in zip(*(s.dropped for s in samples), strict=True))),
    )


Targets = list[dict[str, Tensor]]
"""Per image ``boxes`` (N, 4) xyxy, store px, and ``labels`` (N,), 1 to K, on its device."""
Detections = list[Boxes | None]
"""Per image its boxes, float32 xyxy, store px, clipped to the image, by falling score, at least
`MIN_SCORE`; labels 1 to K, at most `MAX_PER_FINDING` of each. None where the network's output has a
NaN or an infinity."""
_MOST_AT_ONCE = 100_000  # boxes: beyond, torchvision suppresses group by group, in less memory


class Detector(StoreModel):
    """A detector of lesions; docs/architectures.md says how to write one.

    `run` computes what losses and boxes have in common; the other methods take what it gives.
    `detection.model.build_detector` sets `architecture`, `preprocess` and `n_findings`.
    """

    # Arguments of its builder that were left out, as it chose them.
    resolved: Mapping[str, Any] = MappingProxyType({})
    class_layers: tuple[str, ...] = ()  # parts of the names of layers that know the findings
    coco_without_epsilon = False  # its COCO weights were made with a batch-norm epsilon of 0
    body_place = "backbone.body"  # what weights of other networks go into, below any pyramid

    @property
    def body(self) -> nn.Module:
        """The module at `body_place`."""
        return self.get_submodule(self.body_place)

    @property
    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """What works at strides of 2, 4, 8, 16 and 32 px."""
        return body_stages(self.architecture["arguments"]["backbone"], self.body)

    @abstractmethod
    def run(self, images: Tensor, targets: Targets | None = None) -> Any:
        """One pass over store pixels, uint8 (B, 1, S, S).

        The targets are for networks that read them while they learn, such as a denoising DETR.
        """

    @abstractmethod
    def losses(self, passed: Any, targets: Targets) -> dict[str, Tensor]:
        """Scalars that training sums, each a mean over the images, in float32."""

    @abstractmethod
    def detections(self, passed: Any) -> Detections:
        """The boxes of each image, in float32, without a gradient."""

    def fetch_coco(self) -> dict[str, Tensor]:
        """Torchvision's weights of this detector from COCO; an error where there are none."""
        raise InputError("weights: expected none, imagenet, a file or a run, but got 'coco'")

    def suppressed(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, finite: Tensor
    ) -> Detections:
        """The best boxes of each image and finding, less those that overlap a better one.

        Of float32 boxes (B, N, 4) in store px, their scores and labels (B, N), and whether the
        network's output is finite (B,). The host waits for the candidates, the suppression and the
        results.
        """
        size, n_findings = float(self.preprocess.size), self.n_findings
        images, places = torch.where((scores >= MIN_SCORE) & finite[:, None])
        boxes, scores, labels = (each[images, places] for each in (boxes, scores, labels))
        boxes, groups = boxes.clamp(0.0, size), images * n_findings + labels - 1
        # In float64: groups are moved apart by whole images, which would cost float32 its digits.
        exact = boxes.double(), scores.double()
        if boxes.device.type == "cpu" or len(scores) > _MOST_AT_ONCE:
            kept = batched_nms(*exact, groups, NMS_IOU)
        else:  # what that does, less a constant that it sends
            kept = nms(exact[0] + groups.double()[:, None] * (size + 1.0), exact[1], NMS_IOU)
        rows = torch.cat([boxes, scores[:, None], groups[:, None]], dim=1)[kept.sort().values]
        joined = torch.cat([finite.float(), rows.flatten()]).cpu().numpy()
        known, table = joined[: len(finite)], joined[len(finite) :].reshape(-1, 6)
        owners, positions = np.divmod(table[:, 5].astype(np.int64), n_findings)
        found = Boxes(table[:, :4], table[:, 4], positions + 1)
        return [best_boxes(found[owners == row]) if ok else None for row, ok in enumerate(known)]

    def forward(self, images: Tensor, targets: Targets | None = None) -> Any:
        """Losses in training mode, `Detections` in evaluation mode, as in torchvision."""
        passed = self.run(images, targets)
        if not self.training:
            return self.detections(passed)
        if targets is None:
            raise ValueError("Expected targets in training mode, but got none")
        return self.losses(passed, targets)


def training_losses(model: Detector, batch: LesionBatch) -> dict[str, Tensor]:
    """Losses of a batch by a model in training mode, which training sums and minimises.

    Any number of the images may have no boxes.

    Raises:
        InputError: A box or label is not usable; the image is named.
    """
    return model(batch.images, _checked_targets(batch, model.n_findings))


def validation_losses(model: Detector, batch: LesionBatch) -> tuple[dict[str, Tensor], Detections]:
    """Losses without gradient, and `Detections`, of one validation batch.

    One forward in evaluation mode: batch-norm statistics and the model's mode stay as they are.
    """
    targets = _checked_targets(batch, model.n_findings)
    with evaluating(model), torch.no_grad():
        passed = model.run(batch.images, targets)
        return model.losses(passed, targets), model.detections(passed)


def _checked_targets(batch: LesionBatch, n_findings: int) -> Targets:
    """The boxes of a batch as torchvision wants them: per image ``boxes`` and ``labels``, 1 to K.

    They are checked where they lie, in main memory, and sent to the images in one piece.

    torchvision takes NaN boxes, and learns label 0 as background without a word.

    Raises:
        InputError: A box is not finite, not positive in size or wholly beside the image, or a
            label is outside 1 to K.
    """
    for image_id, boxes, labels in zip(batch.image_ids, batch.boxes, batch.labels, strict=True):
        if boxes.shape != (len(labels), 4):
            raise InputError(
                f"image {image_id!r}: expected boxes of shape ({len(labels)}, 4), "
                f"but got {tuple(boxes.shape)}"
            )
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            if wrong := _wrong(box, label, batch.images.shape[-1], n_findings):
                raise InputError(
                    f"image {image_id!r}: box {box} px with label {label} {wrong}; correct it, or "
                    "leave the image out"
                )
    counts = [len(image) for image in batch.boxes]
    joined = torch.cat(batch.boxes), torch.cat(batch.labels)
    there = (each.to(batch.images.device, non_blocking=True) for each in joined)
    parts = (each.split(counts) for each in there)
    return [{"boxes": own, "labels": names} for own, names in zip(*parts, strict=True)]


def _wrong(box: list[float], label: int, size: int, n_findings: int) -> str | None:
    """What is wrong with a box, or with its label."""
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
    """Find lesions, batch by batch; memory does not grow with the number of images.

    Args:
        model: The detector; moved to ``device``.
        batches: Ids and store pixels, uint8 (B, 1, S, S), of some images at a time.
        findings: Names in label order, K of them.
        placement: How each image lies in the store, by image id.
        images: ``image_id, width, height`` of the originals, px; boxes are clipped to them.
        device: Where to compute.
        precision: ``bf16`` runs backbone and heads under autocast; boxes are decoded in float32.

    Raises:
        InputError: The number of findings is not the model's, or an image has no known size.
    """
    require_findings(findings, model.n_findings, "detector")
    sizes = images.set_index("image_id")
    device = torch.device(device)
    model.to(device)
    with evaluating(model):
        for image_ids, pixels in batches:
            # Entered anew for each batch: a generator must not leave its caller in these modes.
            with (
                torch.inference_mode(),
                torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
            ):
                detections = model(pixels.to(device, non_blocking=True))
            yield boxes_frames(image_ids, detections, findings, placement, sizes)
