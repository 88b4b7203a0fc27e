"""A detector's training: which images, which losses, which figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cxr_compare.configs.settings import DetectorConfig
from cxr_compare.data_prep.augment.augment import Augmentation
from cxr_compare.data_prep.augment.mosaic import DroppedBoxes
from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.data_prep.store.pixel_store import PixelStore
from cxr_compare.detection.detector import (
    Detector,
    LesionBatch,
    LesionDataset,
    collate,
    training_losses,
    validation_losses,
)
from cxr_compare.detection.model import build_detector, start_from
from cxr_compare.evaluation.boxes.average_precision import unchecked_average_precision
from cxr_compare.evaluation.metrics.image_metrics import auroc
from cxr_compare.training.loading import balancing_weights
from cxr_compare.training.processes import reduce_over_processes
from cxr_compare.training.task import TrainingTask, mean_of_defined

_COLUMNS = {"train_boxes": "given", "train_boxes_out": "outside", "train_boxes_small": "small",
            "train_boxes_covered": "covered"}  # fmt: skip


class _Seen(NamedTuple):
    """What one validation batch gave, in store px: enough for the metrics."""

    image_ids: list[str]  # its images
    found: pd.DataFrame  # ``image_id, finding, x1, y1, x2, y2, score``; findings by number
    true: pd.DataFrame  # likewise, all of score 1


class DetectorTask(TrainingTask):
    """A detector's training, on images whose lesions are all boxed, or that have none."""

    def __init__(
        self,
        config: DetectorConfig,
        dataset: DataSet,
        target: Target,
        store: PixelStore,
        augmentation: Augmentation | None,
    ) -> None:
        super().__init__(config, target)
        boxes, trusted = dataset.target_boxes(target), dataset.boxes_trusted(target)
        ids = {
            role: dataset.image_ids(role, config.data.split).intersection(trusted)
            for role in ("train", "val")
        }
        mosaic = config.augmentation.mosaic
        self.train = LesionDataset(
            store, ids["train"], boxes, self.findings, augmentation, mosaic=mosaic
        )
        self.val = LesionDataset(store, ids["val"], boxes, self.findings)
        self.collate = collate
        self.positive = ids["train"].isin(boxes["image_id"])
        self.model = self._build_model(build_detector, start_from, config, store.size)
        share = config.training.positive_share
        self.draw_weights = balancing_weights(self.positive, share) if share else None
        self._boxes = None
        if augmentation is not None or mosaic > 0:
            self._boxes = _EpochSums(list(_COLUMNS))
            self.callbacks.append(self._boxes)

    def training_losses(self, model: Detector, batch: LesionBatch) -> dict[str, Tensor]:
        """Losses of a training batch; counts its boxes."""
        if self._boxes is not None:
            counts = batch.dropped._asdict()
            self._boxes.add({name: counts[field] for name, field in _COLUMNS.items()})
        return training_losses(model, batch)

    def loss_weight(self, batch: LesionBatch) -> float:
        """Number of images, whose mean the losses are."""
        return len(batch)

    def validation_step(
        self, model: Detector, batch: LesionBatch
    ) -> tuple[dict[str, Tensor], _Seen]:
        """Losses and boxes of a validation batch."""
        losses, found = validation_losses(model, batch)
        true = [
            Boxes(boxes.numpy(), np.ones(len(boxes)), labels.numpy())
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        ids = batch.image_ids
        return losses, _Seen(ids, _frame(ids, found), _frame(ids, true))

    def validation_metrics(self, outputs: list[_Seen]) -> dict[str, float]:
        """As `_detection_metrics`, and what became of the epoch's boxes."""
        counts = {} if self._boxes is None else self._boxes.joined
        return {**_detection_metrics(outputs), **counts}

    def describe(self, batch: LesionBatch) -> tuple[list[str], list[np.ndarray]]:
        """Captions and boxes for the figure of a batch."""
        boxes = [image.numpy() for image in batch.boxes]
        counts = [
            f"{len(b)} box{'' if len(b) == 1 else 'es'}" if len(b) else "no lesion" for b in boxes
        ]
        captions = [f"{i[:16]}: {count}" for i, count in zip(batch.image_ids, counts, strict=True)]
        return captions, boxes

    def dropped_boxes(self, history: Sequence[dict[str, Any]]) -> DroppedBoxes | None:
        """Of all epochs together; None where nothing is augmented."""
        if self._boxes is None:
            return None
        return DroppedBoxes(
            **{field: sum(int(row[name]) for row in history) for name, field in _COLUMNS.items()}
        )


def _detection_metrics(seen: list[_Seen]) -> dict[str, float]:
    """Figures of a whole validation."""
    image_ids = pd.Index([image_id for batch in seen for image_id in batch.image_ids])
    found = pd.concat([batch.found for batch in seen], ignore_index=True)
    true = pd.concat([batch.true for batch in seen], ignore_index=True)
    by_finding = [
        unchecked_average_precision(
            found[found["finding"] == label], true[true["finding"] == label], image_ids
        )
        for label in sorted(true["finding"].unique())
    ]
    best = found.groupby("image_id")["score"].max().reindex(image_ids, fill_value=0.0)
    area = auroc(image_ids.isin(true["image_id"]), best.to_numpy())
    return {
        "ap50": mean_of_defined([figures["ap50"] for figures in by_finding]),
        "ap": mean_of_defined([figures["ap"] for figures in by_finding]),
        "auroc": float("nan") if area is None else area,
    }


def _frame(image_ids: Sequence[str], images: Sequence[Boxes | None]) -> pd.DataFrame:
    """Boxes of several images as one frame, store px; `None` has none."""
    boxes = Boxes.joined([each for each in images if each is not None])
    owners = np.repeat(np.asarray(image_ids, object), [len(each or ()) for each in images])
    return boxes.to_table(owners, boxes.labels)


class _EpochSums(Callback):
    """Adds up counts while an epoch trains; they are there when its figures are measured."""

    def __init__(self, names: list[str]) -> None:
        self._counts = dict.fromkeys(names, 0)
        self._before = self._counts
        self.joined = dict(self._counts)  # of the last epoch, over all processes

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of a batch."""
        for name, count in counts.items():
            self._counts[name] += count

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew: what was added before, such as by a search of the batch size, is no part."""
        self._counts = dict.fromkeys(self._counts, 0)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the counts before the batch."""
        self._before = dict(self._counts)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Forget a batch that only filled a process's empty share: it counts elsewhere."""
        if not outputs["weight"]:
            self._counts = self._before

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join before the record reads the figures: this callback comes before it."""
        counts = reduce_over_processes(torch.tensor([*self._counts.values()], dtype=torch.int64))
        self.joined = dict(zip(self._counts, counts.tolist(), strict=True))
