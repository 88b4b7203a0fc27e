"""A classifier's training: which images, which losses, which figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from classification.dataset import ImageLabelDataset, LabelBatch, collate
from classification.loss import (
    Criterion,
    masked_cross_entropy,
    positive_weights,
    training_losses,
    validation_losses,
)
from classification.model import ImageClassifier, build_classifier, freeze_for_epoch
from classification.weights import start_from
from evaluation.metrics.image_metrics import auroc, image_average_precision
from training.optimisation import Unfreezing
from training.sampling import balancing_weights
from training.starting_weights import Start, initialise
from training.task import require_both_kinds

if TYPE_CHECKING:
    from configs.settings import ClassifierConfig
    from data_prep.augment.augment import Augmentation
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.pixel_store import PixelStore


_STATES = {"present": 1.0, "absent": 0.0}


class Scored(NamedTuple):
    """What one validation batch gave.

    Attributes:
        scores: float64 (B, K), in [0, 1].
        targets: float32 (B, K): 1 present, 0 absent, NaN unknown.
    """

    scores: np.ndarray
    targets: np.ndarray


class ClassifierTask:
    """A classifier's training, on the images whose label is known."""

    def __init__(
        self,
        config: ClassifierConfig,
        dataset: DataSet,
        target: Target,
        store: PixelStore,
        augmentation: Augmentation | None,
    ) -> None:
        self.findings = target.any_of
        labels, ids = _labelled_images(dataset, target, config.data.split)
        self.train = ImageLabelDataset(store, ids["train"], labels, self.findings, augmentation)
        self.val = ImageLabelDataset(store, ids["val"], labels, self.findings)
        self.positive = (self.train.targets == 1).any(axis=1)
        share = config.training.positive_share
        self.draw_weights = balancing_weights(self.positive, share) if share else None
        self._training = config.training
        self._criterion = _criterion(config.training.positive_weight, self.train.targets)
        self.start = Start.open(config.model.weights)
        self.notes: list[str] = []
        self.model = self._build_model(config, store.size)
        trainable = config.model.trainable
        freeze = partial(freeze_for_epoch, self.model, trainable)
        later = trainable in ("head_first", "stages")
        if not later:  # else the optimiser must have all parameters from the start
            freeze(0)
        self.callbacks = [Unfreezing(freeze)] if later else []

    def _build_model(self, config: ClassifierConfig, size: int) -> ImageClassifier:
        arguments = config.model.model_dump(exclude={"trainable"})
        weights, start = arguments.pop("weights"), self.start
        if start is not None:
            arguments |= _pixels(start)
            self.notes += start.pixel_notes(size)
        model = initialise(
            build_classifier,
            "none" if start else weights,
            seed=config.training.seed,
            name=arguments.pop("architecture"),
            n_findings=len(self.findings),
            image_size=size,
            **arguments,
        )
        if start is not None:
            findings = {"findings": start.findings, "own_findings": self.findings}
            note = start_from(model, start.state, source=weights, network=start.network, **findings)
            self.notes.append(note)
        return model

    def collate(self, samples: Sequence[Any]) -> LabelBatch:
        """Samples to a batch."""
        return collate(samples)

    def training_losses(self, model: ImageClassifier, batch: LabelBatch) -> dict[str, Tensor]:
        """Loss of a training batch, its targets smoothed and its pairs mixed as configured."""
        how = self._training
        return training_losses(
            model, batch, self._criterion, smoothing=how.label_smoothing, mixup=how.mixup
        )

    def loss_weight(self, batch: LabelBatch) -> float:
        """Share of known answers, in images."""
        return float(batch.targets.isfinite().sum()) / len(self.findings)

    def validation_step(
        self, model: ImageClassifier, batch: LabelBatch
    ) -> tuple[dict[str, Tensor], Scored]:
        """Loss and scores of a validation batch."""
        losses, scores = validation_losses(model, batch, self._criterion)
        return losses, Scored(scores.cpu().numpy(), batch.targets.cpu().numpy())

    def validation_metrics(self, outputs: list[Scored]) -> dict[str, float]:
        """As `_score_metrics`."""
        return _score_metrics(outputs)

    def describe(self, batch: LabelBatch) -> tuple[list[str], None]:
        """Captions for the figure of a batch."""
        words = {1.0: "present", 0.0: "absent"}
        captions = []
        for image_id, targets in zip(batch.image_ids, batch.targets.tolist(), strict=True):
            known = [
                f"{finding} {words.get(t, 'unknown')}"
                for finding, t in zip(self.findings, targets, strict=True)
            ]
            captions.append(f"{image_id[:12]}: {', '.join(known[:2])}")
        return captions, None

    def dropped_boxes(self, history: Sequence[dict[str, Any]]) -> None:
        """None: a classifier has no boxes."""


def _labelled_images(
    dataset: DataSet, target: Target, split: str
) -> tuple[pd.DataFrame, dict[str, pd.Index]]:
    """Labels, and the images that are learned from and validated on."""
    labels = _finding_labels(dataset, target)
    ids = {
        role: dataset.image_ids(role, split).intersection(labels.index) for role in ("train", "val")
    }
    for role, chosen in ids.items():
        require_both_kinds((labels.loc[chosen] == 1).any(axis=1), role, "images with a label")
    return labels, ids


def _finding_labels(dataset: DataSet, target: Target) -> pd.DataFrame:
    """Labels by ``image_id``, a column a finding: 1 present, 0 absent, NaN unknown."""
    rows = dataset.findings[dataset.findings["finding"].isin(target.any_of)]
    rows = rows.assign(label=rows["state"].map(_STATES)).dropna(subset="label")
    labels = rows.pivot(index="image_id", columns="finding", values="label")
    return labels.reindex(columns=list(target.any_of))


def _pixels(start: Start) -> dict[str, Any]:
    """Arguments of `build_classifier` that bring pixels as the starting weights learned them."""
    arguments: dict[str, Any] = {**start.normalisation}
    if start.run is not None:
        return {**arguments, "channels": start.arguments.get("channels", "same")}
    public = start.public
    return arguments if public is None else {**arguments, "channels": public.channels}


def _criterion(positive_weight: float | Literal["balanced"], targets: np.ndarray) -> Criterion:
    if positive_weight == "balanced":
        weights: Tensor | None = positive_weights(targets)
    elif positive_weight == 1:
        weights = None
    else:
        weights = torch.full((targets.shape[1],), float(positive_weight))
    return partial(masked_cross_entropy, pos_weight=weights)


def _score_metrics(scored: list[Scored]) -> dict[str, float]:
    """Figures of a whole validation, means over the findings where they are defined.

    Example:
        >>> _score_metrics([Scored(np.array([[0.2], [0.9]]), np.array([[0.0], [1.0]]))])
        {'auroc': 1.0, 'average_precision': 1.0}
    """
    scores = np.concatenate([batch.scores for batch in scored])  # (N, K)
    targets = np.concatenate([batch.targets for batch in scored])  # (N, K)
    figures = {}
    for name, metric in (("auroc", auroc), ("average_precision", image_average_precision)):
        by_finding = [
            metric(true[~np.isnan(true)], score[~np.isnan(true)])
            for true, score in zip(targets.T, scores.T, strict=True)
        ]
        known = [figure for figure in by_finding if figure is not None]
        figures[name] = float(np.mean(known)) if known else float("nan")
    return figures
