"""Base classes of detectors and classifiers, and of the batches that they read.

A model normalises images of the pixel store, and can freeze its backbone in stages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import Preprocess

Trainable = Literal["all", "head", "head_first", "stages", "none"] | int


@dataclass(frozen=True)
class ImageBatch:
    """A batch of square images with black borders, uint8 (B, 1, S, S), which the model normalises.

    Subclasses add labels or boxes, which stay in main memory.
    """

    image_ids: list[str]
    images: Tensor  # uint8 (B, 1, S, S), store pixels; the model normalises

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the same batch with its images on another device; labels and boxes do not move.

        `non_blocking` lets the program continue while images are copied from page-locked memory.
        """
        return replace(self, images=self.images.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the same batch with its images in page-locked memory.

        A GPU copies from this memory faster. `DataLoader` calls this method. Labels and boxes do
        not move.
        """
        return replace(self, images=self.images.pin_memory())


class StoreModel(nn.Module, ABC):
    """A model that reads images of a pixel store, and whose backbone can be frozen in stages.

    A pixel store is a folder of images resized to squares with black borders. Frozen layers keep
    their weights in training. Detectors and classifiers are subclasses.

    Attributes:
        architecture: Description from which the same network can be built again, with the keys
            ``kind`` (``detector`` or ``classifier``), ``name`` (such as ``retinanet``) and
            ``arguments``.
        preprocess: Size and normalisation of the pixels that the model reads.
        n_findings: Number of findings (disease signs) that the model predicts.
    """

    architecture: dict[str, Any]
    preprocess: Preprocess
    n_findings: int
    _frozen: tuple[nn.Module, ...] = ()  # a tuple: the backbone has registered them

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # The guarantee of decisions: they hold on every device, where fp32 differs but by rounding.
        torch.backends.cudnn.allow_tf32 = False

    @property
    @abstractmethod
    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """Layers of the backbone in stages, from the input on.

        After each stage the feature maps are smaller. Training can freeze the backbone stage by
        stage.
        """

    def pixels(self, images: Tensor) -> Tensor:
        """Normalise grey images, and repeat the grey channel three times.

        Args:
            images: B square grey images of S x S px (resized, with black borders), uint8 (B, 1, S,
                S).

        Returns:
            Normalised pixels (mean subtracted, divided by the standard deviation), float32 (B, 3,
            S, S).

        Raises:
            InputError: The images are not uint8, or their shape is not that of images of the size
                that the model reads.
        """
        size = self.preprocess.size
        if images.dtype != torch.uint8 or images.shape[1:] != (1, size, size):
            raise InputError(
                f"{self.architecture['kind']}: expected uint8 images of shape (B, 1, {size}, "
                f"{size}), but got {images.dtype} {tuple(images.shape)}; use the pixel store of "
                "this size"
            )
        return self.preprocess.normalise(images).expand(-1, 3, -1, -1)

    def freeze_for_epoch(self, trainable: Trainable, epoch: int = 0) -> None:
        """Let some stages of the backbone learn in an epoch, and freeze the others.

        Layers after the backbone always learn. Frozen stages stay in evaluation mode.

        ``all`` trains all stages, ``head`` and ``none`` none, a number so many of the deepest. With
        ``head_first`` no stage learns in the first epoch, then all; with ``stages`` no stage in the
        first epoch and one more in each further epoch, from the deepest on (the gradual unfreezing
        of ULMFiT, Howard and Ruder 2018). Epochs count from 0.
        """
        stages = self.stages
        n_stages = len(stages)
        if isinstance(trainable, int):
            n_learning = trainable
        else:
            n_learning = {
                "all": n_stages,
                "head": 0,
                "none": 0,
                "head_first": n_stages if epoch else 0,
                "stages": epoch,
            }[trainable]
        n_frozen = max(n_stages - n_learning, 0)
        for number, stage in enumerate(stages):
            for layer in stage:
                layer.requires_grad_(number >= n_frozen)
        self._frozen = tuple(layer for stage in stages[:n_frozen] for layer in stage)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self


def require_findings(findings: Sequence[str], n_findings: int, model: str) -> None:
    """Raise InputError unless as many findings are named as a model has outputs."""
    if len(findings) != n_findings:
        raise InputError(
            f"{model}: knows {n_findings} findings, but got {len(findings)}: {', '.join(findings)}"
        )


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Keep a model in evaluation mode in a ``with`` block, then restore the mode of each part."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, was_training in modes:
            part.training = was_training
