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
    """A batch of images with labels, from which a classifier learns.

    Attributes:
        targets: Labels of the B images for K findings (disease signs), float32 (B, K): 1 present, 0
            absent, NaN unknown.
    """

    targets: Tensor  # float32 (B, K): 1 present, 0 absent, NaN unknown


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None
) -> Tensor:
    """Compute the mean binary cross entropy over the known labels of a batch.

    Args:
        logits: Outputs of the model for B images and K findings (disease signs), shape (B, K).
        targets: Labels, shape (B, K): 1 present, 0 absent, a value between them after label
            smoothing, or NaN unknown.
        pos_weight: Factor of the loss of positive labels, for each finding, shape (K,), or one for
            all, shape (1,); on the device of the logits. None counts positive and negative labels
            alike.

    Returns:
        A float32 scalar; 0, without gradient, if no label is known.

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

    Args:
        positive_weight: Factor of the loss of each positive label. ``balanced`` takes the number of
            negatives per positive of each finding, limited to 0.01 to 100; it is 1 for a finding
            without positives or without negatives.
        targets: Labels of the N training images for K findings (disease signs), shape (N, K): 1
            present, 0 absent, NaN unknown.

    Returns:
        A function of the logits and labels of a batch, both of shape (B, K), that returns the mean
        loss of the known labels as a scalar.
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
    """Compute the loss of a classifier on a training batch.

    Args:
        model: The classifier in training mode.
        batch: Images and labels. All labels may be unknown.
        criterion: Function that computes the loss from logits and labels, such as the result of
            `build_criterion`.
        smoothing: Label smoothing: share of each label that is moved to one half (Szegedy et al.
            2016, with two classes for each finding), so that 0.1 turns 1 into 0.95.

    Returns:
        A dictionary with the scalar loss under the key ``classification``.
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

    Args:
        model: The classifier.
        batch: Images and labels. All labels may be unknown.
        criterion: Function that computes the loss from logits and labels, such as the result of
            `build_criterion`.

    Returns:
        A dictionary with the scalar loss under the key ``classification``; and the scores of the B
        images for K findings, float64 (B, K) in [0, 1].
    """
    with evaluation_mode(model), torch.no_grad():
        logits: Tensor = model(batch.images)
    return {"classification": criterion(logits, batch.targets)}, sigmoid_scores(logits)


def sigmoid_scores(logits: Tensor) -> Tensor:
    """Compute scores in [0, 1] from logits, by the sigmoid in float64.

    In float32 every logit above 17 would give exactly 1.

    Args:
        logits: Outputs of the model, any shape.

    Returns:
        Scores, float64, of the same shape.

    Example:
        >>> sigmoid_scores(torch.tensor([0.0]))
        tensor([0.5000], dtype=torch.float64)
    """
    return logits.double().sigmoid()
