"""Images of a data set for Lightning. What an epoch draws depends on (seed, epoch, image) alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cxr_compare.configs.settings import Config, DetectorConfig, TrainedConfig
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.own_parts import problem_of
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.data_prep.work.worker_processes import begin_worker, worker_context
from cxr_compare.training.augment import build_augmentation
from cxr_compare.training.datasets import (
    ImageDataset,
    ImageLabelDataset,
    LesionDataset,
    collate_labels,
    collate_lesions,
)

_MOST_WORKERS = 8  # processes that load for each GPU, see docs/results.md
_SMALL = 2**16  # bytes that a pipe carries sooner than shared memory
_LABEL_OF_STATE = {"present": 1.0, "absent": 0.0}


class EpochSampler(Sampler[tuple[int, int]]):
    """Rows of whole optimiser steps, each with a seed for its image's random changes.

    Every process draws the whole epoch and takes its share of each batch, so the images of a step
    do not depend on the number of processes. Images that fill no whole step wait for another epoch.

    `step` is the number of images of an optimiser step, of all processes together; fewer images
    raise InputError. `weights` (N,) are for draws with replacement; None draws each image once.
    `rank` is the number of this process of `world_size`.

    Example:
        >>> sampler = EpochSampler(5, seed=0, step=2)
        >>> first = list(sampler)
        >>> sampler.set_epoch(1)
        >>> first == list(sampler), len(first)
        (False, 4)
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
        if n_rows < step:
            raise InputError(
                f"training.batch_size: a step learns from {step} images (batch_size times "
                f"accumulate), and there are {n_rows} training images; make it {n_rows} at most"
            )
        self._n_rows = n_rows
        self._seed = seed
        self._probabilities = None if weights is None else weights / weights.sum()
        self._length = n_rows // step * step
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch that the next iteration draws; Lightning calls this."""
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


def balancing_weights(positive: np.ndarray, positive_share: float) -> np.ndarray:
    """Compute draw weights with which positive images make up a given share of the draws.

    `positive` is bool (N,) and has both values; the share lies between 0 and 1.

    Example:
        >>> balancing_weights(np.array([True, False, False]), 0.5).tolist()
        [0.5, 0.25, 0.25]
    """
    n_positive = int(positive.sum())
    negative_weight = (1 - positive_share) / (len(positive) - n_positive)
    return np.where(positive, positive_share / n_positive, negative_weight)


class SeededRows(Dataset[Any]):
    """A map-style data set whose random changes follow the seed of the row.

    They may be of any other program as well, which draws from the generators of torch, NumPy or
    Python, as torchvision's transforms do.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        """Return a row, changed at random if the key is (row, seed); an error names the image."""
        row, seed = key if isinstance(key, tuple) else (key, 0)
        try:
            if isinstance(self.rows, ImageDataset):
                return self.rows[key]
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002  the generator that transforms use
                return self.rows[row]
        except Exception as error:
            names = getattr(self.rows, "image_ids", range(len(self)))
            raise InputError(
                f"image {names[row]}: cannot be loaded ({problem_of(error)}); look at it with cxr "
                "check, or take it out"
            ) from error


