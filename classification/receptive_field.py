"""Receptive fields of a network's last feature maps, found by following its layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from data_prep.contracts.errors import InputError
from networks.inference import shapes_of

# What each layer that moves or spreads the cells is called with, in order, after its input.
_SLIDING = {
    "conv2d": ("weight", "bias", "stride", "padding", "dilation"),
    "max_pool2d": ("kernel_size", "stride", "padding", "dilation"),
    "avg_pool2d": ("kernel_size", "stride", "padding"),
}
_PLACELESS = {"adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax", "sum"}


@dataclass(frozen=True)
class Grid:
    """How the cells of a feature map lie over the image, in one direction."""

    stride: int = 1  # input px from one cell to the next
    centre: float = 0.5  # px from the edge to the middle of the first cell's field; of a pixel 0.5

    def slide(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Grid:
        """The grid behind a convolution or a pooling (Araujo, Norris and Sim 2019)."""
        moved = (dilation * (kernel - 1) / 2 - padding) * self.stride
        return Grid(self.stride * stride, self.centre + moved)

    def frame(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Outer frame of so many cells, ``x1, y1, x2, y2`` in px."""
        start = self.centre - self.stride / 2
        return start, start, start + width * self.stride, start + height * self.stride


_Grids = tuple[Grid, Grid]  # down the rows, along the columns


def trace_grid(layers: nn.Module, image_size: int) -> tuple[Grid, int]:
    """Follow a network's layers from the image to its maps' cells and channels, without computing.

    Of branches that look at different places, as in ResNet-D, the middle between them is taken.
    """
    pixels = torch.zeros(1, 3, image_size, image_size, device="meta")
    _mark(pixels, (Grid(), Grid()))
    with torch.no_grad(), _Following():
        maps = shapes_of(layers).eval()(pixels)
    grids = _grids(maps)
    if grids is None or maps.ndim != 4 or grids[0] != grids[1] or maps.shape[2] != maps.shape[3]:
        raise InputError("its output is not a grid of square cells over the image")
    return grids[0], maps.shape[1]


class _Following(TorchFunctionMode):
    """Hands the grid on from each function's inputs to its outputs."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        before = _meet([*_tensors(args), *_tensors(kwargs.values())])
        if before is None:
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        if name not in _PLACELESS:
            after = _slide(name, before, args, kwargs)
            for tensor in _tensors([out]):
                _mark(tensor, after)
        return out


def _slide(name: str, grids: _Grids, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Grids:
    """The grids behind a function."""
    if name == "pad":
        left, _, top, _ = (*(args[1] if len(args) > 1 else kwargs["pad"]), 0, 0)[:4]
        rows, columns = grids
        return (
            Grid(rows.stride, rows.centre - top * rows.stride),
            Grid(columns.stride, columns.centre - left * columns.stride),
        )
    if name not in _SLIDING:
        return grids
    given = {**dict(zip(_SLIDING[name], args[1:], strict=False)), **kwargs}
    kernel = given["weight"].shape[2:] if name == "conv2d" else _pair(given["kernel_size"])
    stride = given.get("stride")
    strides = _pair(stride if stride not in (None, (), []) else (1 if name == "conv2d" else kernel))
    dilations = _pair(given.get("dilation", 1))
    padding = given.get("padding", 0)
    if padding == "same":
        paddings = tuple(d * (k - 1) // 2 for d, k in zip(dilations, kernel, strict=True))
    else:
        paddings = (0, 0) if padding == "valid" else _pair(padding)
    rows, columns = (
        grid.slide(k, s, p, d)
        for grid, k, s, p, d in zip(grids, kernel, strides, paddings, dilations, strict=True)
    )
    return rows, columns


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _mark(tensor: Tensor, grids: _Grids) -> None:
    tensor.grids = grids  # type: ignore[attr-defined]


def _grids(tensor: Any) -> _Grids | None:
    return getattr(tensor, "grids", None)


def _meet(tensors: list[Tensor]) -> _Grids | None:
    """The grid that tensors have in common; those without one, such as weights, do not count."""
    found = [grids for tensor in tensors if (grids := _grids(tensor)) is not None]
    if not found:
        return None
    met = []
    for axis in (0, 1):
        stride = max(grids[axis].stride for grids in found)
        centres = [grids[axis].centre for grids in found if grids[axis].stride == stride]
        met.append(Grid(stride, (min(centres) + max(centres)) / 2))
    return met[0], met[1]
