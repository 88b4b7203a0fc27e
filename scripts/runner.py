"""The decorator `command`, which makes a typed function a command of `cxr` and of `cxr_compare`.

The decorator does what all commands have in common. It checks the arguments, so that a wrong folder
is refused before torch or pandas is imported. It records the command line, which every new folder
stores.
"""

from __future__ import annotations

import inspect
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import GenericAlias
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

from cxr_compare.data_prep.contracts.disk_space import disk_errors
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import refuse_unknown_keywords
from cxr_compare.data_prep.contracts.locks import remove_leftovers
from cxr_compare.data_prep.contracts.provenance import recorded_command
from cxr_compare.scripts import console
from cxr_compare.scripts.command_line import command_line, errors_in_python
from cxr_compare.scripts.configuration_options import key_advice
from cxr_compare.scripts.parameters import (
    AnyPath,
    declared_types,
    parameters_of,
    read_value,
    union_members,
    without_metadata,
)

P = ParamSpec("P")
R = TypeVar("R")


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a `cxr` command, whose arguments are checked before it runs.

    A path may be a text, a path or any object with a ``folder``. From Python a command prints
    nothing unless the keyword ``progress`` is true.

    Args:
        function: Function of the command. Its signature has the types of the parameters, its
            docstring their descriptions.

    Returns:
        The command, with the same parameters and the additional keyword ``progress``.

    Raises:
        InputError: Raised when the command is called: a keyword is unknown, a folder is of the
            wrong kind, or a value is out of range or not among the choices.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def run(*positional: Any, progress: bool = False, **keywords: Any) -> R:
        for keyword in keywords.keys() - signature.parameters.keys():
            if advice := key_advice(function, keyword, from_python=True):
                raise InputError(advice)
        refuse_unknown_keywords(function.__name__, keywords, signature.parameters)
        try:
            call = signature.bind(*positional, **keywords)
        except TypeError as error:
            raise InputError(_wrong_call(function, signature, str(error))) from None
        call.apply_defaults()
        record = command_line(run, call.arguments)
        with (
            console.silent(not progress),
            errors_in_python(function),
            recorded_command(record),
            _named_full_disk(call.arguments),
        ):
            for parameter in parameters_of(function):
                call.arguments[parameter.name] = read_value(
                    parameter, call.arguments[parameter.name]
                )
            result = function(*call.args, **call.kwargs)
            out = call.arguments.get("out")
            if out is not None:
                # A command that finds its folder complete writes nothing and takes no lock.
                remove_leftovers(Path(out))
            return result

    run.__signature__ = _documented_signature(function)  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


def _wrong_call(function: Callable[..., Any], signature: inspect.Signature, problem: str) -> str:
    """Return what is wrong with the arguments of a call, and how they are named."""
    by_position = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = signature.parameters.values()
    positional = [each.name for each in parameters if each.kind is by_position]
    required = [
        each.name
        for each in parameters
        if each.kind is each.KEYWORD_ONLY and each.default is each.empty
    ]
    words = ", ".join([*positional, *(f"{name}=..." for name in required), "..."])
    return f"{function.__name__}: {problem}; write {function.__name__}({words})"


class ShownSignature(inspect.Signature):
    """A signature that ``help`` and notebooks show on one screen: short names of types, wrapped."""

    def __str__(self) -> str:
        no_break = "\N{NO-BREAK SPACE}"
        parameters = [text.replace(" ", no_break) for text in self.texts()]
        returns = type_text(self.return_annotation).replace(" ", no_break)
        line = f"({', '.join(parameters)})\u00a0->\u00a0{returns}"
        lines = textwrap.wrap(line, 88, subsequent_indent="    ", break_long_words=False)
        return "\n".join(lines).replace(no_break, " ")

    def format(self, **keywords: Any) -> str:
        """Return the same text: `help` calls this from Python 3.13 on."""
        return str(self)

    def texts(self) -> list[str]:
        """Return each parameter as a definition has it, with ``*`` where it belongs."""
        texts = []
        star = False
        for parameter in self.parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                star = True
            elif parameter.kind is parameter.KEYWORD_ONLY and not star:
                texts.append("*")
                star = True
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
            text = f"{stars}{parameter.name}: {type_text(parameter.annotation)}"
            if parameter.default is not parameter.empty:
                text += f" = {parameter.default!r}"
            texts.append(text)
        return texts


def type_text(annotation: Any) -> str:
    """Return a type as a user reads it: names without modules; one value or several.

    Example:
        >>> type_text(list[str] | None), type_text(AnyPath)
        ('str | Sequence[str] | None', 'AnyPath')
    """
    if isinstance(annotation, str):
        return annotation
    members: list[Any] = []
    for member in union_members(annotation):
        if get_origin(member) in (list, tuple, Sequence):  # one value stands for a list of one
            item = get_args(member)[0]
            members += [*union_members(item), GenericAlias(Sequence, (item,))]
        else:
            members.append(member)
    if type(None) in get_args(annotation):
        members.append(None)
    text = " | ".join(dict.fromkeys(map(inspect.formatannotation, members)))
    text = text.replace(inspect.formatannotation(AnyPath), "AnyPath")
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)


def _documented_signature(function: Callable[..., Any]) -> ShownSignature:
    """Return the signature that a notebook shows: plain types, and the keyword ``progress``."""
    signature = inspect.signature(function)
    types = declared_types(function)
    parameters = [
        parameter.replace(annotation=without_metadata(types[name]))
        for name, parameter in signature.parameters.items()
    ]
    progress = inspect.Parameter(
        "progress", inspect.Parameter.KEYWORD_ONLY, default=False, annotation="bool"
    )
    return ShownSignature([*parameters, progress], return_annotation=signature.return_annotation)


@contextmanager
def _named_full_disk(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Name the full disk where one fills up in the block.

    It is that of the output, of an input, or of the temporary files of libraries.
    """
    values = [getattr(value, "folder", value) for value in arguments.values()]
    temporary = os.environ.get("TMPDIR", "/tmp")  # noqa: S108
    values += [temporary, "/dev/shm", os.environ.get("HOME")]  # noqa: S108
    candidates = (arguments.get("out"), *values)
    paths = [Path(path) for path in candidates if isinstance(path, str | Path)]
    with disk_errors(*paths):
        yield
