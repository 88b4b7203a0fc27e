"""Batch norm that learns, alone or over several processes."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_live_batch_norm(model: nn.Module) -> bool:
    """Return True if a model in training mode has batch norms that are not frozen.

    Example:
        >>> has_live_batch_norm(nn.Sequential(nn.BatchNorm2d(3)))
        True
    """
    return any(isinstance(layer, _BatchNorm) and layer.training for layer in model.modules())


def share_batch_statistics(model: nn.Module) -> nn.Module:
    """Make live batch norms measure the batch of all processes; torch has this for CUDA only.

    Norms in evaluation mode are frozen and stay as they are. Names of weights do not change.

    Example:
        >>> live, frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval()
        >>> net = share_batch_statistics(nn.Sequential(live, frozen))
        >>> [type(layer).__name__ for layer in net]
        ['SyncBatchNorm', 'BatchNorm2d']
    """
    for name, child in model.named_children():
        if not isinstance(child, _BatchNorm):
            share_batch_statistics(child)
        elif child.training:
            setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    return model
