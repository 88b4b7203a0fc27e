"""Binary cross entropy where some answers are unknown, and its class balance."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from classification.dataset import LabelBatch
from classification.model import ImageClassifier, evaluating


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None
) -> Tensor:
    """Mean binary cross entropy over the known targets.

    Args:
        logits: float (B, K).
        targets: float32 (B, K): 1 present, 0 absent, NaN unknown.
        pos_weight: float (K,): weight of each finding's positives; None for 1.

    Returns:
        A scalar, float32; 0 (with zero gradients) where nothing is known.

    Example:
        >>> nan = float("nan")
        >>> masked_cross_entropy(torch.zeros(1, 2), torch.tensor([[1.0, nan]])).item()
        0.6931471824645996
        >>> masked_cross_entropy(torch.zeros(1, 2), torch.tensor([[nan, nan]])).item()
        0.0
    """
    known = ~targets.isnan()
    weight = None if pos_weight is None else pos_weight.to(logits.device)
    loss = F.binary_cross_entropy_with_logits(
        logits.float(), targets.nan_to_num(0.0), pos_weight=weight, reduction="none"
    )
    return (loss * known).sum() / known.sum().clamp(min=1)


def positive_weights(targets: np.ndarray, limit: float = 100.0) -> Tensor:
    """Weights that make positives and negatives of each finding count the same.

    Args:
        targets: float (N, K): 1 present, 0 absent, NaN unknown.
        limit: Largest weight; its inverse is the smallest.

    Returns:
        float32 (K,): negatives per positive; 1 where a finding has only one kind.

    Example:
        >>> positive_weights(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, np.nan]])).tolist()
        [2.0, 1.0]
    """
    positives = np.nansum(targets == 1, axis=0).astype(np.float64)
    negatives = np.nansum(targets == 0, axis=0).astype(np.float64)
    one_kind = (positives == 0) | (negatives == 0)
    weights = np.where(one_kind, 1.0, negatives / np.maximum(positives, 1))
    return torch.from_numpy(np.clip(weights, 1 / limit, limit).astype(np.float32))


def training_losses(
    model: ImageClassifier, batch: LabelBatch, pos_weight: Tensor | None = None
) -> dict[str, Tensor]:
    """Loss of one training batch.

    Args:
        model: In training mode.
        batch: Images with their targets; all of them may be unknown.
        pos_weight: As in `masked_cross_entropy`.

    Returns:
        ``classification``, a scalar.
    """
    logits = model(batch.images)
    return {"classification": masked_cross_entropy(logits, batch.targets, pos_weight)}


def validation_losses(
    model: ImageClassifier, batch: LabelBatch, pos_weight: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss and scores of one validation batch, from one forward in evaluation mode.

    Batch-norm statistics and the model's mode stay as they are.

    Args:
        model: In either mode.
        batch: Images with their targets.
        pos_weight: As in `masked_cross_entropy`.

    Returns:
        The loss as in `training_losses`, without gradient, and the scores, float64 (B, K), in
        [0, 1].
    """
    with evaluating(model), torch.no_grad():
        logits = model(batch.images)
    loss = masked_cross_entropy(logits, batch.targets, pos_weight)
    return {"classification": loss}, scores_of(logits)


def scores_of(logits: Tensor) -> Tensor:
    """Sigmoid in float64: in float32 every logit above 17 ties at a score of exactly 1.

    Args:
        logits: float (B, K).

    Returns:
        float64 (B, K), in [0, 1].
    """
    return logits.double().sigmoid()
