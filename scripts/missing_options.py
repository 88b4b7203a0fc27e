"""The whole command for a call that leaves out a required option."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.parameters import Parameter, parameters_of


def missing_options_message(
    function: Callable[..., Any], words: Sequence[str], first_missing: str | None = None
) -> str | None:
    """Return a message with the whole command if required options or arguments are missing.

    A name is suggested from the first file of the command. Other values are shown as placeholders.
    An argument that is given by position is described, with its possible values if they are known.

    Args:
        function: Function of the command.
        words: Words of the command line after the name of the command.
        first_missing: Name of the first parameter that typer misses; None if it is unknown.

    Returns:
        One line; None if nothing that is required is missing.

    Example:
        >>> from cxr_compare.scripts.commands.import_predictions import import_predictions
        >>> words = ["preds/effnet.csv", "--data", "set", "--out", "e"]
        >>> print(missing_options_message(import_predictions, words))
        import: --name is missing; run: cxr import preds/effnet.csv --data set --out e --name effnet
    """
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    parameters = [p for p in parameters_of(function) if p.is_required or p.variadic]
    positional = [p for p in parameters if p.positional]
    is_missing = [p.name == first_missing for p in positional]
    # The words fill the arguments from left to right.
    arguments = positional[is_missing.index(True) :] if any(is_missing) else []
    options = [p for p in parameters if not p.positional and p.option not in given]
    if not arguments and not options:
        return None
    added: list[str] = []
    for parameter in options:
        added += [parameter.option, _suggestion(function, parameter, words)]
    placeholders = [_placeholder(parameter) for parameter in arguments]
    names = [*placeholders, *(parameter.option for parameter in options)]
    verb = "is" if len(names) == 1 else "are"
    name = command_name(function.__name__)
    n_leading = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
    before = shlex.join(["cxr", name, *words[:n_leading]])
    command = " ".join([before, *placeholders, shlex.join([*words[n_leading:], *added])]).rstrip()
    message = f"{name}: {listing(names)} {verb} missing; run: {command}"
    return "".join([message, *map(_described, arguments)])


def _described(argument: Parameter) -> str:
    """Return a sentence on what an argument is, and its values if they are known."""
    values = argument.argument.completions() if argument.argument.completions else []
    shipped = f" ({', '.join(values)})" if values else ""
    meaning = argument.help.partition(". ")[0].rstrip(".")
    return f". {_placeholder(argument)}: {meaning}{shipped}"


def _placeholder(parameter: Parameter) -> str:
    return parameter.argument.metavar or parameter.name.strip("_").upper()


def _suggestion(function: Callable[..., Any], parameter: Parameter, words: Sequence[str]) -> str:
    """Return a value of an option: a name from the first file, else the option in capitals."""
    placeholder = _placeholder(parameter)
    first = words[0] if words and not words[0].startswith("-") else ""
    is_data_set = parameters_of(function)[0].argument.folder_kind == "data set"
    if parameter.name == "name" and first and not is_data_set:
        return Path(first).stem or placeholder
    return placeholder
