"""The whole command for a call that leaves out a required option."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.parameters import Parameter, parameters_of


def missing_options_message(function: Callable[..., Any], words: Sequence[str]) -> str | None:
    """Return a message with the whole command if required options are missing.

    A name is suggested from the first file of the command. Other values are shown as placeholders.

    Args:
        function: Function of the command.
        words: Words of the command line after the name of the command.

    Returns:
        One line; None if no required option is missing.

    Example:
        >>> from cxr_compare.scripts.commands.import_predictions import import_predictions
        >>> words = ["preds/effnet.csv", "--data", "set", "--out", "e"]
        >>> print(missing_options_message(import_predictions, words))
        import: --name is missing; run: cxr import preds/effnet.csv --data set --out e --name effnet
    """
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    missing = [
        parameter
        for parameter in parameters_of(function)
        if not parameter.positional and parameter.is_required and parameter.option not in given
    ]
    if not missing:
        return None
    added: list[str] = []
    for parameter in missing:
        added += [parameter.option, _suggestion(parameter, words)]
    names = [parameter.option for parameter in missing]
    verb = "is" if len(missing) == 1 else "are"
    name = command_name(function.__name__)
    command = shlex.join(["cxr", name, *words, *added])
    return f"{name}: {listing(names)} {verb} missing; run: {command}"


def _suggestion(parameter: Parameter, words: Sequence[str]) -> str:
    """Return a value of an option: a name from the first file, else the option in capitals."""
    placeholder = parameter.name.strip("_").upper()
    first = words[0] if words and not words[0].startswith("-") else ""
    if parameter.name == "name" and first:
        return Path(first).stem or placeholder
    return placeholder
