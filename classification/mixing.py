"""Softer targets: label smoothing, and mixup of images with their targets."""

from dataclasses import replace

import torch
from torch import Tensor

from classification.dataset import LabelBatch


def smooth(targets: Tensor, smoothing: float) -> Tensor:
    """Move answers towards one half, so that no score need be pushed to 0 or 1.

    Args:
        targets: float32 (B, K), in [0, 1], NaN unknown.
        smoothing: Share that is moved, in [0, 1): 0.1 makes 1 and 0 into 0.95 and 0.05.

    Returns:
        float32 (B, K); unknown stays unknown.

    Source:
        Szegedy et al. 2016, Rethinking the Inception Architecture, for two classes a finding.

    Example:
        >>> smooth(torch.tensor([1.0, 0.0, float("nan")]), 0.5).tolist()
        [0.75, 0.25, nan]
    """
    return targets * (1 - smoothing) + smoothing / 2 if smoothing else targets


def mix_pairs(batch: LabelBatch, alpha: float) -> LabelBatch:
    """Lay each image over another of the batch, and their targets with the same weights.

    One weight a batch is drawn from Beta(alpha, alpha), and one order of partners, both from
    torch's generator on the CPU: the training seeds it anew for each step.

    Args:
        batch: Images with their targets.
        alpha: Above 0; small values leave most images nearly as they are, 1 draws any weight.

    Returns:
        The batch, under the ids of the first image of each pair. A target that either image of a
        pair does not know is unknown.

    Source:
        Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization.

    Example:
        >>> one, two = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 200.0)
        >>> batch = LabelBatch(
        ...     ["a", "b"], torch.cat([one, two]).byte(), torch.tensor([[0.0], [1.0]])
        ... )
        >>> mixed = mix_pairs(batch, 1.0)
        >>> (mixed.images[:, 0, 0, 0] / 200 - mixed.targets[:, 0]).abs().max().item() < 0.0026
        True
    """
    weight = float(torch.distributions.Beta(alpha, alpha).sample())  # of the partner
    partner = torch.randperm(len(batch)).to(batch.images.device)
    return mix(batch, partner, weight)


def mix(batch: LabelBatch, partner: Tensor, weight: float) -> LabelBatch:
    """Lay the partner of each image over it.

    Args:
        batch: Images with their targets.
        partner: int64 (B,): row of each image's partner, which may be its own.
        weight: Of the partner, in [0, 1].

    Returns:
        As `mix_pairs`. Pixels are rounded to whole grey levels: a model reads uint8.
    """
    pixels = batch.images.float()
    images = pixels.lerp(pixels[partner], weight).round().to(torch.uint8)
    targets = batch.targets.lerp(batch.targets[partner], weight)
    # With a weight of 0 or 1, too: which targets are known shall not depend on what is drawn.
    unknown = batch.targets.isnan() | batch.targets[partner].isnan()
    return replace(batch, images=images, targets=targets.masked_fill(unknown, torch.nan))
