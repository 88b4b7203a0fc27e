"""Images of a pixel store in the forms that a model reads: sample, batch and data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cxr_compare.data_prep.store.pixel_store import require_images

if TYPE_CHECKING:
    from cxr_compare.data_prep.augment.augment import Augmentation
    from cxr_compare.data_prep.store.pixel_store import PixelSource


@dataclass(frozen=True)
class ImageSample:
    """One image of a data set. Subclasses add its labels or boxes.

    Attributes:
        image_id: Id of the image.
        pixels: The image resized to a square with black borders, uint8 (S, S).
    """

    image_id: str
    pixels: np.ndarray  # uint8 (S, S), store pixels


@dataclass(frozen=True)
class ImageBatch:
    """A batch of images for a model. Subclasses add labels or boxes, which stay in main memory.

    Attributes:
        image_ids: Ids of the B images.
        images: Images resized to squares with black borders, uint8 (B, 1, S, S). The model
            normalises them.
    """

    image_ids: list[str]
    images: Tensor  # uint8 (B, 1, S, S), store pixels; the model normalises

    @classmethod
    def from_samples(cls, samples: Sequence[ImageSample], *targets: Any) -> Self:
        """Stack images of one size into a batch, whose memory is a copy.

        Args:
            samples: Images of the same size.
            targets: Values of the further fields of a subclass, such as labels, in the order of the
                fields.

        Example:
            >>> sample = ImageSample("a", np.zeros((8, 8), np.uint8))
            >>> ImageBatch.from_samples([sample, sample]).images.shape
            torch.Size([2, 1, 8, 8])
        """
        pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples]))  # (B, S, S)
        return cls([sample.image_id for sample in samples], pixels.unsqueeze(1), *targets)

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the same batch with its images on another device; other fields do not move.

        Args:
            device: Device, such as ``cuda``.
            non_blocking: True to copy from page-locked memory while the program continues.

        Returns:
            The batch.
        """
        return replace(self, images=self.images.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the same batch in page-locked memory; `DataLoader` calls this method."""
        return replace(self, images=self.images.pin_memory())


_Sample = TypeVar("_Sample", bound=ImageSample)


@dataclass(eq=False)
class ImageDataset(Dataset[_Sample], ABC):
    """Images of a pixel store (folder of resized images) with their labels or boxes.

    Each subclass defines the kind of annotation.

    Attributes:
        store: Object whose method `image` returns the pixels of an image id.
        image_ids: Ids of the images, in the order of the rows.
        annotations: Table of the labels or boxes; each subclass says which columns it has.
        findings: Findings in the order of the model's outputs.
        augmentation: Random change of each training image; None changes nothing.

    Raises:
        InputError: The store lacks an image.
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
