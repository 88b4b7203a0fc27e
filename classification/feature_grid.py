"""Positions of the cells of a network's feature maps in the input image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.layers import to_2tuple
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.networks.layer_shapes import copy_without_values

# Names of the arguments after the input, in order, of each function that changes the grid of cells.
_WINDOW_ARGUMENTS = {
    "conv2d": ("weight", "bias", "stride", "padding", "dilation"),
    "max_pool2d": ("kernel_size", "stride", "padding", "dilation"),
    "avg_pool2d": ("kernel_size", "stride", "padding"),
}
# Functions whose output has no position in the image.
_GLOBAL_REDUCTIONS = {"adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax", "sum"}
_NO_GRID = "its output is not a grid of square cells over the image"


@dataclass(frozen=True)
class Grid:
    """Positions of the cells of a square feature map in its image, the same for rows and columns.

    `stride` is the distance of neighbouring cells, and `centre` the distance from the left (or
    upper) edge of the image to the middle of the first cell, in px of the image. With the defaults,
    the cells are the pixels of the image.

    Example:
        >>> Grid(stride=32, centre=16.0).frame(7, 7)
        (0.0, 0.0, 224.0, 224.0)
    """

    stride: int = 1
    centre: float = 0.5

    def tiling(self) -> Grid:
        """Return a grid with the same stride whose first cell begins at the edge of the image."""
        return Grid(self.stride, self.stride / 2)

    def frame(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the outer edges of a map whose cells are squares with the stride as their side.

        The edges x1, y1, x2, y2 of a map of some cells in height and width are in px of the input
        image, whose upper left corner is (0, 0). They may lie outside the image.
        """
        start = self.centre - self.stride / 2
        return start, start, start + width * self.stride, start + height * self.stride


class TracedMaps(NamedTuple):
    """Positions of the cells of a network's last feature maps, and their number of channels."""

    grid: Grid
    channels: int


def trace_grid(layers: nn.Module, image_size: int) -> TracedMaps:
    """Find where in the image the cells of a network's output lie, without computing values.

    If branches with different centres meet, as in ResNet-D, the mean of their centres is taken.

    `layers` map (1, 3, S, S) to (1, C, h, h), and stay unchanged. Raises InputError if the output
    is not a square grid of cells.

    Example:
        >>> trace_grid(nn.Conv2d(3, 8, 3, stride=2, padding=1), 64)
        TracedMaps(grid=Grid(stride=2, centre=0.5), channels=8)
    """
    pixels = torch.zeros(1, 3, image_size, image_size, device="meta")
    pixels.grid = Grid()  # type: ignore[attr-defined]
    with torch.no_grad(), _GridTracing():
        maps = copy_without_values(layers).eval()(pixels)  # (1, C, h, w)
    grid = getattr(maps, "grid", None)
    if grid is None or maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
        raise InputError(_NO_GRID)
    return TracedMaps(grid, maps.shape[1])


class _GridTracing(TorchFunctionMode):
    """Mode in which every function of torch passes the grid of its inputs on to its outputs."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        inputs = _tensors_in([*args, *kwargs.values()])
        grids = [tensor.grid for tensor in inputs if hasattr(tensor, "grid")]  # weights have none
        output = func(*args, **kwargs)
        if grids and name not in _GLOBAL_REDUCTIONS:
            stride = max(grid.stride for grid in grids)  # branches meet in the coarsest grid
            centres = [grid.centre for grid in grids if grid.stride == stride]
            before = Grid(stride, (min(centres) + max(centres)) / 2)
            after = _grid_behind(name, before, args, kwargs)
            for tensor in _tensors_in([output]):
                tensor.grid = after  # type: ignore[attr-defined]
        return output


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors_in(value)


def _grid_behind(name: str, grid: Grid, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Grid:
    """Return the grid behind a function, along the rows.

    Source:
        Araujo, Norris and Sim 2019, Computing Receptive Fields of Convolutional Neural Networks.
    """
    if name == "pad":
        edges = args[1] if len(args) > 1 else kwargs["pad"]  # left, right, top, bottom
        top = edges[2] if len(edges) > 2 else 0
        if edges[0] != top:  # tokens in a row rather than maps
            raise InputError(_NO_GRID)
        return Grid(grid.stride, grid.centre - top * grid.stride)
    if name not in _WINDOW_ARGUMENTS:
        return grid
    arguments = {**dict(zip(_WINDOW_ARGUMENTS[name], args[1:], strict=False)), **kwargs}
    is_conv = name == "conv2d"
    kernel = arguments["weight"].shape[2] if is_conv else to_2tuple(arguments["kernel_size"])[0]
    default_stride = 1 if is_conv else kernel
    stride = to_2tuple(arguments.get("stride") or default_stride)[0]
    dilation = to_2tuple(arguments.get("dilation", 1))[0]
    padding = arguments.get("padding", 0)
    if isinstance(padding, str):
        padding = dilation * (kernel - 1) // 2 if padding == "same" else 0
    shift = (dilation * (kernel - 1) / 2 - to_2tuple(padding)[0]) * grid.stride
    return Grid(grid.stride * stride, grid.centre + shift)
