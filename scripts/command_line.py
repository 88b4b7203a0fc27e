"""The command line that is equivalent to a call from Python, and the call in place of options.

Each folder that a command writes records the command line. Messages name options, and a call from
Python shows its arguments instead.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.command_list import OTHER_NAMES
from cxr_compare.scripts.console import printed_as
from cxr_compare.scripts.parameters import parameters_of, texts_of

_COMMAND = r"cxr [a-z][a-z-]*(?: (?:'[^']*'|\S*[^\s,;:)'\"`]))*"
_VALUE = r"'[^']*'|\"[^\"]*\"|(?:[^\s;:'\"`()]|:(?=\S))*[^\s,;:.'\"`()]"
_OPTIONS = re.compile(rf"{_COMMAND}|(?<![\w-])--(?P<name>[a-z][a-z-]*)(?:[ =](?P<value>{_VALUE}))?")
# Words that follow the name of an option in a sentence without being its value.
_NO_VALUE = (
    "alone|and|changes|does|gives|given|go|has|have|if|in|is|joins|keeps|missing|needs|of|or|out|"
    "prints|shows|takes|that|the|to|where|with|works"
)
# A refused value with spaces, at the beginning of a message: up to the colon.
_REFUSED = re.compile(r"((?:[a-z-]+ )?--[a-z-]+) (?!.*--)([^:'\"]+ [^:'\"]+)(?=: )")


def command_name(function_name: str) -> str:
    """Return the name of a command on the command line: that of its function, with hyphens.

    Example:
        >>> command_name("list_configs"), command_name("wrong_labels")
        ('configs', 'wrong-labels')
    """
    return OTHER_NAMES.get(function_name, function_name.replace("_", "-"))


def command_line(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return the command line that does the same as a call from Python.

    It is quoted for a shell, and leaves out parameters with their default.

    Example:
        >>> from cxr_compare.scripts.commands.show import show
        >>> given = {"folder": "out/data", "machine": False, "card": False, "report": None}
        >>> command_line(show, given)
        'cxr show out/data'
    """
    words = ["cxr", command_name(function.__name__)]
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


@contextmanager
def errors_in_python(function: Callable[..., Any]) -> Iterator[None]:
    """Show the errors of a ``with`` block with Python's arguments, unless `cxr` runs the function.

    `function` is the public function that the user calls. Only the message of an InputError
    differs.
    """
    try:
        yield
    except InputError as error:
        if printed_as() is None:
            error.args = (in_python(str(error), function),)
        raise


def in_python(message: str, function: Callable[..., Any]) -> str:
    """Return a message about options of a command with the arguments of its Python function.

    Every message is written once, with the options of the command line, wherever it is raised:
    ``--out``, ``--images common``, ``--overwrite``. This function alone makes them ``out=...``,
    ``images="common"`` and ``overwrite=True``, where a public function hands the error to its
    caller. It changes only options that the function has, and nothing in a ``cxr`` command, which
    is to be typed in a shell. The word behind an option is its value, unless the option is a switch
    or the word continues the sentence (`_NO_VALUE`). At the beginning of a message the value goes
    up to the colon.

    Example:
        >>> from cxr_compare.scripts.commands.compare import compare
        >>> in_python("--unit study: no studies; choose --unit patient, or --out", compare)
        'unit="study": no studies; choose unit="patient", or out=...'
        >>> in_python("add --overwrite, or: cxr tune A --data DATA", compare)
        'add overwrite=True, or: cxr tune A --data DATA'
    """
    parameters = {parameter.option: parameter for parameter in parameters_of(function)}

    def argument(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"] or ""
        parameter = parameters.get(f"--{name}")
        is_off = parameter is None and name is not None and name.startswith("no-")
        if is_off:
            parameter = parameters.get(f"--{name.removeprefix('no-')}")
        if parameter is None:
            return match[0]
        rest = match[0].removeprefix(f"--{name}")
        if parameter.type is bool:
            return f"{parameter.name}={not is_off}{rest}"
        if re.fullmatch(f"({_NO_VALUE})?", value):
            return f"{parameter.name}=...{rest}"
        return f"{parameter.name}={_in_quotes(value)}"

    refused = _REFUSED.match(message)
    if refused is not None and not re.match(rf"({_NO_VALUE})\b", refused[2]):
        message = f"{refused[1]} '{refused[2]}'{message[refused.end() :]}"
    return _OPTIONS.sub(argument, message)


def _in_quotes(value: str) -> str:
    """Return a value as Python writes it; a number or a placeholder such as NAME as it is."""
    try:
        float(value)
    except ValueError:
        pass
    else:
        return value
    if re.fullmatch("[A-Z_]+", value):
        return value
    return f'"{value.strip(chr(34) + chr(39))}"'
