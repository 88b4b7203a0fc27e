"""Images of a training: which, in which order, and as batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError, first_line
from cxr_compare.data_prep.base.provenance import cpu_count
from cxr_compare.data_prep.parallel import Progress
from cxr_compare.data_prep.pixels import PixelStore
from cxr_compare.data_prep.processes import begin_worker, worker_context
from cxr_compare.training.augment import (
    Augmented,
    augment,
    build_augmentation,
    own_augmentation,
)
from cxr_compare.training.request import Request, require_step

_MOST_WORKERS = 8


@dataclass(frozen=True)
class Batch:
    """Images ``(B, 1, S, S)`` with their labels, or with the boxes of each.

    Attributes:
        truth: Labels ``(B, K)``, 1 present, 0 absent, NaN unknown; or the boxes of all images as
            rows ``(N, 5)`` of x1, y1, x2, y2 in px of the square, and finding from 1. It stays in
            the memory of the processor.
        n_boxes: Number of boxes of each image, for a detector.
        on_device: `truth` on the device of the network; None where that is the processor.
    """

    image_ids: list[str]
    images: Tensor
    truth: Tensor
    n_boxes: list[int] | None = None
    on_device: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def targets(self) -> Any:
        """Labels ``(B, K)``; or for each image ``boxes`` (N, 4) xyxy in px and ``labels`` (N,)."""
        truth = self.truth if self.on_device is None else self.on_device
        if self.n_boxes is None:
            return truth
        boxes, labels = truth[:, :4].split(self.n_boxes), truth[:, 4].long().split(self.n_boxes)
        return [{"boxes": b, "labels": n} for b, n in zip(boxes, labels, strict=True)]

    def to(self, device: torch.device) -> Self:
        """Copy images and truth to a device, one copy each."""
        images, truth = (x.to(device, non_blocking=True) for x in (self.images, self.truth))
        return replace(self, images=images, on_device=truth)

    def pin_memory(self) -> Self:
        """Move pixels and truth to memory from which a GPU copies them without a wait."""
        return replace(self, images=self.images.pin_memory(), truth=self.truth.pin_memory())


Sample = tuple[str, np.ndarray, Tensor]


class ChestImages(Dataset[Sample]):
    """Images of a pixel store with labels or boxes; ``(row, seed)`` is one changed at random."""

    def __init__(
        self,
        store: PixelStore,
        image_ids: pd.Index,
        annotations: pd.DataFrame,
        findings: Sequence[str],
        augmentation: Any = None,
    ) -> None:
        self.store = store
        self.image_ids = image_ids
        self.augmentation = augmentation
        self.has_boxes = "image_id" in annotations
        if not self.has_boxes:
            labels = annotations[list(findings)].reindex(image_ids)
            self.targets = labels.to_numpy(np.float32, copy=True)
            return
        table = annotations[annotations["image_id"].isin(image_ids)]
        rows = image_ids.get_indexer(pd.Index(table["image_id"]))
        order = np.argsort(rows, kind="stable")
        # Sorted by image: flat arrays, which processes that load share.
        self._start = np.searchsorted(rows[order], np.arange(len(image_ids) + 1))
        self._boxes = table[EDGES].to_numpy(np.float64)[order]
        for row in np.unique(rows):
            rows_of_image = slice(self._start[row], self._start[row + 1])
            self._boxes[rows_of_image] = store.placement(image_ids[row]).to_store(
                self._boxes[rows_of_image]
            )
        names = pd.Index(table["finding"])
        self._labels = (pd.Index(list(findings)).get_indexer(names)[order] + 1).astype(np.int64)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return id, pixels ``(S, S)``, and labels or boxes; an error names the image."""
        row, seed = key if isinstance(key, tuple) else (key, None)
        name = str(self.image_ids[row])
        image = self._image(row)
        if seed is not None and self.augmentation is not None:
            try:
                image = augment(self.augmentation, image, seed)
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"augmentation: fails on image {name} ({first_line(error)})"
                ) from error
        if not self.has_boxes:
            return name, image.pixels, torch.from_numpy(self.targets[row])
        rows = np.column_stack([image.boxes, self._labels[image.rows]]).astype(np.float32)
        return name, image.pixels, torch.from_numpy(rows)

    def _image(self, row: int) -> Augmented:
        pixels = self.store.image(str(self.image_ids[row]))
        if not self.has_boxes:
            return Augmented(pixels, np.empty((0, 4)), np.empty(0, np.int64))
        rows = np.arange(*self._start[row : row + 2])
        return Augmented(pixels, self._boxes[rows], rows)


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples of one size into a batch."""
    ids, pixels, truth = zip(*samples, strict=True)
    images = torch.from_numpy(np.stack(pixels)).unsqueeze(1)
    if truth[0].ndim == 1:  # labels (K,), and no boxes (N, 5)
        return Batch(list(ids), images, torch.stack(truth))
    return Batch(list(ids), images, torch.cat(truth), [len(boxes) for boxes in truth])


class EpochSampler(Sampler[tuple[int, int]]):
    """Rows of whole optimiser steps, each with a seed for the random changes of its image.

    A batch depends on seed, epoch and rows alone, not on the number of processes. `weights` are
    for draws with replacement; None draws each image once. Rows that fill no step wait.
    """

    def __init__(
        self,
        n_rows: int,
        seed: int,
        step: int,
        weights: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        require_step(n_rows, step)
        self._n_rows = n_rows
        self._seed = seed
        self._probabilities = None if weights is None else weights / weights.sum()
        self._length = n_rows // step * step
        self._rank, self._world_size = rank, world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that is drawn next; Lightning calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length // self._world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        draw = np.random.default_rng([self._seed, self._epoch])
        if self._probabilities is None:
            rows = draw.permutation(self._n_rows)
        else:
            rows = draw.choice(self._n_rows, size=self._n_rows, p=self._probabilities)
        seeds = draw.integers(2**63, size=self._n_rows)
        for position in range(self._rank, self._length, self._world_size):
            yield int(rows[position]), int(seeds[position])


def balancing_weights(positive: np.ndarray, share: float) -> np.ndarray:
    """Compute draw weights with which positive images make up a share of the draws.

    Examples:
        >>> balancing_weights(np.array([True, False, False]), 0.5).tolist()
        [0.5, 0.25, 0.25]
    """
    n_positive = int(positive.sum())
    return np.where(positive, share / n_positive, (1 - share) / (len(positive) - n_positive))


class _LazyLoader(DataLoader[Any]):
    """A loader that draws nothing before its first batch is asked for.

    Lightning makes an iterator before it says which epoch is resumed.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except InputError as error:  # of another process: torch puts its traceback before it
            last = str(error).strip().splitlines()[-1]
            raise InputError(last.rpartition("InputError: ")[2]) from None


