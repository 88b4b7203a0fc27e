"""What both models do alike: they read images of a store, and parts of them may be frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import InitVar, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.pixel_store import require_images
from cxr_compare.data_prep.store.preprocess import Preprocess

if TYPE_CHECKING:
    from cxr_compare.data_prep.augment.augment import Augmentation
    from cxr_compare.data_prep.store.pixel_store import PixelSource

Trainable = Literal["all", "head", "head_first", "stages"] | int


@dataclass(frozen=True)
class ImageSample:
    """One image; subclasses say what is known of it."""

    image_id: str
    pixels: np.ndarray  # uint8 (S, S), store pixels


@dataclass(frozen=True)
class ImageBatch:
    """Images for a model; what subclasses know of them stays in main memory: checks are free."""

    image_ids: list[str]
    images: Tensor  # uint8 (B, 1, S, S), store pixels; the model normalises

    @classmethod
    def of(cls, samples: Sequence[ImageSample], *known: Any) -> Self:
        """Stack images of one size into a batch, which owns its memory."""
        pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples]))
        return cls([sample.image_id for sample in samples], pixels.unsqueeze(1), *known)

    def __len__(self) -> int:
        return len(self.image_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same batch, its images on another device."""
        return replace(self, images=self.images.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same batch, its images in page-locked memory; `DataLoader` calls this."""
        return replace(self, images=self.images.pin_memory())


_Sample = TypeVar("_Sample", bound=ImageSample)


@dataclass(eq=False)
class ImageDataset(Dataset[_Sample], ABC):
    """Images of a pixel store with what is known of them; an image that it lacks is an error."""

    store: PixelSource
    image_ids: pd.Index  # images of this set, in this order
    known: InitVar[pd.DataFrame]  # of these images, and maybe of others
    findings: Sequence[str]  # to learn, in the order of the model's outputs
    augmentation: Augmentation | None = None  # applied where a sample is asked for with a seed

    def __post_init__(self, known: pd.DataFrame) -> None:
        self.image_ids = pd.Index(self.image_ids)
        require_images(self.store, self.image_ids)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> _Sample:
        """One image by its row, or by (row, seed) augmented; equal seeds give equal images."""
        row, seed = key if isinstance(key, tuple) else (key, None)
        sample = self._plain(row, str(self.image_ids[row]))
        return sample if seed is None else self._augmented(sample, seed)

    @abstractmethod
    def _plain(self, row: int, image_id: str) -> _Sample: ...

    @abstractmethod
    def _augmented(self, sample: _Sample, seed: int) -> _Sample: ...


class StoreModel(nn.Module, ABC):
    """A model that reads images of the pixel store, and whose backbone may be frozen by stages."""

    # ``kind``, ``name`` and ``arguments``, from which its builder makes the same network again
    architecture: dict[str, Any]
    preprocess: Preprocess  # size and normalisation of the pixels that it reads
    n_findings: int
    _frozen: tuple[nn.Module, ...] = ()  # a tuple: the backbone has registered them

    @property
    @abstractmethod
    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """Layers of the backbone, first to last: each stage begins where maps get smaller."""

    def pixels(self, images: Tensor) -> Tensor:
        """Normalised float32 (B, 3, S, S), three equal channels, of store pixels.

        Raises:
            InputError: They are not uint8 (B, 1, S, S) of the model's size.
        """
        size = self.preprocess.size
        if images.dtype != torch.uint8 or images.shape[1:] != (1, size, size):
            raise InputError(
                f"{self.architecture['kind']}: expected uint8 images of shape (B, 1, {size}, "
                f"{size}), but got {images.dtype} {tuple(images.shape)}; use the pixel store of "
                "this size"
            )
        return self.preprocess.normalise(images).expand(-1, 3, -1, -1)

    def freeze_for_epoch(self, how: Trainable, epoch: int = 0) -> None:
        """Let the right stages of the backbone learn in an epoch, from 0, and keep the others.

        What is behind the backbone always learns. Frozen stages stay in evaluation mode. ``stages``
        is the gradual unfreezing of Howard and Ruder 2018, ULMFiT; a number counts stages from the
        deepest.
        """
        stages = self.stages
        every = len(stages)
        named = {"all": every, "head": 0, "head_first": every if epoch else 0, "stages": epoch}
        kept = max(every - (how if isinstance(how, int) else named[how]), 0)
        for number, stage in enumerate(stages):
            for layer in stage:
                layer.requires_grad_(number >= kept)
        self._frozen = tuple(layer for stage in stages[:kept] for layer in stage)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but leave what is frozen in evaluation mode."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self


def shapes_of(layers: nn.Module) -> nn.Module:
    """A copy of a network whose tensors have shapes and no values: to run it computes nothing."""
    memo = {
        id(each): torch.empty(each.shape, dtype=each.dtype, device="meta")
        for each in (*layers.parameters(), *layers.buffers())
    }
    shapes = deepcopy(layers, memo)
    for layer in shapes.modules():
        if type(layer) is nn.BatchNorm2d:  # moves nothing, and takes PyTorch most of the time here
            layer.forward = nn.Identity().forward  # type: ignore[method-assign]
    return shapes


def measure_layers(layers: nn.Module, size: int) -> list[tuple[str, int, int]]:
    """Name, stride and channels of a network's children, which are its layers in forward order."""
    pixels, measured = torch.empty(1, 3, size, size, device="meta"), []
    for name, layer in shapes_of(layers).eval().named_children():
        try:
            pixels = layer(pixels)
            measured.append((name, size // pixels.shape[-1], pixels.shape[1]))
        except Exception as error:
            raise TypeError(
                "the children of a network must be its layers in forward order, each reading what "
                f"the one before gives; '{name}' does not ({type(error).__name__}: {error})"
            ) from error
    return measured


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
