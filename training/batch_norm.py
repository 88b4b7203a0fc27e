"""Batch normalisation that learns, in one process or over several."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_live_batch_norm(model: nn.Module) -> bool:
    """Return True if a model has batch norms that use the statistics of the batch (not frozen).

    Args:
        model: Model in training mode.

    Example:
        >>> has_live_batch_norm(nn.Sequential(nn.BatchNorm2d(3)))
        True
    """
    return any(isinstance(layer, _BatchNorm) and layer.training for layer in model.modules())


def share_batch_statistics(model: nn.Module) -> nn.Module:
    """Make batch norms use the statistics of the whole batch, which several processes share.

    Torch supports this on CUDA only. A norm in evaluation mode (frozen) stays unchanged. The names
    of the weights do not change.

    Args:
        model: The model, whose layers are replaced in place.

    Returns:
        The same model, in which a norm that is not frozen is replaced by `SyncBatchNorm`.

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
