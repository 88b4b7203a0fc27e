"""A detector's training: which images, which losses, which figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from data_prep.augment.mosaic import DroppedBoxes
from data_prep.contracts.schemas import EDGES
from detection.dataset import LesionBatch, LesionDataset, collate
from detection.model import (
    build_retinanet,
    torchvision_targets,
    training_losses,
    validation_losses,
)
from detection.retinanet import LesionRetinaNet
from detection.weights import start_from
from evaluation.boxes.box_metrics import average_precision
from evaluation.metrics.image_metrics import auroc
from training.sampling import EpochSums, HardNegatives, balancing_weights
from training.starting_weights import Start, initialise
from training.task import require_both_kinds

if TYPE_CHECKING:
    from configs.settings import DetectorConfig
    from data_prep.augment.augment import Augmentation
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.pixel_store import PixelStore

_COLUMNS = {"train_boxes": "given", "train_boxes_out": "outside", "train_boxes_small": "small",
            "train_boxes_covered": "covered"}  # fmt: skip


class Seen(NamedTuple):
    """What one validation batch gave, in store px: enough for the metrics.

    Attributes:
        image_ids: Its images.
        found: ``image_id, label, x1, y1, x2, y2, score``.
        true: ``image_id, label, x1, y1, x2, y2``.
    """

    image_ids: list[str]
    found: pd.DataFrame
    true: pd.DataFrame


class DetectorTask:
    """A detector's training, on images whose lesions are all boxed, or that have none."""

    def __init__(
        self,
        config: DetectorConfig,
        dataset: DataSet,
        target: Target,
        store: PixelStore,
        augmentation: Augmentation | None,
    ) -> None:
        self.findings = target.any_of
        boxes, trusted = dataset.target_boxes(target), dataset.boxes_trusted(target)
        ids = {
            role: dataset.image_ids(role, config.data.split).intersection(trusted)
            for role in ("train", "val")
        }
        boxed = {role: pd.Series(i.isin(boxes["image_id"]), index=i) for role, i in ids.items()}
        for role, positive in boxed.items():
            require_both_kinds(positive, role, "images with all lesions boxed, or without a lesion")
        mosaic = config.augmentation.mosaic
        self.train = LesionDataset(
            store, ids["train"], boxes, self.findings, augmentation, mosaic=mosaic
        )
        self.val = LesionDataset(store, ids["val"], boxes, self.findings)
        self.positive = boxed["train"].to_numpy()
        self.start = Start.open(config.model.weights)
        self.notes: list[str] = []
        self.model = self._build_model(config, store.size)
        share, hard = config.training.positive_share, config.training.hard_negatives
        weights = balancing_weights(self.positive, share) if share else None
        self._hard = self._boxes = None
        if hard:
            base = np.ones(len(self.positive)) if weights is None else weights
            self._hard = HardNegatives(self.train.image_ids, ~self.positive, base, hard)
        if augmentation is not None or mosaic > 0:
            self._boxes = EpochSums(list(_COLUMNS))
        self.draw_weights = self._hard.weights if self._hard else weights
        self.callbacks = [each for each in (self._hard, self._boxes) if each is not None]

    def _build_model(self, config: DetectorConfig, size: int) -> LesionRetinaNet:
        arguments = config.model.model_dump()
        weights, start = arguments.pop("weights"), self.start
        if start is not None:
            arguments |= start.normalisation
            self.notes += start.pixel_notes(size)
        model = initialise(
            build_retinanet,
            "none" if start else weights,
            seed=config.training.seed,
            n_findings=len(self.findings),
            image_size=size,
            **arguments,
        )
        if start is not None:
            findings = {"findings": start.findings, "own_findings": self.findings}
            self.notes.append(start_from(model, start.state, source=weights, **findings))
        return model

    def collate(self, samples: Sequence[Any]) -> LesionBatch:
        """Samples to a batch."""
        return collate(samples)

    def training_losses(self, model: LesionRetinaNet, batch: LesionBatch) -> dict[str, Tensor]:
        """Losses of a training batch; counts its boxes, and notes how its negatives score."""
        if self._boxes is not None:
            counts = batch.dropped._asdict()
            self._boxes.add({name: counts[field] for name, field in _COLUMNS.items()})
        if self._hard is None:
            return training_losses(model, batch)
        losses, image_ids, scores = _scored_losses(model, batch)
        self._hard.see(image_ids, scores)
        return losses

    def loss_weight(self, batch: LesionBatch) -> float:
        """Number of images, whose mean the losses are."""
        return len(batch)

    def validation_step(
        self, model: LesionRetinaNet, batch: LesionBatch
    ) -> tuple[dict[str, Tensor], Seen]:
        """As `_validate`."""
        return _validate(model, batch)

    def validation_metrics(self, outputs: list[Seen]) -> dict[str, float]:
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
        """What became of the boxes in all epochs together; None where nothing is augmented."""
        if self._boxes is None:
            return None
        return DroppedBoxes(
            **{field: sum(int(row[name]) for row in history) for name, field in _COLUMNS.items()}
        )


