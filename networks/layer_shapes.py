"""Strides and channels of a network's layers, measured without computing values."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import nn


class MeasuredLayer(NamedTuple):
    """Name of a layer, with the stride and the number of the feature maps that it outputs.

    The stride is the distance of neighbouring cells of the maps, in px of the input image.
    """

    name: str
    stride: int  # input px from one cell of its maps to the next
    channels: int


def copy_without_values(layers: nn.Module) -> nn.Module:
    """Copy a network onto torch's meta device, where tensors have shapes but no values."""
    memo = {
        id(tensor): torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for tensor in (*layers.parameters(), *layers.buffers())
    }
    copy = deepcopy(layers, memo)
    for layer in copy.modules():
        # Batch norm changes no shape, and takes PyTorch most of the time here.
        if type(layer) is nn.BatchNorm2d:
            layer.forward = nn.Identity().forward  # type: ignore[method-assign]
    return copy


def measure_layers(layers: nn.Module, image_size: int) -> list[MeasuredLayer]:
    """Measure stride and number of the feature maps that each child of a network outputs.

    The children are its layers in forward order; their input is (1, 3, S, S). Raises TypeError if a
    child does not accept the output of the child before it.

    Example:
        >>> measure_layers(nn.Sequential(nn.Conv2d(3, 8, 1), nn.MaxPool2d(2)), 64)[-1]
        MeasuredLayer(name='1', stride=2, channels=8)
    """
    maps = torch.empty(1, 3, image_size, image_size, device="meta")  # (1, C, h, w)
    measured = []
    for name, layer in copy_without_values(layers).eval().named_children():
        try:
            maps = layer(maps)
            measured.append(MeasuredLayer(name, image_size // maps.shape[-1], maps.shape[1]))
        except Exception as error:
            raise TypeError(
                "the children of a network must be its layers in forward order, each reading what "
                f"the one before gives; '{name}' does not ({type(error).__name__}: {error})"
            ) from error
    return measured
