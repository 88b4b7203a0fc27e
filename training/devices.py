"""Several processes that train one model: what they tell each other."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Told = TypeVar("Told")


def gather(value: Told) -> list[Told]:
    """What each process has, in the order of the processes; alone, a list of one.

    Every process must call it.

    Args:
        value: Plain Python objects.

    Example:
        >>> gather("alone")
        ['alone']
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Told] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def share_batch_statistics(model: nn.Module) -> nn.Module:
    """Make live batch norms measure the whole batch, not one GPU's share of it.

    Norms that are in evaluation mode are frozen and stay as they are. Names of weights do not
    change. CPUs have no such norm: there each process measures its own share, and the statistics
    of the first are kept.

    Args:
        model: In training mode; changed in place.

    Returns:
        The same model.

    Example:
        >>> net = share_batch_statistics(nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()))
        >>> [type(layer).__name__ for layer in net]
        ['SyncBatchNorm', 'BatchNorm2d']
    """
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm):
            if child.training:
                setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        else:
            share_batch_statistics(child)
    return model
