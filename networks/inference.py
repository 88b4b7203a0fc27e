"""What both models do alike around a forward: batches in, and modes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from data_prep.contracts.errors import InputError


class _Sample(Protocol):
    @property
    def pixels(self) -> np.ndarray:
        """uint8 (S, S), store pixels."""


def stack_pixels(samples: Sequence[_Sample]) -> Tensor:
    """The images of a batch, uint8 (B, 1, S, S); it owns its memory."""
    return torch.from_numpy(np.stack([sample.pixels for sample in samples])).unsqueeze(1)


def require_store_pixels(images: Tensor, size: int, model: str) -> None:
    """Refuse images that are not of the pixel store that a model was built for."""
    if images.dtype != torch.uint8 or images.shape[1:] != (1, size, size):
        raise InputError(
            f"{model}: expected uint8 images of shape (B, 1, {size}, {size}), but got "
            f"{images.dtype} {tuple(images.shape)}; use the pixel store of this size"
        )


def require_findings(findings: Sequence[str], n_findings: int, model: str) -> None:
    """Refuse findings that are not as many as a model knows."""
    if len(findings) != n_findings:
        raise InputError(
            f"{model}: knows {n_findings} findings, but got {len(findings)}: {', '.join(findings)}"
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode, and restore its mode at the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
