"""The command line that is equivalent to a call from Python.

Each folder that a command writes records it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from cxr_compare.scripts.command_list import OTHER_NAMES, name_in_python
from cxr_compare.scripts.parameters import parameters_of, texts_of


def command_name(function_name: str) -> str:
    """Return the name of a command on the command line: that of its function, with hyphens.

    Args:
        function_name: Name of the command in Python, such as ``import_predictions``.

    Example:
        >>> command_name("list_configs"), command_name("wrong_labels")
        ('configs', 'wrong-labels')
    """
    return OTHER_NAMES.get(function_name, function_name.replace("_", "-"))


def command_line(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return the command line that does the same as a call from Python.

    Args:
        function: Function of the command.
        arguments: Value of each parameter of the function, by name.

    Returns:
        The command line, quoted for a shell. Parameters with their default are left out.

    Example:
        >>> from cxr_compare.scripts.commands.show import show
        >>> given = {"folder": "out/data", "machine": False, "card": False, "report": None}
        >>> command_line(show, given)
        'cxr show out/data'
    """
    words = ["cxr", command_name(name_in_python(function))]
    options: list[str] = []
    for parameter in parameters_of(function):
        value = arguments[parameter.name]
        write = parameter.argument.write or texts_of
        if parameter.positional:
            words += write(value)
        elif value is None or _is_default(value, parameter.default):
            continue
        elif isinstance(value, bool):
            options.append(parameter.option if value else parameter.option.replace("--", "--no-"))
        else:
            for text in write(value):
                options += [parameter.option, text]
    return shlex.join([*words, *options])


def _is_default(value: Any, default: Any) -> bool:
    """Return True for the default; arrays and frames, which compare item by item, never are."""
    return not hasattr(value, "shape") and bool(value == default)
