"""Where the cells of a network's last feature maps lie, found by following its functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import to_2tuple
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from data_prep.contracts.errors import InputError
from networks.inference import shapes_of

# What each function that moves or spreads the cells is called with, in order, after its input.
_SLIDING = {
    "conv2d": ("weight", "bias", "stride", "padding", "dilation"),
    "max_pool2d": ("kernel_size", "stride", "padding", "dilation"),
    "avg_pool2d": ("kernel_size", "stride", "padding"),
}
_PLACELESS = {"adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax", "sum"}
_NO_GRID = "its output is not a grid of square cells over the image"


@dataclass(frozen=True)
class Grid:
    """How the cells of a feature map lie over the image, down as across."""

    stride: int = 1  # input px from one cell to the next
    centre: float = 0.5  # px from the edge to the middle of the first cell's field; of a pixel 0.5

    def tiling(self) -> Grid:
        """The same cells where they tile the image."""
        return Grid(self.stride, self.stride / 2)

    def frame(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Outer frame of so many cells, ``x1, y1, x2, y2`` in px."""
        start = self.centre - self.stride / 2
        return start, start, start + width * self.stride, start + height * self.stride


def trace_grid(layers: nn.Module, image_size: int) -> tuple[Grid, int]:
    """Follow a network's layers from the image to its maps' cells and channels, without computing.

    Of branches that look at different places, as in ResNet-D, the middle between them is taken.
    """
    pixels = torch.zeros(1, 3, image_size, image_size, device="meta")
    pixels.grid = Grid()  # type: ignore[attr-defined]
    with torch.no_grad(), _Following():
        maps = shapes_of(layers).eval()(pixels)
    grid = getattr(maps, "grid", None)
    if grid is None or maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
        raise InputError(_NO_GRID)
    return grid, maps.shape[1]


class _Following(TorchFunctionMode):
    """Hands the grid on from each function's inputs to its outputs."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        inputs = _tensors([*args, *kwargs.values()])
        grids = [tensor.grid for tensor in inputs if hasattr(tensor, "grid")]  # not of weights
        out = func(*args, **kwargs)
        if grids and name not in _PLACELESS:
            stride = max(grid.stride for grid in grids)  # they meet in the coarsest
            centres = [grid.centre for grid in grids if grid.stride == stride]
            before = Grid(stride, (min(centres) + max(centres)) / 2)
            after = _slide(name, before, args, kwargs)
            for tensor in _tensors([out]):
                tensor.grid = after  # type: ignore[attr-defined]
        return out


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _slide(name: str, grid: Grid, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Grid:
    """The grid behind a function (Araujo, Norris and Sim 2019), as it is down the rows."""
    if name == "pad":
        edges = args[1] if len(args) > 1 else kwargs["pad"]  # left, right, top, bottom
        top = edges[2] if len(edges) > 2 else 0
        if edges[0] != top:  # of tokens in a row, not of maps
            raise InputError(_NO_GRID)
        return Grid(grid.stride, grid.centre - top * grid.stride)
    if name not in _SLIDING:
        return grid
    given = {**dict(zip(_SLIDING[name], args[1:], strict=False)), **kwargs}
    is_conv = name == "conv2d"
    kernel = given["weight"].shape[2] if is_conv else to_2tuple(given["kernel_size"])[0]
    stride = to_2tuple(given.get("stride") or (1 if is_conv else kernel))[0]
    dilation, padding = to_2tuple(given.get("dilation", 1))[0], given.get("padding", 0)
    if isinstance(padding, str):
        padding = dilation * (kernel - 1) // 2 if padding == "same" else 0
    moved = (dilation * (kernel - 1) / 2 - to_2tuple(padding)[0]) * grid.stride
    return Grid(grid.stride * stride, grid.centre + moved)
