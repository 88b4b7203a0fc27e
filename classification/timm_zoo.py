"""Networks of the library timm, which is installed by the extra `zoo` only."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from data_prep.contracts.errors import InputError
from networks.registry import TIMM


def build_timm(name: str) -> nn.Module:
    """A network of timm's, ``timm:NAME``, without its head, random: the maps that timm pools."""
    return _create(name, pretrained=False)


def fetch_timm(name: str) -> dict[str, Tensor]:
    """Published weights of a network of timm's, from its cache or downloaded there."""
    return _create(name, pretrained=True).state_dict()


def timm_normalisation(name: str) -> tuple[float, float]:
    """Mean and standard deviation of the pixels that published weights want, over the colours."""
    settings = _settings(name)
    mean, std = (sum(values) / 3 for values in (settings.mean, settings.std))
    return round(mean, 3), round(std, 3)


def timm_fixed_size(name: str) -> int | None:
    """Side of the only images that a network takes, px; None where any will do."""
    settings = _settings(name)
    return int(settings.input_size[-1]) if settings.fixed_input_size else None


def _settings(name: str) -> Any:
    return _library(name).models.get_pretrained_cfg(name.removeprefix(TIMM))


def _create(name: str, *, pretrained: bool) -> nn.Module:
    library = _library(name)
    arguments: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    try:
        return library.create_model(name.removeprefix(TIMM), pretrained=pretrained, **arguments)
    except Exception as error:  # noqa: BLE001  timm and its hub raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if pretrained:
            raise InputError(
                f"weights of {name}: cannot be fetched ({reason}); train with weights = none, or "
                "from a file"
            ) from None
        raise InputError(f"{name}: timm cannot build it for a classifier ({reason})") from None


def _library(name: str) -> ModuleType:
    """The module timm, where it is installed and has the network."""
    try:
        library = importlib.import_module("timm")
    except ImportError:
        raise InputError(
            f"architecture: {name} needs timm, which is not installed; pip install "
            "'cxr-compare[zoo]'"
        ) from None
    plain = name.removeprefix(TIMM)
    if not library.is_model(plain):
        raise InputError(
            f"architecture: timm has no network {plain!r}; timm.list_models() tells their names"
        )
    return library
