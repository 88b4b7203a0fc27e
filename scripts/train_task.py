"""What a training needs of a model, whatever the model is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from torch import Tensor, nn

from data_prep.augment.augment import DroppedBoxes
from data_prep.contracts.errors import InputError
from scripts.starting_weights import PUBLISHED_WEIGHTS, Start
from training.sampling import (
    EpochSums,
    HardNegatives,
    SeededSampler,
    balancing_weights,
    shared_weights,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from lightning.pytorch import Callback
    from torch import Tensor

    from configs.settings import DrawSettings, TrainingSettings
    from data_prep.store.dataset import DataSet


_NEGATIVES = ("not_normal", "normal")
_COLUMNS = {"train_boxes": "given", "train_boxes_out": "outside", "train_boxes_small": "small",
            "train_boxes_covered": "covered"}  # fmt: skip


def image_classes(dataset: DataSet, image_ids: pd.Index) -> pd.Series | None:
    """The class of each image as the data set gives it, such as ``not_normal``; None without."""
    if "x_class" not in dataset.images.columns:
        return None
    return dataset.images.set_index("image_id")["x_class"].reindex(image_ids)


def drawing_weights(trainee: Trainee, how: TrainingSettings) -> np.ndarray | None:
    """How often each training image is drawn, by ``draw`` or ``positive_share``; None: once.

    Raises:
        InputError: ``draw`` is asked of images whose class is unknown or not one of its kinds, or
            gives a share to a kind that has no image.
    """
    if how.draw is not None:
        return _weights_by_kind(trainee.positive, trainee.classes, how.draw)
    return balancing_weights(trainee.positive, how.positive_share) if how.positive_share else None


def _weights_by_kind(
    positive: np.ndarray, classes: pd.Series | None, draw: DrawSettings
) -> np.ndarray:
    use = "use training.positive_share in place of training.draw"
    if classes is None:
        raise InputError(
            "training.draw: the data set does not tell normal from other negative images (it has "
            f"no column x_class); {use}"
        )
    kinds = np.where(positive, 0, 1 + pd.Index(_NEGATIVES).get_indexer(pd.Index(classes)))
    strange = ~positive & (kinds == 0)
    if strange.any():
        value = classes[strange].iloc[0]
        said = "no x_class" if pd.isna(value) else f"x_class '{value}'"
        raise InputError(
            f"training.draw: {int(strange.sum())} negative training images are neither 'normal' "
            f"nor 'not_normal' (image '{classes.index[strange][0]}' has {said}); {use}"
        )
    shares = [draw.positive, draw.not_normal, draw.normal]
    for kind, (name, share) in enumerate(zip(("positive", *_NEGATIVES), shares, strict=True)):
        if share and not (kinds == kind).any():
            raise InputError(
                f"training.draw: {name} = {share}, but no training image is of that kind; give "
                "its share to the others"
            )
    return shared_weights(kinds, shares)


def build_sampler(trainee: Trainee, how: TrainingSettings) -> tuple[SeededSampler, Trainee]:
    """Make the sampler, and let the training report what hard negatives and counts need.

    Args:
        trainee: The model and its images.
        how: Seed and shares.

    Returns:
        The sampler, and the trainee, whose losses and figures also report to its callbacks.

    Raises:
        InputError: As `drawing_weights`.
    """
    weights: Any = drawing_weights(trainee, how)
    n_rows = len(trainee.positive)
    callbacks: list[Callback] = [*trainee.callbacks]
    share = getattr(how, "hard_negatives", 0.0)
    if share and trainee.scored_losses is not None:
        base = np.ones(n_rows) if weights is None else weights
        hard = HardNegatives(trainee.train.image_ids, ~trainee.positive, base, share)
        weights = hard.weights
        trainee = replace(trainee, training_losses=_reporting(trainee.scored_losses, hard))
        callbacks.append(hard)
    if trainee.counts_boxes:
        sums = EpochSums(list(_COLUMNS))
        trainee = _counting(trainee, sums)
        callbacks.append(sums)
    sampler = SeededSampler(n_rows, seed=how.seed, weights=weights)
    return sampler, replace(trainee, callbacks=callbacks)


def _reporting(
    scored_losses: Callable[[Any, Any], tuple[dict[str, Tensor], Sequence[str], Tensor]],
    hard: HardNegatives,
) -> Callable[[Any, Any], dict[str, Tensor]]:
    def training_losses(model: Any, batch: Any) -> dict[str, Tensor]:
        losses, image_ids, scores = scored_losses(model, batch)
        hard.see(image_ids, scores)
        return losses

    return training_losses


def _counting(trainee: Trainee, sums: EpochSums) -> Trainee:
    """The trainee, which counts boxes and puts the counts beside the figures of each epoch."""

    def training_losses(model: Any, batch: Any) -> dict[str, Tensor]:
        counts = batch.dropped._asdict()
        sums.add({name: counts[field] for name, field in _COLUMNS.items()})
        return trainee.training_losses(model, batch)

    def validation_metrics(outputs: list[Any]) -> dict[str, float]:
        return {**trainee.validation_metrics(outputs), **sums.joined}

    return replace(trainee, training_losses=training_losses, validation_metrics=validation_metrics)


def dropped_boxes(history: Sequence[dict[str, Any]]) -> DroppedBoxes | None:
    """What became of the boxes in all epochs together; None where nobody counted."""
    if not history or "train_boxes" not in history[0]:
        return None
    return DroppedBoxes(
        **{field: sum(int(row[name]) for row in history) for name, field in _COLUMNS.items()}
    )


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
