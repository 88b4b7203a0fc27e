"""Image head of a detector: logits of the findings of a whole image, from its feature pyramid."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 5  # of each pyramid that `DetectorStart.pyramid` builds


class ImageHead(nn.Module):
    """One linear layer on the means of all pyramid levels: a logit of each finding for each image.

    Args:
        channels: Number of channels of each level of the pyramid.
        n_findings: Number K of findings (disease signs).
        weight: Factor of the head's loss.

    Source:
        Gabruseva et al. 2020, Deep Learning for Automatic Pneumonia Detection: a detector with a
        second output that classifies the image.
    """

    def __init__(self, channels: int, n_findings: int, weight: float) -> None:
        super().__init__()
        self.linear = nn.Linear(_LEVELS * channels, n_findings)
        self.weight = weight

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Map the maps of all levels, each (B, C, h, w), to logits, float32 (B, K)."""
        pooled = torch.cat([level.float().relu().mean(dim=(2, 3)) for level in levels], dim=1)
        # Under autocast logits of bfloat16 would tie: they have three digits.
        with torch.autocast(pooled.device.type, enabled=False):
            logits: Tensor = self.linear(pooled)
        return logits

    def loss(self, logits: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Return the weighted mean cross entropy; an image has each finding of which it has a box.

        A detector learns from images only whose lesions all have a box.
        """
        labels = torch.zeros_like(logits)  # (B, K)
        for row, target in enumerate(targets):
            labels[row, target["labels"] - 1] = labels.new_ones(())  # no wait for the device
        return self.weight * functional.binary_cross_entropy_with_logits(logits, labels)
