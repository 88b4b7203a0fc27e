"""Classes of the user's own that take part in a training, named ``MODULE:NAME``."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError


def own_class(name: str, key: str, base: type) -> Any:
    """Return a class that a configuration names.

    Args:
        name: ``MODULE:NAME``, such as ``mylosses:Focal``; the module is looked for in the present
            folder, too. Classes of a notebook are in the module ``__main__``.
        key: Key of the configuration, for messages.
        base: Class that it must inherit from.

    Returns:
        The class.

    Raises:
        InputError: The module cannot be imported or has no such class, or the class inherits from
            something else.
    """
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise InputError(f"{key}: '{name}' is no MODULE:NAME, such as mylosses:Focal")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(f"{key}: {module_name} cannot be imported: {problem}") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise InputError(f"{key}: the module {module_name} has no {attribute}")
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise InputError(f"{key}: {name} is no subclass of {base.__module__}.{base.__qualname__}")
    return found


def failed_part(error: BaseException, parts: Sequence[object]) -> str | None:
    """Return the part in whose code an exception was raised, with the problem.

    Args:
        error: Exception of a training.
        parts: Callbacks of the user's own.

    Returns:
        Text such as ``mycalls:Tell: KeyError: 'auroc'``; None if no part is concerned.
    """
    names = {type(part).__module__: type(part).__qualname__ for part in parts}
    modules = [
        str(frame.f_globals["__name__"]) for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    concerned = [f"{module}:{names[module]}" for module in modules if module in names]
    if not concerned:
        return None
    problem = f"{type(error).__name__}: {error}".partition("\n")[0]
    return f"{concerned[-1]}: {problem}"
