"""Keys of a training configuration that a user writes as options, such as ``--epochs 3``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
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

    Args:
        option: Name of the option or of the keyword, such as ``--batch-size``.

    Returns:
        The key with its section; None if there is no such key.

    Example:
        >>> configuration_key("--lr"), configuration_key("--no-such")
        ('training.learning_rate', None)
    """
    name = option.lstrip("-").replace("-", "_").lower()
    keys = _key_by_name()
    if "." in name:
        return name if name in keys.values() else None
    return keys.get(_SYNONYMS.get(name, name))


def takes_settings(function: Callable[..., Any]) -> bool:
    """Return True if a command has the option ``--set``, which replaces keys of a configuration.

    Args:
        function: Function of the command.
    """
    return any(parameter.option == "--set" for parameter in parameters_of(function))


def refuse_configuration_words(function: Callable[..., Any], words: Sequence[str]) -> None:
    """Refuse options that are keys of a configuration, with the command that sets the keys.

    Args:
        function: Function of the command.
        words: Words of the command line after the name of the command.

    Raises:
        InputError: A word is an option that the command does not have, and names a key.
    """
    if not takes_settings(function):
        return
    own = {parameter.option for parameter in parameters_of(function)}
    written: list[str] = []
    settings: list[str] = []
    first = ""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        key = None
        if option.startswith("--") and option not in own:
            key = configuration_key(option)
        if key is None:
            written.append(word)
            continue
        first = first or option
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "VALUE"
        settings += ["--set", f"{key}={value}"]
    if settings:
        name = command_name(function.__name__)
        command = shlex.join(["cxr", name, *written, *settings])
        raise InputError(f"{name} {first}: is a key of the configuration; run: {command}")


def refuse_configuration_keywords(function: Callable[..., Any], keywords: Iterable[str]) -> None:
    """Refuse keywords of a call from Python that are keys of a configuration.

    Args:
        function: Function of the command.
        keywords: Names of the keywords.

    Raises:
        InputError: The command does not have a keyword, and it names a key.
    """
    own = {parameter.name for parameter in parameters_of(function)}
    unknown = [keyword for keyword in keywords if keyword not in own]
    if not unknown or not takes_settings(function):
        return
    for keyword in unknown:
        key = configuration_key(keyword)
        if key is not None:
            raise InputError(
                f"{command_name(function.__name__)} {keyword}: is a key of the configuration; "
                f'write set_={{"{key}": VALUE}}'
            )
