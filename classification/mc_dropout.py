"""Monte-Carlo dropout: how far the scores of randomly thinned networks lie apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from classification.loss import scores_of
from classification.model import ImageClassifier
from data_prep.contracts.errors import InputError

_KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def dropout_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that drop anything.

    Example:
        >>> len(dropout_layers(nn.Sequential(nn.Dropout(0.2), nn.Dropout(0.0))))
        1
    """
    return [layer for layer in model.modules() if isinstance(layer, _KINDS) and layer.p > 0]


def check_dropout(model: nn.Module) -> None:
    """Refuse a model that drops nothing: all its passes would be alike.

    Raises:
        InputError: It has no dropout.
    """
    if not dropout_layers(model):
        raise InputError(
            "--mc-dropout: this classifier has no dropout, so all passes would be alike; train "
            "with dropout above 0, or join several seeds with cxr ensemble"
        )


@contextmanager
def _dropping(model: nn.Module) -> Iterator[None]:
    """Let dropout drop, and leave batch norms and all else in evaluation mode."""
    layers = dropout_layers(model)
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer, mode in zip(layers, before, strict=True):
            layer.train(mode)


def dropout_scores(
    model: ImageClassifier, images: Tensor, passes: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Mean and spread of the scores of several passes with dropout.

    Args:
        model: The classifier, in evaluation mode; it is left so.
        images: uint8 (B, 1, S, S), store pixels.
        passes: How many, at least 2.
        seed: The same seed, images and batch give the same result.

    Returns:
        Mean and standard deviation of the probabilities, float32 (B, K) each.

    Raises:
        InputError: The model has no dropout, or there are fewer than two passes.

    Source:
        Gal and Ghahramani 2016.

    Example:
        >>> from classification.model import build_classifier
        >>> model = build_classifier("resnet18", image_size=64, dropout=0.5).eval()
        >>> images = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
        >>> mean, spread = dropout_scores(model, images, passes=3)
        >>> mean.shape, bool((spread >= 0).all())
        (torch.Size([2, 1]), True)
    """
    if passes < 2:
        raise InputError(f"--mc-dropout {passes}: needs at least 2 passes")
    check_dropout(model)
    # Layers below the pooling that drop nothing give the same maps each time.
    fixed = None if dropout_layers(model.trunk) else model.features(images)
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _dropping(model), torch.inference_mode():
        torch.manual_seed(seed)
        each = torch.stack(
            [
                scores_of(model.logits(model.features(images) if fixed is None else fixed))
                for _ in range(passes)
            ]
        )  # (passes, B, K)
    return each.mean(dim=0), each.std(dim=0, correction=0)
