"""The classifier's side of `cxr train`: which images, which losses, which figures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from classification.dataset import ImageLabelDataset, LabelBatch, collate
from classification.loss import (
    Criterion,
    masked_cross_entropy,
    masked_focal_loss,
    positive_weights,
    training_losses,
    validation_losses,
)
from classification.model import ImageClassifier, build_classifier, freeze_for_epoch
from classification.weights import start_from
from evaluation.metrics.image_metrics import auroc, image_average_precision
from scripts import console
from scripts.starting_weights import Start
from scripts.train_images import labelled_images
from scripts.train_task import Trainee, image_classes, initialise
from training.optimisation import Unfreezing

if TYPE_CHECKING:
    from configs.settings import ClassifierConfig, ClassifierTrainingSettings
    from data_prep.augment.augment import Augmentation
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.pixel_store import PixelStore


class Scored(NamedTuple):
    """What one validation batch gave.

    Attributes:
        scores: float64 (B, K), in [0, 1].
        targets: float32 (B, K): 1 present, 0 absent, NaN unknown.
    """

    scores: np.ndarray
    targets: np.ndarray


def build(
    config: ClassifierConfig,
    dataset: DataSet,
    target: Target,
    store: PixelStore,
    augmentation: Augmentation | None,
) -> Trainee:
    """Prepare a classifier's training, on the images whose label is known.

    Raises:
        InputError: The split lacks such images, or the model cannot be built.
    """
    findings = target.any_of
    labels, ids = labelled_images(dataset, target, config.data.split)
    arguments = config.model.model_dump()
    weights, trainable = arguments.pop("weights"), arguments.pop("trainable")
    unfreeze_epochs = arguments.pop("unfreeze_epochs")
    start = Start.open(weights)
    if start is not None:
        arguments |= _pixels(start, store)
    model = initialise(
        build_classifier,
        "none" if start else weights,
        seed=config.training.seed,
        name=arguments.pop("architecture"),
        n_findings=len(findings),
        image_size=store.size,
        **arguments,
    )
    network = cast("ImageClassifier", model)
    if start is not None:
        known = {"findings": start.findings, "own_findings": findings}
        console.say(
            start_from(network, start.state, source=weights, network=start.network, **known)
        )
    settle = partial(freeze_for_epoch, network, trainable, unfreeze_epochs=unfreeze_epochs)
    later = trainable in ("head_first", "stages")
    if not later:  # else the optimiser must know all from the start
        settle(0)
    train = ImageLabelDataset(store, ids["train"], labels, findings, augmentation)
    criterion, how = _criterion(config.training, train.targets), config.training
    return Trainee(
        model=model,
        findings=findings,
        train=train,
        val=ImageLabelDataset(store, ids["val"], labels, findings),
        collate=collate,
        positive=(train.targets == 1).any(axis=1),
        training_losses=partial(
            training_losses, criterion=criterion, smoothing=how.label_smoothing, mixup=how.mixup
        ),
        validation_step=partial(validate, criterion=criterion),
        validation_metrics=score_metrics,
        describe=partial(describe, findings=findings),
        start=start,
        classes=image_classes(dataset, ids["train"]),
        callbacks=[Unfreezing(settle)] if later else [],
    )


def _pixels(start: Start, store: PixelStore) -> dict[str, Any]:
    """Arguments of `build_classifier` that bring pixels as the starting weights learned them."""
    arguments: dict[str, Any] = {**start.pixels(store.size)}
    if start.run is not None:
        return {**arguments, "channels": start.arguments.get("channels", "same")}
    public = start.public
    return arguments if public is None else {**arguments, "channels": public.channels}


def _criterion(how: ClassifierTrainingSettings, targets: np.ndarray) -> Criterion:
    if how.loss == "focal":
        return partial(masked_focal_loss, gamma=how.focal_gamma, alpha=how.focal_alpha)
    weight = how.positive_weight
    if weight == "balanced":
        return partial(masked_cross_entropy, pos_weight=positive_weights(targets))
    each = None if weight == 1 else torch.full((targets.shape[1],), float(weight))
    return partial(masked_cross_entropy, pos_weight=each)


def validate(
    model: ImageClassifier, batch: LabelBatch, criterion: Criterion
) -> tuple[dict[str, Tensor], Scored]:
    """Loss and scores of a validation batch."""
    losses, scores = validation_losses(model, batch, criterion)
    return losses, Scored(scores.cpu().numpy(), batch.targets.cpu().numpy())


def score_metrics(scored: list[Scored]) -> dict[str, float]:
    """Figures of a whole validation, means over the findings where they are defined.

    Args:
        scored: One entry a batch.

    Returns:
        ``auroc`` and ``average_precision``; NaN where no finding has both kinds of images.

    Example:
        >>> score_metrics([Scored(np.array([[0.2], [0.9]]), np.array([[0.0], [1.0]]))])
        {'auroc': 1.0, 'average_precision': 1.0}
    """
    scores = np.concatenate([batch.scores for batch in scored])  # (N, K)
    targets = np.concatenate([batch.targets for batch in scored])  # (N, K)
    figures = {}
    for name, metric in (("auroc", auroc), ("average_precision", image_average_precision)):
        by_finding = [
            metric(true[~np.isnan(true)], score[~np.isnan(true)])
            for true, score in zip(targets.T, scores.T, strict=True)
        ]
        known = [figure for figure in by_finding if figure is not None]
        figures[name] = float(np.mean(known)) if known else float("nan")
    return figures


def describe(batch: LabelBatch, findings: tuple[str, ...]) -> tuple[list[str], None]:
    """Captions for the picture of a batch."""
    words = {1.0: "present", 0.0: "absent"}
    captions = []
    for image_id, targets in zip(batch.image_ids, batch.targets.tolist(), strict=True):
        known = [f"{f} {words.get(t, 'unknown')}" for f, t in zip(findings, targets, strict=True)]
        captions.append(f"{image_id[:12]}: {', '.join(known[:2])}")
    return captions, None
