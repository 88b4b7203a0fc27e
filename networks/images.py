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
        image_ids: Ids of the B images of the batch.
        images: Images resized to squares with black borders, uint8 (B, 1, S, S). The model
            normalises them.
    """

    image_ids: list[str]
    images: Tensor  # uint8 (B, 1, S, S), store pixels; the model normalises

    @classmethod
    def from_samples(cls, samples: Sequence[ImageSample], *targets: Any) -> Self:
        """Stack images of one size into a batch, whose memory is a copy.

        Args:
            samples: B images of the same size, S x S px.
            *targets: Values of the fields that a subclass adds, such as labels, in the order of
                these fields.

        Returns:
            The batch, with images uint8 (B, 1, S, S).

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
        """Return the same batch with its images on another device; labels and boxes do not move.

        Args:
            device: Device, such as ``cuda``.
            non_blocking: True to let the program continue while images are copied from page-locked
                memory; False to wait for the copy.

        Returns:
            A new batch.
        """
        return replace(self, images=self.images.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the same batch with its images in page-locked memory.

        A GPU copies from this memory faster. `DataLoader` calls this method. Labels and boxes do
        not move.

        Returns:
            A new batch.
        """
        return replace(self, images=self.images.pin_memory())


_Sample = TypeVar("_Sample", bound=ImageSample)


@dataclass(eq=False)
class ImageDataset(Dataset[_Sample], ABC):
    """Images of a pixel store (a folder of images resized to squares) with their labels or boxes.

    Each subclass defines the kind of annotation. ``dataset[row]`` is the image of a row as it is
    stored, and ``dataset[row, seed]`` is the image changed at random by `augmentation`.

    Attributes:
        store: Object whose method `image` returns the pixels of an image id.
        image_ids: Ids of the images, in the order of the rows.
        annotations: Table of the labels or boxes, which may also have those of other images; each
            subclass says which columns it has.
        findings: Names of the findings (disease signs) to learn, such as ``mass``, in the order of
            the model's outputs.
        augmentation: Random change of each image that is read with a seed; None changes nothing.

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
