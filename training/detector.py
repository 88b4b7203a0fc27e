"""The training of a detector: its images, losses and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cxr_compare.configs.settings import DetectorConfig
from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.pixel_store import PixelStore
from cxr_compare.detection.detector import (
    Detector,
    LesionBatch,
    training_losses,
    validation_losses,
)
from cxr_compare.detection.model import build_detector, start_from
from cxr_compare.evaluation.boxes.average_precision import unchecked_average_precision
from cxr_compare.evaluation.metrics.image_metrics import auroc
from cxr_compare.training.augment import Augmentation
from cxr_compare.training.datasets import AugmentedLesionBatch, LesionDataset, collate_lesions
from cxr_compare.training.mosaic import DroppedBoxes
from cxr_compare.training.processes import reduce_over_processes
from cxr_compare.training.sampling import balancing_weights
from cxr_compare.training.task import TrainingTask, mean_of_defined

# Columns of an epoch, and the fields of `DroppedBoxes` that they add up.
_COUNT_COLUMNS = {
    "train_boxes": "n_boxes",
    "train_boxes_out": "outside",
    "train_boxes_small": "small",
    "train_boxes_covered": "covered",
}


class _DetectedBatch(NamedTuple):
    """Boxes of a validation batch, in store px: enough for the metrics."""

    image_ids: list[str]
    detected: pd.DataFrame  # ``image_id, finding, x1, y1, x2, y2, score``; findings by number
    true: pd.DataFrame  # the same columns, all of score 1


class DetectorTask(TrainingTask):
    """All that the training of a detector needs: network, images, boxes, losses and metrics.

    It uses the images whose lesions all have a box, and the images without a lesion.

    Args:
        config: Configuration of the detector.
        dataset: Data set with images, boxes and splits (which images are for training and
            validation).
        target: Finding, or group of findings, that is learned.
        store: Pixel store: the images of the data set, resized to squares.
        augmentation: Random change of each training image with its boxes; None changes nothing.
    """

    def __init__(
        self,
        config: DetectorConfig,
        dataset: DataSet,
        target: Target,
        store: PixelStore,
        augmentation: Augmentation | None,
    ) -> None:
        super().__init__(config, target)
        boxes = dataset.target_boxes(target)
        trusted = dataset.boxes_trusted(target)
        ids = {
            role: dataset.image_ids(role, config.data.split).intersection(trusted)
            for role in ("train", "val")
        }
        mosaic = config.augmentation.mosaic
        self.train = LesionDataset(
            store, ids["train"], boxes, self.findings, augmentation, mosaic=mosaic
        )
        self.val = LesionDataset(store, ids["val"], boxes, self.findings)
        self.collate = collate_lesions
        self.positive = ids["train"].isin(boxes["image_id"])
        self.model = self._build_model(build_detector, start_from, config, store.size)
        share = config.training.positive_share
        self.draw_weights = balancing_weights(self.positive, share) if share else None
        self._box_counts = None
        if augmentation is not None or mosaic > 0:
            self._box_counts = _EpochSums(list(_COUNT_COLUMNS))
            self.callbacks.append(self._box_counts)

    def training_losses(self, model: Detector, batch: AugmentedLesionBatch) -> dict[str, Tensor]:
        """Compute the losses of a training batch, and count the boxes that augmentation dropped.

        Args:
            model: Detector of this task, or a copy of it.
            batch: Training batch: images with their true boxes.

        Returns:
            Scalar losses by name, such as those of classes and of box positions.
        """
        if self._box_counts is not None:
            counts = batch.dropped._asdict()
            columns = {column: counts[field] for column, field in _COUNT_COLUMNS.items()}
            self._box_counts.add(columns)
        return training_losses(model, batch)

    def loss_weight(self, batch: LesionBatch) -> float:
        """Return the number of images of a batch, by which its mean losses are weighted.

        Args:
            batch: Training or validation batch: images with their true boxes.
        """
        return len(batch)

    def validation_step(
        self, model: Detector, batch: LesionBatch
    ) -> tuple[dict[str, Tensor], _DetectedBatch]:
        """Compute the losses and the boxes of a validation batch.

        Args:
            model: Detector in evaluation mode.
            batch: Validation batch: images with their true boxes.

        Returns:
            Scalar losses by name; and the ids of the images with tables of their predicted and true
            boxes, in px of the resized images.
        """
        losses, detected = validation_losses(model, batch)
        true = [
            Boxes(boxes.numpy(), np.ones(len(boxes)), labels.numpy())
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        ids = batch.image_ids
        return losses, _DetectedBatch(ids, _box_table(ids, detected), _box_table(ids, true))

    def validation_metrics(self, outputs: list[_DetectedBatch]) -> dict[str, float]:
        """Compute the detection metrics of an epoch, and add how many training boxes were dropped.

        Augmentation drops a box that it moves out of the image, makes too small or hides.

        Args:
            outputs: Predicted and true boxes of all validation batches.

        Returns:
            Metrics by name, such as ``ap50``.
        """
        counts = {} if self._box_counts is None else self._box_counts.joined
        return {**_detection_metrics(outputs), **counts}

    def describe(self, batch: LesionBatch) -> tuple[list[str], list[np.ndarray]]:
        """Return captions and true boxes for a drawing that shows the images of a training batch.

        Args:
            batch: A training batch of B images.

        Returns:
            One caption for each image, and the boxes of each image, (N, 4) xyxy in px of the
            batch's images.
        """
        boxes = [image_boxes.numpy() for image_boxes in batch.boxes]
        captions = []
        for image_id, image_boxes in zip(batch.image_ids, boxes, strict=True):
            count = counted(len(image_boxes), "box") if len(image_boxes) else "no lesion"
            captions.append(f"{image_id[:16]}: {count}")
        return captions, boxes

    def dropped_boxes(self, history: Sequence[dict[str, Any]]) -> DroppedBoxes | None:
        """Return how many training boxes augmentation dropped in all epochs together.

        Augmentation drops a box that it moves out of the image, makes too small or hides.

        Args:
            history: One row of figures for each epoch, as in ``metrics.csv``.

        Returns:
            Number of training boxes, and of those dropped for each reason; None if the training has
            no augmentation.
        """
        if self._box_counts is None:
            return None
        totals = {
            field: sum(int(row[column]) for row in history)
            for column, field in _COUNT_COLUMNS.items()
        }
        return DroppedBoxes(**totals)


def _detection_metrics(batches: list[_DetectedBatch]) -> dict[str, float]:
    """Compute the figures of a whole validation."""
    image_ids = pd.Index([image_id for batch in batches for image_id in batch.image_ids])
    detected = pd.concat([batch.detected for batch in batches], ignore_index=True)
    true = pd.concat([batch.true for batch in batches], ignore_index=True)
    by_finding = [
        unchecked_average_precision(
            detected[detected["finding"] == label], true[true["finding"] == label], image_ids
        )
        for label in sorted(true["finding"].unique())
    ]
    best = detected.groupby("image_id")["score"].max().reindex(image_ids, fill_value=0.0)
    area = auroc(image_ids.isin(true["image_id"]), best.to_numpy())
    return {
        "ap50": mean_of_defined([figures["ap50"] for figures in by_finding]),
        "ap": mean_of_defined([figures["ap"] for figures in by_finding]),
        "auroc": float("nan") if area is None else area,
    }


def _box_table(image_ids: Sequence[str], images: Sequence[Boxes | None]) -> pd.DataFrame:
    """Join the boxes of several images, store px, in one table; None has no rows."""
    boxes = Boxes.joined([image_boxes for image_boxes in images if image_boxes is not None])
    counts = [len(image_boxes or ()) for image_boxes in images]
    box_ids = np.repeat(np.asarray(image_ids, object), counts)
    return boxes.to_table(box_ids, boxes.labels)


class _EpochSums(Callback):
    """Counts that are added up over an epoch, and joined before its figures are computed."""

    def __init__(self, names: list[str]) -> None:
        self._counts = dict.fromkeys(names, 0)
        self._before = self._counts
        self.joined = dict(self._counts)  # sums of the last epoch over all processes

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of a batch."""
        for name, count in counts.items():
            self._counts[name] += count

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from 0: a search of the batch size may have added counts before."""
        self._counts = dict.fromkeys(self._counts, 0)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the counts before the batch."""
        self._before = dict(self._counts)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Drop the counts of a batch that only fills a process's empty share."""
        if not outputs["weight"]:
            self._counts = self._before

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the counts of all processes; this callback runs before the epoch record."""
        counts = reduce_over_processes(torch.tensor([*self._counts.values()], dtype=torch.int64))
        self.joined = dict(zip(self._counts, counts.tolist(), strict=True))
