"""ImageNet weights from torchvision's server, fetched only when asked for."""

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from data_prep.tables import InputError

# DenseNet's file is older than the rule that module names hold no dots.
_OLD_DENSE_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def fetch_weights(source: WeightsEnum) -> dict[str, Tensor]:
    """Read a published weights file from torch's cache, or download it there.

    Args:
        source: Which file.

    Returns:
        Its tensors by the names that torchvision's network has today, on the CPU.

    Raises:
        InputError: The file is not in the cache and cannot be downloaded, or is damaged.
    """
    try:
        state = source.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        name = Path(source.url).name
        place = Path(torch.hub.get_dir()) / "checkpoints" / name
        raise InputError(
            f"weights {name}: cannot be fetched ({_reason(error)}); put the file from "
            f"{source.url} at {place}, or train with weights = none"
        ) from None
    return {_OLD_DENSE_KEY.sub(r"\1\2", key): value for key, value in state.items()}


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
