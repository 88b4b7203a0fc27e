"""Weights that a training started from and their licence, as far as a recipe names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def starting_weights(recipe: Mapping[str, Any] | None) -> str:
    """Return a sentence on the weights from which the training of a network started.

    Args:
        recipe: Configuration of the training as stored with the predictions, with the network's
            settings (``weights`` and ``backbone``) under ``["config"]["model"]``; None if unknown,
            as for predictions of another program.

    Returns:
        The source of the weights, and under which terms they are; empty if nothing is recorded.

    Example:
        >>> starting_weights({"config": {"model": {"backbone": "resnet50", "weights": "none"}}})
        'The training started from random weights.'
        >>> starting_weights(None)
        ''
    """
    model = ((recipe or {}).get("config") or {}).get("model") or {}
    weights, backbone = str(model.get("weights", "")), str(model.get("backbone", ""))
    if not weights:
        return ""
    if weights == "none":
        return "The training started from random weights."
    if weights != "imagenet":
        return "The training started from other weights of the user, whose licence applies as well."
    if not backbone:
        return "The training started from ImageNet weights, whose licence depends on the network."
    if backbone.startswith("efficientnet_lite"):
        return "The training started from ImageNet weights of EfficientNet-Lite, under Apache-2.0."
    if backbone.startswith("timm:"):
        return (
            "The training started from weights of timm, whose licence is on the page of that model."
        )
    return (
        "The training started from ImageNet weights of torchvision, whose code is under "
        "BSD-3-Clause. torchvision says that its weights may have terms of their own, which follow "
        "from the data that they were trained on."
    )
