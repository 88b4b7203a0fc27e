"""The training of a classifier: its images, losses and figures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from cxr_compare.classification.loss import (
    LabelBatch,
    build_criterion,
    training_losses,
    validation_losses,
)
from cxr_compare.classification.model import ImageClassifier, build_classifier, start_from
from cxr_compare.configs.settings import ClassifierConfig
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.pixel_store import PixelStore
from cxr_compare.evaluation.metrics.image_metrics import auroc, image_average_precision
from cxr_compare.training.augment import Augmentation
from cxr_compare.training.datasets import ImageLabelDataset, collate_labels
from cxr_compare.training.sampling import balancing_weights
from cxr_compare.training.start_weights import StartWeights
from cxr_compare.training.task import TrainingTask, mean_of_defined

_LABEL_OF_STATE = {"present": 1.0, "absent": 0.0}


class ScoredBatch(NamedTuple):
    """Scores and labels of a validation batch.

    B is the number of images, K the number of findings.

    Attributes:
        scores: Score of each image and finding in [0, 1], float64 (B, K).
        targets: Label of each image and finding, float32 (B, K): 1 present, 0 absent, NaN unknown.
    """

    scores: np.ndarray
    targets: np.ndarray


class ClassifierTask(TrainingTask):
    """All that the training of a classifier needs: network, images, labels, loss and metrics.

    Images without a known label are not used.

    Args:
        config: Configuration of the classifier.
        dataset: Data set with images, labels and splits (which images are for training and
            validation).
        target: Finding, or group of findings, that is learned.
        store: Pixel store: the images of the data set, resized to squares.
        augmentation: Random change of each training image; None changes nothing.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        dataset: DataSet,
        target: Target,
        store: PixelStore,
        augmentation: Augmentation | None,
    ) -> None:
        super().__init__(config, target)
        labels, ids = labelled_images(dataset, target, config.data.split)
        self.train = ImageLabelDataset(store, ids["train"], labels, self.findings, augmentation)
        self.val = ImageLabelDataset(store, ids["val"], labels, self.findings)
        self.collate = collate_labels
        self.positive = (self.train.targets == 1).any(axis=1)
        share = config.training.positive_share
        self.draw_weights = balancing_weights(self.positive, share) if share else None
        self._smoothing = config.training.label_smoothing
        self._criterion = build_criterion(config.training.positive_weight, self.train.targets)
        self.model = self._build_model(
            build_classifier, start_from, config, store.size, **start_channels(self.start)
        )
        # Pooled features by image, for a frozen trunk and pixels that are always the same.
        frozen = config.model.trainable in ("head", 0)
        self._val_features: dict[str, Tensor] | None = {} if frozen else None
        self._train_features: dict[str, Tensor] | None = None
        if frozen and augmentation is None:
            self._train_features = {}

    def training_losses(self, model: ImageClassifier, batch: LabelBatch) -> dict[str, Tensor]:
        """Compute the loss of a training batch, with label smoothing if it is configured.

        Args:
            model: Classifier of this task, or a copy of it.
            batch: Training batch: images with the labels of their findings.

        Returns:
            The scalar loss, under the name ``classification``.
        """
        # A trial copy of the model must not fill the features of the model itself.
        features = self._train_features if model is self.model else None
        return training_losses(
            model, batch, self._criterion, smoothing=self._smoothing, pooled_features=features
        )

    def loss_weight(self, batch: LabelBatch) -> float:
        """Return the number of images by which the mean loss of a batch is weighted.

        An image counts as the share of its findings that have a known label: 0.5 if one of two
        labels is unknown.

        Args:
            batch: Training or validation batch: images with the labels of their findings.
        """
        return float(batch.targets.isfinite().sum()) / len(self.findings)

    def validation_step(
        self, model: ImageClassifier, batch: LabelBatch
    ) -> tuple[dict[str, Tensor], ScoredBatch]:
        """Compute the loss and the scores of a validation batch.

        Args:
            model: Classifier in evaluation mode.
            batch: Validation batch: images with the labels of their findings.

        Returns:
            The scalar loss under the name ``classification``, and the scores with the labels.
        """
        losses, scores = validation_losses(model, batch, self._criterion, self._val_features)
        return losses, ScoredBatch(scores.cpu().numpy(), batch.targets.numpy())

    def validation_metrics(self, outputs: list[ScoredBatch]) -> dict[str, float]:
        """Compute AUROC and average precision of all validation images with `score_metrics`.

        Args:
            outputs: Scores and labels of all validation batches.

        Returns:
            AUROC and average precision by name, see `score_metrics`.
        """
        return score_metrics(outputs)

    def describe(self, batch: LabelBatch) -> tuple[list[str], None]:
        """Return captions for a drawing that shows the images of a training batch to the user.

        A caption has the labels of at most two findings.

        Args:
            batch: A training batch of B images.

        Returns:
            One caption for each image, and None, because a classifier learns no boxes.
        """
        states = {1.0: "present", 0.0: "absent"}
        captions = []
        for image_id, targets in zip(batch.image_ids, batch.targets.tolist(), strict=True):
            labels = [
                f"{finding} {states.get(target, 'unknown')}"
                for finding, target in zip(self.findings, targets, strict=True)
            ]
            captions.append(f"{image_id[:12]}: {', '.join(labels[:2])}")
        return captions, None


def start_channels(start: StartWeights | None) -> dict[str, str]:
    """Return how a network with initial weights makes its three input channels from a grey image.

    ``same`` repeats the normalised grey image in all three channels. ``imagenet`` normalises each
    channel as a colour of ImageNet.

    Args:
        start: Weights from a file or a training from which a classifier starts; None for random or
            published weights.

    Returns:
        ``{"channels": "same"}`` or ``{"channels": "imagenet"}``, as keyword argument for
        `build_classifier`; empty if `start` is None or if a file does not tell it.
    """
    if start is None:
        return {}
    if start.run is not None:
        return {"channels": start.arguments.get("channels", "same")}
    return {"channels": start.public.channels} if start.public else {}


def labelled_images(
    dataset: DataSet, target: Target, split: str
) -> tuple[pd.DataFrame, dict[str, pd.Index]]:
    """Return the labels of the findings to learn, and the labelled images for train and val.

    Args:
        dataset: Data set with the labels.
        target: Finding, or group of findings, that is learned.
        split: Name of the split, which says which images are for training, validation and test.

    Returns:
        Labels by ``image_id`` with a column for each finding (1, 0 or NaN), and the ids of the
        labelled images by role, ``train`` and ``val``.
    """
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
        ``auroc`` and ``average_precision``; NaN if a metric is defined for no finding.

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
