"""Keys of a training configuration that a user writes as options, such as ``--epochs 3``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.parameters import parameters_of

_SECTIONS = ("training", "data", "model", "augmentation")  # in this order, if two have one key
_SYNONYMS = {
    "lr": "learning_rate",
    "batch": "batch_size",
    "bs": "batch_size",
    "epoch": "epochs",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "max_epochs": "epochs",
    "imgsz": "image_size",
    "img_size": "image_size",
    "input_size": "image_size",
    "resolution": "image_size",
    "size": "image_size",
    "random_seed": "seed",
    "wd": "weight_decay",
    "optimizer": "optimiser",
    "scheduler": "schedule",
    "num_workers": "workers",
    "arch": "architecture",
    "network": "architecture",
    "pretrained": "weights",
    "early_stopping": "patience",
    "flip": "horizontal_flip",
    "amp": "precision",
    "logger": "loggers",
}
"""Names of keys in other programs, and the key of this one."""


@cache
def _key_by_name() -> dict[str, str]:
    """Return ``section.key`` of every key of a configuration, by the name of the key alone."""
    from cxr_compare.configs.settings import ClassifierConfig, DetectorConfig

    keys: dict[str, str] = {}
    for section in _SECTIONS:
        for config in (DetectorConfig, ClassifierConfig):
            fields: Any = config.model_fields[section].annotation
            for name in fields.model_fields:
                keys.setdefault(name, f"{section}.{name}")
    return keys


def configuration_key(option: str) -> str | None:
    """Return the key of a configuration that an option names, also by its name in other programs.

    The option may be a keyword as well. None if there is no such key.

    Example:
        >>> configuration_key("--lr"), configuration_key("--no-such")
        ('training.learning_rate', None)
    """
    name = option.lstrip("-").replace("-", "_").lower()
    keys = _key_by_name()
    if "." in name:
        return name if name in keys.values() else None
    return keys.get(_SYNONYMS.get(name, name))


def key_advice(function: Callable[..., Any], name: str, *, from_python: bool) -> str | None:
    """Return how to set the key of a configuration that a user wrote as an option or a keyword.

    None if there is no such key, or the command has no configuration (no option ``--set``).

    Example:
        >>> from cxr_compare.scripts.commands.train import train
        >>> key_advice(train, "--epochs", from_python=False)
        'train --epochs: is a key of the configuration; write --set training.epochs=VALUE'
    """
    has_configuration = any(parameter.option == "--set" for parameter in parameters_of(function))
    key = configuration_key(name) if has_configuration else None
    if key is None:
        return None
    instead = f'set_={{"{key}": VALUE}}' if from_python else f"--set {key}=VALUE"
    command = command_name(function.__name__)
    return f"{command} {name}: is a key of the configuration; write {instead}"
