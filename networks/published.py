"""Published weights, from torch's cache, the network or an installed package."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from data_prep.contracts.errors import InputError
from networks.packaged import PackagedWeights

IMAGENET = (0.449, 0.226)
"""Mean and standard deviation of ImageNet's pixels, in [0, 1], averaged over the colours."""


def fetch_weights(source: WeightsEnum | PackagedWeights) -> dict[str, Tensor]:
    """Read a published weights file: torchvision's is downloaded where torch's cache lacks it.

    Args:
        source: Which file.

    Returns:
        Its tensors by name, on the CPU.

    Raises:
        InputError: The file is not in the cache and cannot be downloaded, its package is not
            installed, or it is damaged.
    """
    if isinstance(source, PackagedWeights):
        return source.get_state_dict()
    try:
        state = source.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        name = Path(source.url).name
        place = Path(torch.hub.get_dir()) / "checkpoints" / name
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"weights {name}: cannot be fetched ({reason}); put the file from {source.url} at "
            f"{place}, or train with weights = none"
        ) from None
    return dict(state)
