"""Images with lesion boxes, from the pixel store to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_prep.augment.mosaic import N_TILES, NONE_DROPPED, DroppedBoxes, join_mosaic
from data_prep.contracts.schemas import EDGES
from data_prep.store.pixel_store import require_images
from networks.inference import stack_pixels

if TYPE_CHECKING:
    from data_prep.augment.augment import Augmentation
    from data_prep.store.pixel_store import PixelSource

_MOSAIC = 1  # beside the sample's seed, so that mosaics do not follow the other draws


class _LesionSample(NamedTuple):
    """One image with its boxes."""

    image_id: str
    pixels: np.ndarray  # uint8 (S, S), store pixels
    boxes: np.ndarray  # float32 (N, 4) xyxy, store px
    labels: np.ndarray  # int64 (N,), the finding's position in ``findings``, from 1
    dropped: DroppedBoxes = NONE_DROPPED  # what augmentation did with the boxes


@dataclass(frozen=True)
class LesionBatch:
    """A batch for the detector; its boxes stay in main memory, where a check of them is free."""

    image_ids: list[str]
    images: Tensor  # uint8 (B, 1, S, S), store pixels; the model normalises
    boxes: list[Tensor]  # per image float32 (N, 4) xyxy, store px; N may be 0
    labels: list[Tensor]  # per image int64 (N,), from 1
    dropped: DroppedBoxes = NONE_DROPPED  # what augmentation did with the boxes of all images

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LesionBatch:
        """The same batch, its images on another device."""
        return replace(self, images=self.images.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> LesionBatch:
        """The same batch, its images in page-locked memory; `DataLoader` calls this."""
        return replace(self, images=self.images.pin_memory())


class LesionDataset(Dataset[_LesionSample]):
    """Images of a pixel store with their lesion boxes, augmented by seed.

    Args:
        store: Letterboxed pixels.
        image_ids: Images of this set, in this order; those without boxes are negatives.
        boxes: ``image_id, finding, x1, y1, x2, y2``, original px; rows of other images are
            left aside. None where only the pixels are wanted. `detection.detector` checks them.
        findings: Names in label order: the first is label 1.
        augmentation: Applied where a sample is asked for with a seed.
        mosaic: Probability that a sample which is asked for with a seed is a mosaic: its own
            image and three that the seed draws from this set, joined before they are augmented
            together. It keeps the id of its own image, though a negative one may have boxes then.

    Raises:
        InputError: An image is not in the store.
    """

    def __init__(
        self,
        store: PixelSource,
        image_ids: Sequence[str] | pd.Index,
        boxes: pd.DataFrame | None,
        findings: Sequence[str],
        augmentation: Augmentation | None = None,
        *,
        mosaic: float = 0.0,
    ) -> None:
        self.store = store
        self.image_ids = pd.Index(image_ids)
        self.findings = tuple(findings)
        self.augmentation = augmentation
        self.mosaic = mosaic
        require_images(store, self.image_ids)
        table = pd.DataFrame(columns=["image_id", "finding", *EDGES]) if boxes is None else boxes
        table = table[table["image_id"].isin(self.image_ids)]
        self._start, self._boxes, self._labels = self._index_boxes(table)

    def _index_boxes(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes in store px sorted by image: flat arrays, which worker processes share."""
        rows = self.image_ids.get_indexer(pd.Index(table["image_id"]))
        order = np.argsort(rows, kind="stable")
        start = np.searchsorted(rows[order], np.arange(len(self.image_ids) + 1))
        boxes = table[EDGES].to_numpy(np.float64)[order]
        for row in np.unique(rows):
            span = slice(start[row], start[row + 1])
            placement = self.store.placement(self.image_ids[row])
            boxes[span] = placement.to_store(boxes[span])
        labels = pd.Index(self.findings).get_indexer(pd.Index(table["finding"]))[order] + 1
        return start, boxes.astype(np.float32), labels.astype(np.int64)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> _LesionSample:
        """One image by its row, or by (row, seed) augmented; equal seeds give equal images."""
        row, seed = key if isinstance(key, tuple) else (key, None)
        sample = self._plain(row)
        if seed is None:
            return sample
        if self.mosaic:
            sample = self._maybe_mosaic(sample, seed)
        if self.augmentation is None:
            return sample
        pixels, boxes, kept, now = self.augmentation.apply(sample.pixels, sample.boxes, seed)
        dropped = sample.dropped.plus(now._replace(given=0))  # they were counted when they came
        return _LesionSample(sample.image_id, pixels, boxes, sample.labels[kept], dropped)

    def _plain(self, row: int) -> _LesionSample:
        image_id = str(self.image_ids[row])
        span = slice(self._start[row], self._start[row + 1])
        boxes = np.asarray(self._boxes[span], np.float32).reshape(-1, 4)
        count = DroppedBoxes(len(boxes))
        return _LesionSample(image_id, self.store.image(image_id), boxes, self._labels[span], count)

    def _maybe_mosaic(self, own: _LesionSample, seed: int) -> _LesionSample:
        rng = np.random.default_rng([seed, _MOSAIC])
        if rng.random() >= self.mosaic:
            return own
        others = rng.integers(len(self), size=N_TILES - 1)
        parts = [own, *(self._plain(int(row)) for row in others)]
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
    return LesionBatch(
        [sample.image_id for sample in samples],
        stack_pixels(samples),
        [torch.from_numpy(sample.boxes.copy()) for sample in samples],
        [torch.from_numpy(sample.labels.copy()) for sample in samples],
        DroppedBoxes(*(sum(counts) for counts in zip(*(s.dropped for s in samples), strict=True))),
    )
