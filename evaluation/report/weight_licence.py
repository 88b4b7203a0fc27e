"""Licence of the weights that a training started from, as far as the recipe of a system says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Start = Literal["unknown", "random", "imagenet", "torchvision", "efficientnet_lite", "timm", "own"]
"""Source of the weights that a training started from."""


def starting_weights(recipe: Mapping[str, Any] | None) -> Start:
    """Return the source of the weights from which the training of a network started.

    Args:
        recipe: Configuration of the training as stored with the predictions, with the network's
            settings (``weights`` and ``backbone``) under ``["config"]["model"]``; None if unknown,
            as for predictions of another program.

    Returns:
        ``random`` without pretrained weights; the publisher of ImageNet weights (``torchvision``,
        ``timm`` or ``efficientnet_lite``; ``imagenet`` if the network is not recorded); ``own`` for
        the user's own weights; ``unknown`` if nothing is recorded.

    Example:
        >>> starting_weights({"config": {"model": {"backbone": "resnet50", "weights": "imagenet"}}})
        'torchvision'
        >>> starting_weights(None)
        'unknown'
    """
    model = ((recipe or {}).get("config") or {}).get("model") or {}
    weights = str(model.get("weights", ""))
    if not weights:
        return "unknown"
    if weights == "none":
        return "random"
    if weights != "imagenet":
        return "own"
    backbone = str(model.get("backbone", ""))
    if not backbone:
        return "imagenet"
    if backbone.startswith("efficientnet_lite"):
        return "efficientnet_lite"
    return "timm" if backbone.startswith("timm:") else "torchvision"
