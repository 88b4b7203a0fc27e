"""When a training has gone wrong for good, although every number in it is finite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EXPLODED = 10.0  # times the losses of the first epoch
_HARMLESS = 1.0  # a loss that a model which knows nothing has, too
_ENOUGH = 20  # batches of an epoch from which its first quarter says something


def usual_loss(losses: Sequence[float]) -> float:
    """What the loss of a batch is like before any harm is done.

    Args:
        losses: Of each batch of the first epoch, in order.

    Returns:
        The median, of the epoch or of its first quarter, whichever is smaller: a training that
        explodes in its first epoch was well in the beginning.

    Example:
        >>> usual_loss([1.0, 2.0, 3.0])
        2.0
        >>> usual_loss([1.0] * 10 + [500.0] * 30)
        1.0
    """
    whole = float(np.median(losses))
    if len(losses) < _ENOUGH:
        return whole
    return min(whole, float(np.median(losses[: len(losses) // 4])))


def has_exploded(losses: Sequence[float], usual: float) -> bool:
    """Whether every batch of an epoch lost more than `EXPLODED` times what is usual.

    One bad batch is an image to look at; a whole epoch of them is a learning rate too high.

    Args:
        losses: Of each batch of an epoch.
        usual: From `usual_loss`.

    Example:
        >>> has_exploded([20.0, 30.0], 1.0), has_exploded([0.5, 30.0], 1.0)
        (True, False)
    """
    return min(losses, default=0.0) > max(EXPLODED * usual, _HARMLESS)
