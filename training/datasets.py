"""Images of a pixel store with their labels or boxes, as a training reads them.

A data set yields samples: ``dataset[row]`` is an image as it is stored, ``dataset[row, seed]`` the
image changed at random. The functions `collate_labels` and `collate_lesions` make batches of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cxr_compare.classification.loss import LabelBatch
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.pixel_store import PixelSource, require_images
from cxr_compare.detection.detector import LesionBatch
from cxr_compare.training.mosaic import N_TILES, NONE_DROPPED, DroppedBoxes, join_mosaic

if TYPE_CHECKING:
    from cxr_compare.training.augment import Augmentation

_MOSAIC_STREAM = 1  # beside the sample's seed: mosaics do not follow its other random draws


@dataclass(frozen=True)
class ImageSample:
    """One image of a data set, a square with black borders, uint8 (S, S).

    Subclasses add its labels or boxes.
    """

    image_id: str
    pixels: np.ndarray  # uint8 (S, S), store pixels


_Sample = TypeVar("_Sample", bound=ImageSample)


@dataclass(eq=False)
class ImageDataset(Dataset[_Sample], ABC):
    """Images of a pixel store (a folder of images resized to squares) with their labels or boxes.

    Each subclass defines the kind of annotation. ``dataset[row]`` is the image of a row as it is
    stored, and ``dataset[row, seed]`` is the image changed at random by `augmentation`.

    `annotations` is a table of the labels or boxes, which may also have those of other images; each
    subclass says which columns it has. `findings` are in the order of the model's outputs. Raises
    InputError if the store lacks an image.
    """

    store: PixelSource
    image_ids: pd.Index  # images of this set, in this order
    annotations: InitVar[pd.DataFrame]  # labels or boxes, maybe also of other images
    findings: Sequence[str]  # findings to learn, in the order of the model's outputs
    augmentation: Augmentation | None = None  # applied to samples that are read with a seed

    def __post_init__(self, annotations: pd.DataFrame) -> None:
        self.image_ids = pd.Index(self.image_ids)
        require_images(self.store, self.image_ids)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> _Sample:
        """Return an image by its row, or by (row, seed) augmented; a seed fixes the image."""
        row, seed = key if isinstance(key, tuple) else (key, None)
        sample = self._plain_sample(row, str(self.image_ids[row]))
        return sample if seed is None else self._augmented_sample(sample, seed)

    @abstractmethod
    def _plain_sample(self, row: int, image_id: str) -> _Sample: ...

    @abstractmethod
    def _augmented_sample(self, sample: _Sample, seed: int) -> _Sample: ...


def _stacked(samples: Sequence[ImageSample]) -> Tensor:
    """Copy the pixels of B samples of one size into one tensor, uint8 (B, 1, S, S)."""
    return torch.from_numpy(np.stack([sample.pixels for sample in samples])).unsqueeze(1)


@dataclass(frozen=True)
class _LabelSample(ImageSample):
    targets: np.ndarray  # float32 (K,): 1 present, 0 absent, NaN unknown


class ImageLabelDataset(ImageDataset[_LabelSample]):
    """Images with their labels for each finding (disease sign), from which a classifier learns.

    The table `annotations` has the index ``image_id`` and a column for each finding, with 1 for
    present, 0 for absent and NaN for unknown. The labels of an image without a row are unknown.

    Raises InputError if the pixel store lacks an image, a finding has no column, or a label is not
    1, 0 or NaN.
    """

    def __post_init__(self, annotations: pd.DataFrame) -> None:
        super().__post_init__(annotations)
        columns = annotations.columns
        missing = [finding for finding in self.findings if finding not in columns]
        if missing:
            raise InputError(
                f"labels: no column {missing[0]!r}, only {', '.join(map(str, columns))}"
            )
        table = annotations[list(self.findings)].reindex(self.image_ids).astype(np.float32)
        self.targets = table.to_numpy()  # (N, K)
        bad = ~(np.isnan(self.targets) | (self.targets == 0) | (self.targets == 1))
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"labels: image {self.image_ids[row]!r} has "
                f"{self.findings[column]}={self.targets[row, column]:g}; expected 1, 0 or nothing"
            )

    def _plain_sample(self, row: int, image_id: str) -> _LabelSample:
        return _LabelSample(image_id, self.store.image(image_id), self.targets[row])

    def _augmented_sample(self, sample: _LabelSample, seed: int) -> _LabelSample:
        if self.augmentation is None:
            return sample
        return replace(sample, pixels=self.augmentation.apply(sample.pixels, None, seed).pixels)


def collate_labels(samples: Sequence[_LabelSample]) -> LabelBatch:
    """Copy B images of one size, S x S px, with their labels into a batch."""
    targets = torch.from_numpy(np.stack([sample.targets for sample in samples]))  # (B, K)
    return LabelBatch([sample.image_id for sample in samples], _stacked(samples), targets)


@dataclass(frozen=True)
class _LesionSample(ImageSample):
    boxes: np.ndarray  # float32 (N, 4) xyxy, store px
    labels: np.ndarray  # int64 (N,), position of the finding in ``findings``, from 1
    dropped: DroppedBoxes = NONE_DROPPED  # numbers of boxes that augmentation dropped


@dataclass(frozen=True)
class AugmentedLesionBatch(LesionBatch):
    """A batch of images with lesion boxes, and the sums of the boxes that augmentation removed."""

    dropped: DroppedBoxes = NONE_DROPPED


@dataclass(eq=False)
class LesionDataset(ImageDataset[_LesionSample]):
    """Images with their lesion boxes. An image without a box shows no lesion.

    The table `annotations` has one row for each box, with the columns ``image_id, finding, x1, y1,
    x2, y2``; the edges are in px of the original image.

    Attributes:
        mosaic: Probability, in [0, 1], that a training sample is a mosaic of its own image and
            three others, which are drawn at random. The images are joined before they are augmented
            together. The sample keeps the id of its own image, although it may then have boxes of
            the other images.
    """

    mosaic: float = 0.0

    def __post_init__(self, annotations: pd.DataFrame) -> None:
        super().__post_init__(annotations)
        table = annotations[annotations["image_id"].isin(self.image_ids)]
        rows = self.image_ids.get_indexer(pd.Index(table["image_id"]))
        order = np.argsort(rows, kind="stable")
        # Sorted by image: flat arrays, which worker processes share.
        self._start = np.searchsorted(rows[order], np.arange(len(self.image_ids) + 1))
        boxes = table[EDGES].to_numpy(np.float64)[order]  # (N, 4) xyxy, original px
        for row in np.unique(rows):
            box_rows = self._box_rows(row)
            placement = self.store.placement(self.image_ids[row])
            boxes[box_rows] = placement.to_store(boxes[box_rows])
        self._boxes = boxes.astype(np.float32)  # (N, 4) xyxy, store px
        labels = pd.Index(self.findings).get_indexer(pd.Index(table["finding"]))[order] + 1
        self._labels = labels.astype(np.int64)  # (N,)

    def _box_rows(self, row: int) -> slice:
        return slice(self._start[row], self._start[row + 1])

    def _augmented_sample(self, sample: _LesionSample, seed: int) -> _LesionSample:
        if self.mosaic:
            sample = self._maybe_mosaic(sample, seed)
        if self.augmentation is None:
            return sample
        pixels, boxes, kept, dropped = self.augmentation.apply(sample.pixels, sample.boxes, seed)
        # The boxes were counted when the sample was read.
        all_dropped = sample.dropped.plus(dropped._replace(n_boxes=0))
        return _LesionSample(sample.image_id, pixels, boxes, sample.labels[kept], all_dropped)

    def _plain_sample(self, row: int, image_id: str) -> _LesionSample:
        box_rows = self._box_rows(row)
        boxes = self._boxes[box_rows]
        return _LesionSample(
            image_id,
            self.store.image(image_id),
            boxes,
            self._labels[box_rows],
            DroppedBoxes(len(boxes)),
        )

    def _maybe_mosaic(self, sample: _LesionSample, seed: int) -> _LesionSample:
        rng = np.random.default_rng([seed, _MOSAIC_STREAM])
        if rng.random() >= self.mosaic:
            return sample
        others = rng.integers(len(self), size=N_TILES - 1)
        tiles = [sample, *(self[int(row)] for row in others)]
        tiles = [tiles[position] for position in rng.permutation(N_TILES)]
        joined = join_mosaic(
            [tile.pixels for tile in tiles],
            [tile.boxes for tile in tiles],
            seed=int(rng.integers(2**32)),
        )
        labels = [tile.labels[kept] for tile, kept in zip(tiles, joined.kept, strict=True)]
        return _LesionSample(
            sample.image_id, joined.pixels, joined.boxes, np.concatenate(labels), joined.dropped
        )


def collate_lesions(samples: Sequence[_LesionSample]) -> AugmentedLesionBatch:
    """Copy B images of one size, S x S px, with their boxes into a batch."""
    dropped = zip(*(sample.dropped for sample in samples), strict=True)
    return AugmentedLesionBatch(
        [sample.image_id for sample in samples],
        _stacked(samples),
        [torch.from_numpy(sample.boxes.copy()) for sample in samples],
        [torch.from_numpy(sample.labels.copy()) for sample in samples],
        DroppedBoxes(*(sum(counts) for counts in dropped)),
    )