class LazyLoader(DataLoader[Any]):
    """A loader that draws nothing before its first batch is asked for.

    Lightning makes an iterator before it says which epoch is resumed.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except InputError as error:  # of another process: torch adds a traceback before it
            raise InputError(
                str(error).strip().splitlines()[-1].split("InputError: ")[-1]
            ) from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                f"training.workers: one of {self.num_workers} processes that load has ended; for "
                "want of memory, or of shared memory (docker run --shm-size)? Fewer need less, and "
                "the same command goes on"
            ) from error


class ImageData(LightningDataModule):
    """Training and validation images of a configuration.

    Raises InputError if a role has no positive or no negative image, or the data set has no boxes
    for a detector.

    Attributes:
        target: Finding, or group of findings, that is learned.
        findings: Findings in the order of the network's outputs.
        usable: Usable images of both roles, with their labels or boxes.
        augmentation: Random changes of training images; None without any.
        train: Training images, which are requested by (row, seed).
        val: Validation images, which are requested by row.
        collate: Function that joins samples into a batch.
    """

    def __init__(self, config: TrainedConfig, dataset: DataSet, progress: Progress) -> None:
        super().__init__()
        self.config = config
        self.dataset = dataset
        self.progress = progress
        self.target = dataset.target(config.data.target, option="--set data.target=NAME")
        self.findings = self.target.any_of
        self.usable = usable_images(config, dataset, self.target)
        settings = config.augmentation.model_dump(exclude={"mosaic"})
        self.augmentation = build_augmentation(**settings)

    def prepare_data(self) -> None:
        """Decode pixels that the store lacks, in the first process only."""
        self.dataset.make_store(self.config.data.image_size, self.progress)

    def setup(self, stage: str) -> None:
        """Open the images of both roles."""
        store = self.dataset.make_store(self.config.data.image_size, self.progress)
        settings = self.config.augmentation
        augmentation = self.augmentation
        ids = self.usable.ids
        annotations = self.usable.annotations
        train = (store, ids["train"], annotations, self.findings, augmentation)
        val = (store, ids["val"], annotations, self.findings)
        if isinstance(self.config, DetectorConfig):
            self.train: Any = LesionDataset(*train, mosaic=settings.mosaic)
            self.val: Any = LesionDataset(*val)
            self.collate: Any = collate_lesions
        else:
            self.train = ImageLabelDataset(*train)
            self.val = ImageLabelDataset(*val)
            self.collate = collate_labels

    @property
    def n_workers(self) -> int:
        """Number of processes that load for each device; 0 loads in the training process."""
        workers = self.config.training.workers
        if workers != "auto":
            return int(workers)
        if self._is_cpu:  # where all cores compute
            return 0
        n_local = max(1, self.trainer.num_devices)  # type: ignore[union-attr]
        return min(_MOST_WORKERS, max(1, cpu_count() // n_local))

    @property
    def _is_cpu(self) -> bool:
        return self.trainer.strategy.root_device.type == "cpu"  # type: ignore[union-attr]

    def first_batch(self) -> Any:
        """Read this process's share of the first training batch, as the training will read it."""
        loader = self._loader(self.train, self._sampler(), 0)
        return next(iter(loader))

    def train_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the training batches."""
        return self._loader(self.train, self._sampler(), self.n_workers)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this process's slice of the validation images, none of which counts twice."""
        rank, world_size = self._rank
        n_images = len(self.val)
        rows = range(n_images * rank // world_size, n_images * (rank + 1) // world_size)
        # Images that are not augmented take a hundredth of the time: one process is enough.
        return self._loader(self.val, rows, min(1, self.n_workers))

    @property
    def _rank(self) -> tuple[int, int]:
        trainer: Any = self.trainer
        return int(trainer.global_rank), int(trainer.world_size)

    def _sampler(self) -> EpochSampler:
        training = self.config.training
        weights = None
        if training.positive_share:
            positive = pd.Index(self.train.image_ids).isin(self.usable.positive)
            weights = balancing_weights(positive, training.positive_share)
        step = training.batch_size * training.accumulate
        return EpochSampler(len(self.train), training.seed, step, weights, *self._rank)

    def _loader(self, rows: Any, sampler: Any, workers: int) -> DataLoader[Any]:
        return LazyLoader(
            SeededRows(rows),
            self.config.training.batch_size // self._rank[1],
            sampler=sampler,
            collate_fn=self.collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=not self._is_cpu,
            multiprocessing_context=_worker_context() if workers else None,
            worker_init_fn=_begin_loader if workers else None,
            generator=torch.Generator(),  # of its own: it draws at another time when resumed
        )


class UsableImages(NamedTuple):
    """Images of a data set that a model can learn from.

    `annotations` are boxes, or labels with a column for each finding (1, 0 or NaN) by ``image_id``.
    `ids` has the images of each role, ``train`` and ``val``; `positive` those of all roles.
    """

    annotations: pd.DataFrame
    ids: dict[str, pd.Index]
    positive: pd.Index

    def counts(self) -> dict[str, int]:
        """Return the numbers of images, and of the boxes or known labels to learn, for a record."""
        train = self.ids["train"]
        counts = {"n_train": len(train), "n_val": len(self.ids["val"])}
        if "image_id" in self.annotations:
            counts["n_boxes"] = int(self.annotations["image_id"].isin(train).sum())
        else:
            counts["n_labels"] = int(self.annotations.reindex(train).notna().to_numpy().sum())
        return counts

    def __str__(self) -> str:
        """Return the numbers of images as a text."""
        train = self.ids["train"]
        n_positive = int(train.isin(self.positive).sum())
        return (
            f"{counted(len(train), 'training image')} ({n_positive} positive), "
            f"{counted(len(self.ids['val']), 'validation image')}"
        )


def usable_images(config: Config, dataset: DataSet, target: Target) -> UsableImages:
    """Return the images that a configuration can learn from, with their labels or boxes.

    A detector uses images whose lesions all have a box, and images without a lesion; a classifier
    uses images with a known label.

    Raises InputError if there are no boxes, or a role has no positive or no negative image.
    """
    if config.kind == "detector":
        if not dataset.boxes["finding"].isin(target.any_of).any():
            raise InputError(
                f"{dataset.folder}: has no boxes of '{target.name}', and a detector learns from "
                f"boxes; train a classifier (cxr train chexnet_small --data {dataset.folder} --out "
                "RUN), or add boxes to the source and prepare it again"
            )
        which = "images with all lesions boxed, or without a lesion"
        annotations = dataset.target_boxes(target)
        usable = pd.Index(dataset.boxes_trusted(target))
        positive = pd.Index(annotations["image_id"].unique())
    else:
        which = "images with a label"
        rows = dataset.findings[dataset.findings["finding"].isin(target.any_of)]
        rows = rows.assign(label=rows["state"].map(_LABEL_OF_STATE)).dropna(subset="label")
        labels = rows.pivot(index="image_id", columns="finding", values="label")
        annotations = labels.reindex(columns=list(target.any_of))
        usable = annotations.index
        positive = usable[(annotations == 1).any(axis=1)]
    ids = {}
    for role in ("train", "val"):
        ids[role] = dataset.image_ids(role, config.data.split).intersection(usable)
        n_positive = int(ids[role].isin(positive).sum())
        if n_positive in (0, len(ids[role])):
            kind = "positive" if n_positive else "negative"
            problem = f"only {kind} images" if len(ids[role]) else "no images"
            raise InputError(
                f"split: role '{role}' has {problem} of '{target.name}' ({which}); make another "
                "split with cxr split, or add images of the other kind to the source and prepare "
                "it again"
            )
    return UsableImages(annotations, ids, positive)


def _worker_context() -> Any:
    """Return the context in which loading processes start, with what they import."""
    return worker_context(
        "cxr_compare.data_prep.store.decode",
        "cxr_compare.training.augment",
        "cxr_compare.training.datasets",
        __name__,
    )


def _begin_loader(_: int) -> None:
    begin_worker()
    ForkingPickler.register(torch.Tensor, _send)


def _send(tensor: Tensor) -> tuple[Any, ...]:
    """Send a small tensor to the training process by value: it needs no open file."""
    if tensor.nbytes > _SMALL:
        return reduce_tensor(tensor)
    return torch.from_numpy, (tensor.numpy(),)
