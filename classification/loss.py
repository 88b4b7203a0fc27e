"""Loss of the classifier: cross entropy of known labels, with class weights and label smoothing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from cxr_compare.classification.model import ImageClassifier
from cxr_compare.networks.store_model import ImageBatch, evaluation_mode

Criterion = Callable[[Tensor, Tensor], Tensor]  # (logits, targets) -> scalar


@dataclass(frozen=True)
class LabelBatch(ImageBatch):
    """A batch of images with labels, float32 (B, K): 1 present, 0 absent, NaN unknown."""

    targets: Tensor  # float32 (B, K): 1 present, 0 absent, NaN unknown


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None
) -> Tensor:
    """Compute the mean binary cross entropy over the known labels of a batch.

    Labels are (B, K): 1 present, 0 absent, a value between them after label smoothing, or NaN
    unknown. `pos_weight` is a factor of the loss of positive labels, (K,) or (1,), on the device of
    the logits. The loss is 0, without gradient, if no label is known.

    Example:
        >>> masked_cross_entropy(torch.tensor([[0.0, 9.0]]), torch.tensor([[1.0, torch.nan]]))
        tensor(0.6931)
    """
    targets = targets.to(logits.device, non_blocking=True)
    is_known = ~targets.isnan()
    loss = F.binary_cross_entropy_with_logits(
        logits.float(), targets.nan_to_num(0.0), pos_weight=pos_weight, reduction="none"
    )  # (B, K)
    return (loss * is_known).sum() / is_known.sum().clamp(min=1)


def build_criterion(positive_weight: float | Literal["balanced"], targets: np.ndarray) -> Criterion:
    """Build the loss function of a classifier: binary cross entropy with a weight of the positives.

    The weight is a factor of the loss of each positive label. ``balanced`` takes the number of
    negatives per positive of each finding, limited to 0.01 to 100; it is 1 for a finding without
    positives or without negatives. `targets` (N, K) are those of the training images: 1 present, 0
    absent, NaN unknown. The function takes logits and labels (B, K), and returns the mean loss of
    the known labels.
    """
    if positive_weight == 1:
        return masked_cross_entropy
    if positive_weight == "balanced":
        weights = _balancing_weights(targets)
    else:
        weights = torch.tensor([float(positive_weight)])
    weights_on = cache(weights.to)  # sent to a device once
    return lambda logits, targets: masked_cross_entropy(logits, targets, weights_on(logits.device))


def _balancing_weights(targets: np.ndarray) -> Tensor:
    """Compute weights (K,) that give positives and negatives the same total weight."""
    positives = np.nansum(targets == 1, axis=0).astype(np.float64)
    negatives = np.nansum(targets == 0, axis=0).astype(np.float64)
    one_kind = (positives == 0) | (negatives == 0)
    weights = np.where(one_kind, 1.0, negatives / np.maximum(positives, 1))
    return torch.from_numpy(np.clip(weights, 0.01, 100).astype(np.float32))


def training_losses(
    model: ImageClassifier,
    batch: LabelBatch,
    criterion: Criterion = masked_cross_entropy,
    *,
    smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Compute the loss ``classification`` of a classifier in training mode on a training batch.

    All labels may be unknown. `smoothing` is the share of each label that is moved to one half
    (Szegedy et al. 2016, with two classes for each finding), so that 0.1 turns 1 into 0.95.
    """
    targets = batch.targets * (1 - smoothing) + smoothing / 2
    return {"classification": criterion(model(batch.images), targets)}


def validation_losses(
    model: ImageClassifier,
    batch: LabelBatch,
    criterion: Criterion = masked_cross_entropy,
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the loss of a classifier on a validation batch, without gradient, and its scores.

    The model runs once in evaluation mode, so batch-norm statistics and the mode of the model do
    not change. The targets are not smoothed.

    All labels may be unknown. Scores are float64 (B, K) in [0, 1].
    """
    with evaluation_mode(model), torch.no_grad():
        logits: Tensor = model(batch.images)
    return {"classification": criterion(logits, batch.targets)}, sigmoid_scores(logits)


def sigmoid_scores(logits: Tensor) -> Tensor:
    """Compute scores in [0, 1] from logits, by the sigmoid in float64.

    In float32 every logit above 17 would give exactly 1.
    """
    return logits.double().sigmoid()