def _scored_losses(
    model: LesionRetinaNet, batch: LesionBatch
) -> tuple[dict[str, Tensor], list[str], Tensor]:
    """Losses of a training batch, and the scores of its negative images from the same forward."""
    targets = torchvision_targets(batch, model.n_findings)
    heads = model.run_heads(batch.images)
    rows = [row for row, boxes in enumerate(batch.boxes) if not len(boxes)]
    logits = heads.outputs["cls_logits"].detach()[rows, :, 1:]  # class 0 is background
    scores = logits.flatten(1).amax(dim=1).sigmoid()
    return model.losses(heads, targets), [batch.image_ids[row] for row in rows], scores


def _validate(model: LesionRetinaNet, batch: LesionBatch) -> tuple[dict[str, Tensor], Seen]:
    """Losses and boxes of a validation batch."""
    losses, detections = validation_losses(model, batch)
    found = [{k: v.float().cpu().numpy() for k, v in image.items()} for image in detections]
    true = [
        {"boxes": boxes.cpu().numpy(), "labels": labels.cpu().numpy()}
        for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
    ]
    return losses, Seen(
        batch.image_ids, _frame(batch.image_ids, found), _frame(batch.image_ids, true)
    )


def _detection_metrics(seen: list[Seen]) -> dict[str, float]:
    """Figures of a whole validation."""
    image_ids = pd.Index([image_id for batch in seen for image_id in batch.image_ids])
    found = pd.concat([batch.found for batch in seen], ignore_index=True)
    true = pd.concat([batch.true for batch in seen], ignore_index=True)
    by_finding = [
        average_precision(found[found["label"] == label], true[true["label"] == label], image_ids)
        for label in sorted(true["label"].unique())
    ]
    best = found.groupby("image_id")["score"].max().reindex(image_ids, fill_value=0.0)
    area = auroc(image_ids.isin(true["image_id"]), best.to_numpy())
    return {
        "ap50": _mean([figures["ap50"] for figures in by_finding]),
        "ap": _mean([figures["ap"] for figures in by_finding]),
        "auroc": float("nan") if area is None else area,
    }


def _mean(figures: list[float | None]) -> float:
    known = [figure for figure in figures if figure is not None]
    return float(np.mean(known)) if known else float("nan")


def _frame(image_ids: list[str], images: list[dict[str, Any]]) -> pd.DataFrame:
    """Boxes of several images as one frame, store px."""
    counts = [len(image["labels"]) for image in images]
    frame = pd.DataFrame(np.concatenate([image["boxes"] for image in images]), columns=EDGES)
    frame.insert(0, "image_id", np.repeat(np.asarray(image_ids, object), counts))
    frame.insert(1, "label", np.concatenate([image["labels"] for image in images]).astype(int))
    if images and "scores" in images[0]:
        frame["score"] = np.concatenate([image["scores"] for image in images])
    return frame
