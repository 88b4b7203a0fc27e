"""Cross entropy where some answers are unknown, with its class balance, and softer targets."""

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from cxr_compare.classification.dataset import LabelBatch
from cxr_compare.classification.model import ImageClassifier
from cxr_compare.networks.inference import evaluating

Criterion = Callable[[Tensor, Tensor], Tensor]  # (logits, targets) -> scalar


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None
) -> Tensor:
    """Mean binary cross entropy over the known targets; 0, without gradient, where none is.

    Logits and targets are (B, K): 1 present, 0 absent, between them in part, NaN unknown;
    `pos_weight` (K,) weighs each finding's positives, and lies where the logits do.
    """
    targets = targets.to(logits.device, non_blocking=True)
    known = ~targets.isnan()
    loss = F.binary_cross_entropy_with_logits(
        logits.float(), targets.nan_to_num(0.0), pos_weight=pos_weight, reduction="none"
    )
    return (loss * known).sum() / known.sum().clamp(min=1)


def build_criterion(positive_weight: float | Literal["balanced"], targets: np.ndarray) -> Criterion:
    """`masked_cross_entropy` with a weight of positives, or one that balances training targets."""
    if positive_weight == 1:
        return masked_cross_entropy
    balanced = positive_weight == "balanced"
    weights = _positive_weights(targets) if balanced else torch.tensor([float(positive_weight)])
    there = cache(weights.to)  # sent to a device once
    return lambda logits, targets: masked_cross_entropy(logits, targets, there(logits.device))


def _positive_weights(targets: np.ndarray) -> Tensor:
    """Weights (K,) that make positives and negatives of targets (N, K) count the same, by finding.

    Negatives per positive, from 0.01 to 100; 1 where there is only one kind.
    """
    positives = np.nansum(targets == 1, axis=0).astype(np.float64)
    negatives = np.nansum(targets == 0, axis=0).astype(np.float64)
    one_kind = (positives == 0) | (negatives == 0)
    weights = np.where(one_kind, 1.0, negatives / np.maximum(positives, 1))
    return torch.from_numpy(np.clip(weights, 0.01, 100).astype(np.float32))


def _logits(model: ImageClassifier, batch: LabelBatch, kept: dict[str, Tensor] | None) -> Tensor:
    """Logits of a batch.

    Of a frozen trunk `kept` holds pooled features by image: those that it lacks are computed and
    added. Their pixels must be the same each time.
    """
    if kept is None:
        logits: Tensor = model(batch.images)
        return logits
    if new := [row for row, image_id in enumerate(batch.image_ids) if image_id not in kept]:
        with torch.no_grad():
            pooled = model.features(batch.images[new]).mean(dim=(2, 3))
        kept.update(zip((batch.image_ids[row] for row in new), pooled, strict=True))
    return model.head(torch.stack([kept[image_id] for image_id in batch.image_ids]))


def training_losses(
    model: ImageClassifier,
    batch: LabelBatch,
    criterion: Criterion = masked_cross_entropy,
    *,
    smoothing: float = 0.0,
    kept: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """``classification``, the loss of one training batch, by a model in training mode.

    All targets may be unknown. `smoothing` is the share of each target that moves to one half
    (Szegedy et al. 2016, for two classes a finding); `kept` as in `_logits`.
    """
    targets = batch.targets * (1 - smoothing) + smoothing / 2
    return {"classification": criterion(_logits(model, batch, kept), targets)}


def validation_losses(
    model: ImageClassifier,
    batch: LabelBatch,
    criterion: Criterion = masked_cross_entropy,
    kept: dict[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss without gradient, and scores, float64 (B, K) in [0, 1], of one validation batch.

    One forward in evaluation mode: batch-norm statistics and the model's mode stay as they are;
    nothing is smoothed.
    """
    with evaluating(model), torch.no_grad():
        logits = _logits(model, batch, kept)
    return {"classification": criterion(logits, batch.targets)}, scores_of(logits)


def scores_of(logits: Tensor) -> Tensor:
    """Sigmoid in float64: in float32 every logit above 17 ties at a score of exactly 1."""
    return logits.double().sigmoid()
