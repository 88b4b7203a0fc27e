"""What a training needs of a model, whatever the model is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from scripts.starting_weights import PUBLISHED_WEIGHTS, Start

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class ImageRows(Protocol):
    """A data set of torch whose rows are images."""

    image_ids: pd.Index

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, key: Any) -> Any:
        """One sample, by row or by (row, seed)."""


@dataclass(frozen=True)
class Trainee:
    """A model, its images and its ways to learn and to be measured.

    Attributes:
        model: The network, initialised.
        findings: What it learns to find, in the order of its outputs.
        train: Training images; takes ``(row, seed)``.
        val: Validation images.
        collate: Samples to a batch.
        positive: Which training images have a finding, bool, shape ``(len(train),)``.
        training_losses: As `training.fit.fit` wants it.
        validation_step: Likewise.
        validation_metrics: Likewise.
        describe: A batch to captions and boxes, for the picture of a batch.
        start: The weights that it starts from; None for random or published ones.
        classes: The data set's own class of each training image; None where it has none.
        scored_losses: As `training_losses`, with the ids of the batch's negative images and the
            most confident finding on each; None where it cannot tell.
        counts_boxes: Whether augmentation may drop boxes, and batches say so in ``dropped``.
        callbacks: For `training.fit.fit`.
    """

    model: nn.Module
    findings: tuple[str, ...]
    train: ImageRows
    val: ImageRows
    collate: Callable[[Sequence[Any]], Any]
    positive: np.ndarray
    training_losses: Callable[[Any, Any], dict[str, Tensor]]
    validation_step: Callable[[Any, Any], tuple[dict[str, Tensor], Any]]
    validation_metrics: Callable[[list[Any]], dict[str, float]]
    describe: Callable[[Any], tuple[list[str], list[np.ndarray] | None]]
    start: Start | None = None
    classes: pd.Series | None = None
    scored_losses: Callable[[Any, Any], tuple[dict[str, Tensor], list[str], Tensor]] | None = None
    counts_boxes: bool = False
    callbacks: Sequence[Any] = ()


def initialise(
    build: Callable[..., nn.Module], weights: str, *, seed: int, **arguments: Any
) -> nn.Module:
    """Build a model from a seed, or from published weights.

    Args:
        build: The builder of its room.
        weights: ``none``, or the name of published weights.
        seed: Seed of the random weights.
        **arguments: The builder's.

    Raises:
        InputError: The weights cannot be had.
    """
    import torch

    published = weights if weights in PUBLISHED_WEIGHTS else None
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return build(weights=published, **arguments)
