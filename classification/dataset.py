"""Images with labels: the data set that yields samples, and the batch of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.networks.images import ImageBatch, ImageDataset, ImageSample


@dataclass(frozen=True)
class _LabelSample(ImageSample):
    targets: np.ndarray  # float32 (K,): 1 present, 0 absent, NaN unknown


@dataclass(frozen=True)
class LabelBatch(ImageBatch):
    """A batch of images with labels, from which a classifier learns.

    Attributes:
        targets: Labels of the B images for K findings (disease signs), float32 (B, K): 1 present, 0
            absent, NaN unknown.
    """

    targets: Tensor  # float32 (B, K): 1 present, 0 absent, NaN unknown


class ImageLabelDataset(ImageDataset[_LabelSample]):
    """Images with their labels for each finding (disease sign), from which a classifier learns.

    The table `annotations` has the index ``image_id`` and a column for each finding, with 1 for
    present, 0 for absent and NaN for unknown. The labels of an image without a row are unknown.

    Raises:
        InputError: The pixel store lacks an image, a finding has no column, or a label is not 1, 0
            or NaN.
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


def collate(samples: Sequence[_LabelSample]) -> LabelBatch:
    """Stack images with their labels into a batch, whose memory is a copy.

    Args:
        samples: B samples of an `ImageLabelDataset`, whose images have the same size, S x S px.

    Returns:
        The batch, with images uint8 (B, 1, S, S) and labels of K findings, float32 (B, K).
    """
    targets = torch.from_numpy(np.stack([sample.targets for sample in samples]))  # (B, K)
    return LabelBatch.from_samples(samples, targets)
