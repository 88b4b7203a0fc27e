"""Licence of the weights that a training started from, as far as the recipe of a system says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Start = Literal["unknown", "random", "imagenet", "torchvision", "efficientnet_lite", "timm", "own"]
"""Source of the weights that a training started from."""


def starting_weights(recipe: Mapping[str, Any] | None) -> Start:
    """Return the source of the weights that a training started from.

    Args:
        recipe: Recipe of the system, as predictions record it; None for imported predictions.

    Returns:
        ``random`` for none, the publisher of ImageNet weights (``imagenet`` if the network is not
        recorded), ``own`` for a file or a run, and ``unknown`` where nothing is recorded.

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
