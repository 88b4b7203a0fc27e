"""Classes and functions of the user's own, named ``MODULE:NAME``."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError, first_line

_NAME = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")


def is_own_part(name: object) -> bool:
    """Return True if a text has the form ``MODULE:NAME``.

    Example:
        >>> is_own_part("myparts:Focal"), is_own_part("out/data")
        (True, False)
    """
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def part_name(value: Any) -> Any:
    """Return ``MODULE:NAME`` of a function or class, and any other value as it is.

    Example:
        >>> part_name(Path), part_name("auroc")
        ('pathlib:Path', 'auroc')
    """
    if not callable(value) or not hasattr(value, "__qualname__"):
        return value
    return f"{value.__module__}:{value.__qualname__}"


def own_part(name: str, key: str) -> Any:
    """Return a class, a function or another object of the user's own.

    It is named by ``MODULE:NAME``, such as ``mylosses:Focal``; the module is looked for in the
    present folder, too, and classes of a notebook are in the module ``__main__``. Messages begin
    with `key`, the key of the configuration or the option.
    """
    if not is_own_part(name):
        raise InputError(f"{key}: '{name}' is no MODULE:NAME, such as mylosses:Focal")
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        problem = f"{key}: {module_name} cannot be imported: {problem_of(error)}"
        if isinstance(error, ModuleNotFoundError) and error.name == module_name:
            problem += f"; it is looked for in {here} and among the installed packages"
        raise InputError(problem) from error
    found = getattr(module, attribute, None)
    if found is None:
        raise InputError(f"{key}: the module {module_name} has no {attribute}")
    return found


def own_function(name: str, key: str) -> Callable[..., Any]:
    """Return a function of the user's own, or another object that can be called."""
    found = own_part(name, key)
    if not callable(found):
        raise InputError(f"{key}: {name} is no function")
    return found


def problem_of(error: BaseException) -> str:
    """Return the type and the first line of an exception; of an `InputError` its message alone.

    Example:
        >>> problem_of(KeyError("auroc")), problem_of(MemoryError())
        ("KeyError: 'auroc'", 'MemoryError')
    """
    name = type(error).__name__
    line = first_line(error)
    return line if isinstance(error, InputError) or line == name else f"{name}: {line}"
