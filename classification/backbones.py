"""The convolutional trunks that a classifier may stand on."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from classification.receptive_field import trace_grid
from classification.recipes import BACKBONES, STRIDES, Recipe
from classification.timm_zoo import TIMM, build_timm, timm_fixed_size, timm_normalisation
from data_prep.contracts.errors import InputError

# Published comparisons name networks that do not exist; what their authors may have meant.
NOT_A_NETWORK = {"resnet121": "densenet121, or resnet101"}
_PROBE = 128  # px: every network here takes it


@dataclass(frozen=True)
class Trunk:
    """A convolutional network without its classification layer.

    Attributes:
        layers: Maps float (B, 3, S, S) to float (B, channels, h, w).
        channels: Channels of the last maps.
        stride: Input pixels from one cell of the last maps to the next.
        centre: Where the first cell looks, in px from the image's left or upper edge: the middle
            of its receptive field. Each further cell looks `stride` further.
        rectify: Whether a rectifier follows that is no layer of the network.
    """

    layers: nn.Module
    channels: int
    stride: int
    centre: float
    rectify: bool = False


def find_recipe(name: str) -> Recipe:
    """How a backbone is built.

    Args:
        name: A key of `BACKBONES`, or ``timm:`` and a name of timm's.

    Raises:
        InputError: There is no such backbone, or timm is not installed.

    Example:
        >>> find_recipe("inception_v3").smallest
        75
    """
    if name.startswith(TIMM):
        mean, std = timm_normalisation(name)
        size = timm_fixed_size(name)
        return Recipe(lambda finer: build_timm(name), None, (), mean=mean, std=std, size=size)
    if name in BACKBONES:
        return BACKBONES[name]
    if meant := NOT_A_NETWORK.get(name.lower()):
        raise InputError(f"architecture: there is no {name}; the paper may mean {meant}")
    near = difflib.get_close_matches(name, BACKBONES, n=1)
    raise InputError(
        f"architecture: expected one of {', '.join(BACKBONES)} or {TIMM}NAME, but got {name!r}"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def build_trunk(name: str, last_stride: int, image_size: int = _PROBE) -> Trunk:
    """Build a trunk with random weights.

    Args:
        name: A key of `BACKBONES`, or ``timm:`` and a name of timm's.
        last_stride: Input pixels per position of the last maps: 32, or 16 to leave out the last
            halving where the network can be without it. Leaving it out moves no weight: the same
            file fits both.
        image_size: Side of the images, px.

    Returns:
        The trunk.

    Raises:
        InputError: Unknown name, a stride that this network does not have, images of a size that
            it does not take, or a network without feature maps.
    """
    recipe = find_recipe(name)
    if last_stride not in STRIDES:
        raise InputError(f"last_stride: expected 16 or 32, but got {last_stride}")
    if recipe.strides and last_stride not in recipe.strides:
        raise InputError(
            f"last_stride: {name} has cells of {recipe.strides[0]} px only; set model.last_stride "
            f"= {recipe.strides[0]}"
        )
    if image_size < recipe.smallest:
        raise InputError(
            f"{name}: needs images of at least {recipe.smallest} px, but gets {image_size}; set "
            "data.image_size"
        )
    layers = recipe.build(last_stride == 16)
    try:
        grid, channels, _ = trace_grid(layers, image_size, whole=recipe.size is not None)
    except InputError as error:
        raise InputError(f"{name}: {error}; choose a convolutional network") from None
    except Exception as error:  # networks of one size say so by errors of many kinds
        if not name.startswith(TIMM):
            raise
        raise _other_size(name, layers, image_size, recipe.size, _reason(error)) from None
    if grid.stride != last_stride:
        raise InputError(
            f"last_stride: {name} has cells of {grid.stride} px, not {last_stride}"
            + (f"; set model.last_stride = {grid.stride}" if grid.stride in STRIDES else "")
        )
    return Trunk(layers, channels, grid.stride, grid.centre, recipe.rectify)


def _other_size(
    name: str, layers: nn.Module, image_size: int, takes: int | None, reason: str
) -> InputError:
    """The line for images of a size that a network does not take."""
    if takes is None or takes == image_size:
        return InputError(
            f"{name}: cannot read images of {image_size} px ({reason}); choose another "
            "data.image_size, or another network"
        )
    told = f"{name}: takes images of {takes} px only, but gets {image_size}"
    try:
        trace_grid(layers, takes, whole=True)
    except InputError as error:  # else its user would be sent from one error to the next
        return InputError(f"{told}, and {error}; choose a convolutional network")
    if takes % 32:
        return InputError(f"{told}, and no pixel store has {takes}; choose another network")
    return InputError(f"{told}; set data.image_size = {takes}")


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


@cache
def trunk_stages(name: str) -> tuple[tuple[str, ...], ...]:
    """A trunk's layers in stages, from the image on: each begins where the maps get smaller.

    Args:
        name: A key of `BACKBONES`, or ``timm:`` and a name of timm's.

    Returns:
        Names of the trunk's children; one without weights belongs to the stage before.

    Example:
        >>> trunk_stages("resnet18")[-2:]
        (('layer3',), ('layer4',))
    """
    with torch.random.fork_rng(devices=()):
        recipe = find_recipe(name)
        layers = recipe.build(False)
    size, whole = recipe.size or _PROBE, recipe.size is not None
    stages: list[list[str]] = [[]]
    last = 0
    for child, stride in trace_grid(layers, size, whole=whole)[2].items():
        learns = any(True for _ in layers.get_submodule(child).parameters())
        if stride > last and learns and last:
            stages.append([])
        last = stride if learns else last
        stages[-1].append(child)
    return tuple(tuple(stage) for stage in stages)
