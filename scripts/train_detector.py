"""The detector's side of `cxr train`: which images, which losses, which figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd
from torch import Tensor

from detection.dataset import LesionBatch, LesionDataset, collate
from detection.model import (
    build_retinanet,
    torchvision_targets,
    training_losses,
    validation_losses,
)
from detection.retinanet import LesionRetinaNet
from detection.weights import start_from
from evaluation.boxes.average_precision import average_precision
from evaluation.metrics.image_metrics import auroc
from scripts import console
from scripts.starting_weights import Start
from scripts.train_images import require_both_kinds
from scripts.train_task import Trainee, image_classes, initialise

if TYPE_CHECKING:
    from configs.settings import DetectorConfig
    from data_prep.augment.augment import Augmentation
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.pixel_store import PixelStore

_EDGES = ["x1", "y1", "x2", "y2"]


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


def build(
    config: DetectorConfig,
    dataset: DataSet,
    target: Target,
    store: PixelStore,
    augmentation: Augmentation | None,
) -> Trainee:
    """Prepare a detector's training.

    It learns and is validated on images whose lesions are all boxed, or that have none.

    Raises:
        InputError: The split lacks such images, or the model cannot be built.
    """
    findings, boxes = target.any_of, dataset.target_boxes(target)
    trusted = dataset.boxes_trusted(target)
    ids = {
        role: dataset.image_ids(role, config.data.split).intersection(trusted)
        for role in ("train", "val")
    }
    boxed = {role: pd.Series(i.isin(boxes["image_id"]), index=i) for role, i in ids.items()}
    for role, positive in boxed.items():
        require_both_kinds(positive, role, "images with all lesions boxed, or without a lesion")
    mosaic = config.augmentation.mosaic
    train = LesionDataset(store, ids["train"], boxes, findings, augmentation, mosaic=mosaic)
    arguments = config.model.model_dump()
    weights = arguments.pop("weights")
    start = Start.open(weights)
    if start is not None:
        arguments |= start.pixels(store.size)
    model = initialise(
        build_retinanet,
        "none" if start else weights,
        seed=config.training.seed,
        n_findings=len(findings),
        image_size=store.size,
        **arguments,
    )
    if start is not None:
        known = {"findings": start.findings, "own_findings": findings}
        console.say(
            start_from(cast("LesionRetinaNet", model), start.state, source=weights, **known)
        )
    return Trainee(
        model=model,
        findings=findings,
        train=train,
        val=LesionDataset(store, ids["val"], boxes, findings),
        collate=collate,
        positive=boxed["train"].to_numpy(),
        training_losses=training_losses,
        validation_step=validate,
        validation_metrics=detection_metrics,
        describe=describe,
        start=start,
        classes=image_classes(dataset, ids["train"]),
        scored_losses=scored_losses,
        counts_boxes=augmentation is not None or mosaic > 0,
    )


def scored_losses(
    model: LesionRetinaNet, batch: LesionBatch
) -> tuple[dict[str, Tensor], list[str], Tensor]:
    """Losses of a training batch, and what the same forward says about its negative images.

    Returns:
        As `detection.model.training_losses`; ids of the images without a box, as augmented; and
        the score of the most confident finding on each, ``(len(ids),)``.
    """
    targets = torchvision_targets(batch, model.n_findings)
    heads = model.run_heads(batch.images)
    rows = [row for row, boxes in enumerate(batch.boxes) if not len(boxes)]
    logits = heads.outputs["cls_logits"].detach()[rows, :, 1:]  # class 0 is background
    scores = logits.flatten(1).amax(dim=1).sigmoid()
    return model.losses(heads, targets), [batch.image_ids[row] for row in rows], scores


def validate(model: LesionRetinaNet, batch: LesionBatch) -> tuple[dict[str, Tensor], Seen]:
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


def detection_metrics(seen: list[Seen]) -> dict[str, float]:
    """Figures of a whole validation.

    Args:
        seen: One entry a batch.

    Returns:
        ``ap50`` and ``ap`` (means over the findings) and ``auroc`` of the most confident box
        against whether the image has a true one; NaN where undefined.
    """
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


def describe(batch: LesionBatch) -> tuple[list[str], list[np.ndarray]]:
    """Captions and boxes for the picture of a batch."""
    boxes = [image.numpy() for image in batch.boxes]
    counts = [
        f"{len(b)} box{'' if len(b) == 1 else 'es'}" if len(b) else "no lesion" for b in boxes
    ]
    captions = [f"{i[:16]}: {count}" for i, count in zip(batch.image_ids, counts, strict=True)]
    return captions, boxes


def _mean(figures: list[float | None]) -> float:
    known = [figure for figure in figures if figure is not None]
    return float(np.mean(known)) if known else float("nan")


def _frame(image_ids: list[str], images: list[dict[str, Any]]) -> pd.DataFrame:
    """Boxes of several images as one frame, store px."""
    counts = [len(image["labels"]) for image in images]
    frame = pd.DataFrame(np.concatenate([image["boxes"] for image in images]), columns=_EDGES)
    frame.insert(0, "image_id", np.repeat(np.asarray(image_ids, object), counts))
    frame.insert(1, "label", np.concatenate([image["labels"] for image in images]).astype(int))
    if images and "scores" in images[0]:
        frame["score"] = np.concatenate([image["scores"] for image in images])
    return frame
