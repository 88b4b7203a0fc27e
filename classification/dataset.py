"""Images with labels, from the pixel store to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_prep.contracts.errors import InputError
from data_prep.store.pixel_store import require_images
from networks.inference import stack_pixels

if TYPE_CHECKING:
    from data_prep.augment.augment import Augmentation
    from data_prep.store.pixel_store import PixelSource


class _LabelSample(NamedTuple):
    """One image with its targets."""

    image_id: str
    pixels: np.ndarray  # uint8 (S, S), store pixels
    targets: np.ndarray  # float32 (K,): 1 present, 0 absent, NaN unknown


@dataclass(frozen=True)
class LabelBatch:
    """A batch for the classifier; its targets stay in main memory, where to count them is free."""

    image_ids: list[str]
    images: Tensor  # uint8 (B, 1, S, S), store pixels; the model normalises
    targets: Tensor  # float32 (B, K): 1 present, 0 absent, NaN unknown

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LabelBatch:
        """The same batch, its images on another device."""
        return replace(self, images=self.images.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> LabelBatch:
        """The same batch, its images in page-locked memory; `DataLoader` calls this."""
        return replace(self, images=self.images.pin_memory())


class ImageLabelDataset(Dataset[_LabelSample]):
    """Images of a pixel store with their labels, augmented by seed.

    Args:
        store: Letterboxed pixels.
        image_ids: Images of this set, in this order.
        labels: Index ``image_id``, one column a finding: 1 present, 0 absent, NaN unknown. Images
            that it lacks are unknown; rows of other images are left aside. None where only the
            pixels are wanted.
        findings: The columns to learn, in the order of the model's outputs.
        augmentation: Applied where a sample is asked for with a seed.
    """

    def __init__(
        self,
        store: PixelSource,
        image_ids: Sequence[str] | pd.Index,
        labels: pd.DataFrame | None,
        findings: Sequence[str],
        augmentation: Augmentation | None = None,
    ) -> None:
        self.store = store
        self.image_ids = pd.Index(image_ids)
        self.findings = tuple(findings)
        self.augmentation = augmentation
        require_images(store, self.image_ids)
        self.targets = _targets(labels, self.image_ids, self.findings)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> _LabelSample:
        """One image by its row, or by (row, seed) augmented; equal seeds give equal images."""
        row, seed = key if isinstance(key, tuple) else (key, None)
        image_id = str(self.image_ids[row])
        pixels = self.store.image(image_id)
        if self.augmentation is not None and seed is not None:
            pixels = self.augmentation.apply(pixels, None, seed).pixels
        return _LabelSample(image_id, pixels, self.targets[row])


def _targets(
    labels: pd.DataFrame | None, image_ids: pd.Index, findings: tuple[str, ...]
) -> np.ndarray:
    """The labels as float32 (N, K), in the order of the images and findings."""
    if labels is None:
        return np.full((len(image_ids), len(findings)), np.nan, np.float32)
    missing = [finding for finding in findings if finding not in labels.columns]
    if missing:
        raise InputError(
            f"labels: no column {missing[0]!r}, only {', '.join(map(str, labels.columns))}"
        )
    table = labels[list(findings)].reindex(image_ids).astype(np.float32)
    values = table.to_numpy()
    bad = ~(np.isnan(values) | (values == 0) | (values == 1))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"labels: image {image_ids[row]!r} has {findings[column]}={values[row, column]:g}; "
            "expected 1, 0 or nothing"
        )
    return values


def collate(samples: Sequence[_LabelSample]) -> LabelBatch:
    """Stack samples of one store size into a batch, which owns its memory."""
    return LabelBatch(
        [sample.image_id for sample in samples],
        stack_pixels(samples),
        torch.from_numpy(np.stack([sample.targets for sample in samples])),
    )
