"""A second question to the same pyramid: does this image show the finding at all?"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_prep.contracts.errors import InputError
from detection.anchors import LEVELS

ImageHeadMode = Literal["multiply", "none"]


class ImageHead(nn.Module):
    """One score per finding for the whole image, from the pyramid that the boxes come from.

    Every level is pooled twice: its mean sees a change of the whole lung, its maximum one small
    lesion. A single linear layer weighs what is pooled. Trained jointly, it teaches the backbone
    what separates images with lesions from those without, which anchors see only piece by piece.

    Args:
        channels: Channels of every pyramid level.
        n_findings: Findings K.
        weight: Multiplies its loss.
        mode: ``multiply`` also multiplies its score into those of the boxes and takes the square
            root, their geometric mean (`rescore`); ``none`` only learns with it.

    Raises:
        InputError: The weight or the mode is not usable.

    Source:
        The second place of the RSNA Pneumonia Detection Challenge 2018 (D. Poplavskiy): a
        RetinaNet that also predicts the class of the image.
    """

    def __init__(
        self,
        channels: int,
        n_findings: int,
        *,
        weight: float = 0.5,
        mode: ImageHeadMode = "multiply",
    ) -> None:
        super().__init__()
        if not 0 < weight < float("inf"):
            raise InputError(f"image_head_weight: expected a number above 0, but got {weight}")
        if mode not in get_args(ImageHeadMode):
            raise InputError(f"image_head_mode: expected multiply or none, but got {mode!r}")
        self.weight = weight
        self.mode = mode
        self.score = nn.Linear(2 * LEVELS * channels, n_findings)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Score images.

        Args:
            features: The pyramid: five maps (B, C, H, W), in any precision.

        Returns:
            Logits (B, K), float32, whatever autocast does around.
        """
        with torch.autocast(features[0].device.type, enabled=False):
            levels = [level.float() for level in features]
            pooled = [pool(dim=(2, 3)) for level in levels for pool in (level.mean, level.amax)]
            return self.score(torch.cat(pooled, dim=1))

    def loss(self, logits: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Binary cross entropy against whether the image has a box of each finding.

        Args:
            logits: (B, K), float32.
            labels: Per image (N,), int64, from 1; the labels of its boxes.

        Returns:
            The mean over images and findings times the weight, a scalar.
        """
        shown = has_finding(labels, logits.shape[1]).to(logits)
        return self.weight * functional.binary_cross_entropy_with_logits(logits, shown)


def has_finding(labels: Sequence[Tensor], n_findings: int) -> Tensor:
    """Which findings each image has a box of.

    Args:
        labels: Per image (N,), int64, from 1 to K.
        n_findings: K.

    Returns:
        Bool (B, K).

    Example:
        >>> has_finding([torch.tensor([2, 2]), torch.tensor([], dtype=torch.int64)], 2).tolist()
        [[False, True], [False, False]]
    """
    shown = torch.zeros(len(labels), n_findings, dtype=torch.bool, device=labels[0].device)
    for row, found in zip(shown, labels, strict=True):
        row[found - 1] = True
    return shown


def rescore(found: dict[str, Tensor], image_scores: Tensor, least: float) -> dict[str, Tensor]:
    """Turn box scores into the geometric mean of box score and image score.

    Boxes stay a detector's only output, so everything behind it works as before. Within an image
    the boxes of a finding keep their order, and so does what NMS and the limits keep; what changes
    is how boxes of different images rank: a sure box in an image that looks normal steps back.
    Of mean and product the mean keeps the scale, so that the same score floor serves.

    Args:
        found: ``boxes`` (N, 4), ``scores`` (N,), ``labels`` (N,) from 1, sorted by score.
        image_scores: (K,), in [0, 1].
        least: Boxes that fall below this score are dropped.

    Returns:
        The same names, sorted by the new scores.

    Example:
        >>> boxes, labels = torch.zeros(2, 4), torch.tensor([1, 1])
        >>> found = {"boxes": boxes, "scores": torch.tensor([0.81, 0.01]), "labels": labels}
        >>> rescore(found, torch.tensor([0.25]), least=0.1)["scores"]
        tensor([0.4500])
    """
    scores = (found["scores"] * image_scores[found["labels"] - 1]).sqrt()
    order = scores.sort(descending=True, stable=True).indices
    kept = order[scores[order] >= least]
    return {name: values[kept] for name, values in (found | {"scores": scores}).items()}
