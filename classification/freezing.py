"""Which parts of a classifier learn: all, the head alone, or more and more from the last on."""

from __future__ import annotations

from typing import Literal

from classification.backbones import trunk_stages
from classification.model import ImageClassifier

Trainable = Literal["all", "head", "head_first", "stages"]


def learning_stages(how: Trainable, epoch: int, unfreeze_epochs: int, stages: int) -> int:
    """How many of a trunk's stages learn in an epoch, counted from the last.

    Args:
        how: ``all``; ``head``, none ever; ``head_first``, none and later all; ``stages``, none and
            later one more each time.
        epoch: From 0.
        unfreeze_epochs: Epochs until ``head_first`` lets all learn, and ``stages`` one more.
        stages: How many there are.

    Returns:
        From 0, the head alone, to `stages`.

    Source:
        ``stages``: gradual unfreezing, Howard and Ruder 2018, ULMFiT.

    Example:
        >>> [learning_stages("stages", epoch, 2, 3) for epoch in range(8)]
        [0, 0, 1, 1, 2, 2, 3, 3]
        >>> [learning_stages("head_first", epoch, 2, 3) for epoch in range(4)]
        [0, 0, 3, 3]
    """
    if how == "all":
        return stages
    if how == "head":
        return 0
    passed = epoch // unfreeze_epochs
    return min(passed, stages) if how == "stages" else (stages if passed else 0)


def freeze_for_epoch(
    model: ImageClassifier, how: Trainable, epoch: int, unfreeze_epochs: int = 1
) -> None:
    """Let the right parts of a classifier learn, and hold the others as they are.

    Args:
        model: Changed in place: what is frozen needs no gradient and stays in evaluation mode, so
            that batch norm keeps its statistics.
        how: As in `learning_stages`.
        epoch: From 0.
        unfreeze_epochs: As in `learning_stages`.

    Example:
        >>> from classification.model import build_classifier
        >>> model = build_classifier("small_cnn", image_size=64)
        >>> freeze_for_epoch(model, "head", epoch=0)
        >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
        257
    """
    if how == "all":
        model.freeze(())
        return
    stages = trunk_stages(model.architecture["arguments"]["name"])
    learning = learning_stages(how, epoch, unfreeze_epochs, len(stages))
    frozen = stages[: len(stages) - learning]
    model.freeze([child for stage in frozen for child in stage])
