"""The training of a classifier: its images, losses and figures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from cxr_compare.classification.dataset import ImageLabelDataset, LabelBatch, collate
from cxr_compare.classification.loss import build_criterion, training_losses, validation_losses
from cxr_compare.classification.model import ImageClassifier, build_classifier, start_from
from cxr_compare.configs.settings import ClassifierConfig
from cxr_compare.data_prep.augment.augment import Augmentation
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.data_prep.store.pixel_store import PixelStore
from cxr_compare.evaluation.metrics.image_metrics import auroc, image_average_precision
from cxr_compare.training.sampling import balancing_weights
from cxr_compare.training.task import TrainingTask, mean_of_defined

_LABEL_OF_STATE = {"present": 1.0, "absent": 0.0}


class ScoredBatch(NamedTuple):
    """Scores and labels of a validation batch."""

    scores: np.ndarray  # float64 (B, K), in [0, 1]
    targets: np.ndarray  # float32 (B, K): 1 present, 0 absent, NaN unknown


class ClassifierTask(TrainingTask):
    """The training of a classifier on the images whose label is known."""

    def __init__(
        self,
        config: ClassifierConfig,
        dataset: DataSet,
        target: Target,
        store: PixelStore,
        augmentation: Augmentation | None,
    ) -> None:
        super().__init__(config, target)
        labels, ids = _labelled_images(dataset, target, config.data.split)
        self.train = ImageLabelDataset(store, ids["train"], labels, self.findings, augmentation)
        self.val = ImageLabelDataset(store, ids["val"], labels, self.findings)
        self.collate = collate
        self.positive = (self.train.targets == 1).any(axis=1)
        share = config.training.positive_share
        self.draw_weights = balancing_weights(self.positive, share) if share else None
        self._smoothing = config.training.label_smoothing
        self._criterion = build_criterion(config.training.positive_weight, self.train.targets)
        self.model = self._build_model(
            build_classifier, start_from, config, store.size, **self._channels()
        )
        # Pooled features by image, for a frozen trunk and pixels that are always the same.
        frozen = config.model.trainable in ("head", 0)
        self._val_features: dict[str, Tensor] | None = {} if frozen else None
        self._train_features: dict[str, Tensor] | None = None
        if frozen and augmentation is None:
            self._train_features = {}

    def _channels(self) -> dict[str, str]:
        """Return the builder's ``channels`` with which the start weights learned, if known."""
        if self.start is None:
            return {}
        if self.start.run is not None:
            return {"channels": self.start.arguments.get("channels", "same")}
        return {"channels": self.start.public.channels} if self.start.public else {}

    def training_losses(self, model: ImageClassifier, batch: LabelBatch) -> dict[str, Tensor]:
        """Compute the loss of a training batch, with label smoothing if it is configured.

        Args:
            model: Classifier of this task, or a copy of it.
            batch: Training batch.

        Returns:
            Scalar loss by name.
        """
        # A trial copy of the model must not fill the features of the model itself.
        features = self._train_features if model is self.model else None
        return training_losses(
            model, batch, self._criterion, smoothing=self._smoothing, pooled_features=features
        )

    def loss_weight(self, batch: LabelBatch) -> float:
        """Return the number of images with known labels; an image with half of them counts 0.5."""
        return float(batch.targets.isfinite().sum()) / len(self.findings)

    def validation_step(
        self, model: ImageClassifier, batch: LabelBatch
    ) -> tuple[dict[str, Tensor], ScoredBatch]:
        """Compute the loss and the scores of a validation batch.

        Args:
            model: Classifier in evaluation mode.
            batch: Validation batch.

        Returns:
            Scalar loss by name, and the scores with the labels.
        """
        losses, scores = validation_losses(model, batch, self._criterion, self._val_features)
        return losses, ScoredBatch(scores.cpu().numpy(), batch.targets.numpy())

    def validation_metrics(self, outputs: list[ScoredBatch]) -> dict[str, float]:
        """Compute AUROC and average precision of all validation images with `score_metrics`."""
        return score_metrics(outputs)

    def describe(self, batch: LabelBatch) -> tuple[list[str], None]:
        """Return one caption for each image of a batch, with the labels of at most two findings."""
        states = {1.0: "present", 0.0: "absent"}
        captions = []
        for image_id, targets in zip(batch.image_ids, batch.targets.tolist(), strict=True):
            labels = [
                f"{finding} {states.get(target, 'unknown')}"
                for finding, target in zip(self.findings, targets, strict=True)
            ]
            captions.append(f"{image_id[:12]}: {', '.join(labels[:2])}")
        return captions, None


def _labelled_images(
    dataset: DataSet, target: Target, split: str
) -> tuple[pd.DataFrame, dict[str, pd.Index]]:
    """Return labels by ``image_id``, a column a finding, and the labelled images of each role."""
    rows = dataset.findings[dataset.findings["finding"].isin(target.any_of)]
    rows = rows.assign(label=rows["state"].map(_LABEL_OF_STATE)).dropna(subset="label")
    labels = rows.pivot(index="image_id", columns="finding", values="label")
    labels = labels.reindex(columns=list(target.any_of))
    ids = {
        role: dataset.image_ids(role, split).intersection(labels.index) for role in ("train", "val")
    }
    return labels, ids


def score_metrics(batches: list[ScoredBatch]) -> dict[str, float]:
    """Compute AUROC and average precision of all validation images.

    Each figure is the mean over the findings for which it is defined.

    Args:
        batches: Scores and labels of all validation batches.

    Returns:
        Figures by name; NaN if a figure is defined for no finding.

    Example:
        >>> targets = np.array([[1.0], [0.0], [np.nan]])
        >>> score_metrics([ScoredBatch(np.array([[0.9], [0.2], [0.5]]), targets)])["auroc"]
        1.0
    """
    scores = np.concatenate([batch.scores for batch in batches])  # (N, K)
    targets = np.concatenate([batch.targets for batch in batches])  # (N, K)
    figures = {}
    for name, metric in (("auroc", auroc), ("average_precision", image_average_precision)):
        by_finding = []
        for true, score in zip(targets.T, scores.T, strict=True):
            is_known = ~np.isnan(true)
            by_finding.append(metric(true[is_known], score[is_known]))
        figures[name] = mean_of_defined(by_finding)
    return figures
