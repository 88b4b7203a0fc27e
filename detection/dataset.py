"""Images with lesion boxes, from the pixel store to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_prep.augment.mosaic import N_TILES, NONE_DROPPED, DroppedBoxes, join_mosaic
from data_prep.contracts.schemas import EDGES
from networks.inference import ImageBatch, ImageDataset, ImageSample

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