class ImageData(LightningDataModule):
    """Training and validation images of a configuration.

    Attributes:
        request: Configuration, data set, and the images of both roles with labels or boxes.
        changes: Pipeline of random changes of training images; None without any.
    """

    def __init__(self, request: Request, progress: Progress, augmentation: Any = None) -> None:
        super().__init__()
        self.request, self.progress = request, progress
        self.config, self.usable = request.config, request.usable
        if augmentation is None:
            self.changes = build_augmentation(self.config.augmentation)
        else:
            self.changes = own_augmentation(augmentation)

    def _images(self, role: str) -> ChestImages:
        store = self.request.dataset.make_store(self.config.data.image_size, self.progress)
        ids, annotations = self.usable.ids[role], self.usable.annotations
        changes = self.changes if role == "train" else None
        return ChestImages(store, ids, annotations, self.request.target.any_of, changes)

    @cached_property
    def train(self) -> ChestImages:
        """Training images."""
        return self._images("train")

    @property
    def n_workers(self) -> int:
        """Number of processes that load for each device; 0 loads in the training process."""
        workers = self.config.training.workers
        if workers != "auto":
            return int(workers)
        devices = max(1, self.trainer.num_devices)  # type: ignore[union-attr]
        return 0 if self._is_cpu else min(_MOST_WORKERS, max(1, cpu_count() // devices))

    def train_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the training batches."""
        training, trainer = self.config.training, self.trainer
        weights = None
        if training.positive_share:
            positive = self.train.image_ids.isin(self.usable.positive)
            weights = balancing_weights(positive, training.positive_share)
        step = training.batch_size * training.accumulate
        process = (trainer.global_rank, trainer.world_size)  # type: ignore[union-attr]
        sampler = EpochSampler(len(self.train), training.seed, step, weights, *process)
        return self._loader(self.train, sampler, self.n_workers)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this process's slice of the validation images, none of which counts twice."""
        images = self._images("val")
        trainer: Any = self.trainer
        rank, world_size = trainer.global_rank, trainer.world_size
        n_images = len(images)
        rows = range(n_images * rank // world_size, n_images * (rank + 1) // world_size)
        return self._loader(images, rows, min(1, self.n_workers))

    @property
    def _is_cpu(self) -> bool:
        return self.trainer.strategy.root_device.type == "cpu"  # type: ignore[union-attr]

    def _loader(self, images: ChestImages, sampler: Any, workers: int) -> DataLoader[Any]:
        context = worker_context(__name__) if workers else None
        return _LazyLoader(
            images,
            self.config.training.batch_size // self.trainer.world_size,  # type: ignore[union-attr]
            sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=not self._is_cpu,
            multiprocessing_context=context,
            worker_init_fn=_begin_loader if workers else None,
            generator=torch.Generator(),  # of its own: it draws at another time when resumed
        )


def _begin_loader(_: int) -> None:
    begin_worker()
