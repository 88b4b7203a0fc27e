"""The commands in the groups that `cxr --help` shows: those of the core, and those that are added.

Annexes and other people's packages add a command by an entry point of the group
`cxr_compare.commands`, such as `dose-report = my_package.dose:report`.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError

COMMAND_GROUPS = {
    "Data and training": ("synth", "prepare", "check", "split", "list_configs", "train"),
    "Evaluate": (
        "predict",
        "import_predictions",
        "ensemble",
        "tune",
        "compare",
        "folds",
        "overlay",
    ),
    "Use": ("show", "export", "serve"),
}
"""Names of the command functions by the title of their group, in the order of the work.

Each function is in the module of `scripts/commands` that has its name.
"""
_CORE = "cxr_compare.scripts.commands"
COMMANDS = tuple(name for group in COMMAND_GROUPS.values() for name in group)

MAIN_OPTIONS = {"compare": ("data", "truth", "boxes", "patients", "out")}
"""Options that the help of a command shows first, by its function; all others come after "More".

A command that is not listed shows all its options in one list.
"""


OTHER_NAMES = {"import_predictions": "import", "list_configs": "configs"}
"""Names on the command line that are not those of the functions.

`import` is a keyword of Python, and `cxr_compare.configs` is a package.
"""


@cache  # the distributions of an environment take 15 ms to look through
def added_commands() -> dict[str, metadata.EntryPoint]:
    """Return the entry point of each command that is not of the core, by its name in Python."""
    points = metadata.entry_points(group="cxr_compare.commands")
    by_name = {point.name.replace("-", "_"): point for point in points}
    core = {*COMMANDS, *OTHER_NAMES.values()}
    return {name: point for name, point in by_name.items() if name not in core}


def command_groups() -> dict[str, tuple[str, ...]]:
    """Return all commands by the title of their group; an added group has its package's name."""
    groups = dict(COMMAND_GROUPS)
    for name, point in added_commands().items():
        package = point.module.removeprefix("cxr_compare.").partition(".")[0]
        title = package.replace("_", " ").capitalize()
        groups[title] = (*groups.get(title, ()), name)
    return groups


def all_commands() -> tuple[str, ...]:
    """Return the names of all commands in Python, in the order of `cxr --help`."""
    return tuple(name for names in command_groups().values() for name in names)


def command_function(name: str) -> Callable[..., Any]:
    """Import and return the function of a command by its name in Python, such as ``tune``.

    Raises InputError if the entry point of an added command leads to no function, or its module
    cannot be imported.
    """
    if name in COMMANDS:
        function: Callable[..., Any] = getattr(import_module(f"{_CORE}.{name}"), name)
        return function
    point = added_commands()[name]
    try:
        function = point.load()
    except Exception as error:  # of any kind: the module may be somebody else's
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(f"{point.name}: {_not_loaded(point, reason)}") from error
    if not callable(function):
        raise InputError(f"{point.name}: {_not_loaded(point, 'that is no function')}")
    return function


def name_in_python(function: Callable[..., Any]) -> str:
    """Return the name of a command in Python; that of an added one may not be its function's."""
    for name, point in added_commands().items():
        if (point.module, point.attr) == (function.__module__, function.__qualname__):
            return name
    return function.__name__


def first_sentence(name: str) -> str:
    """Return the first line of a command's docstring, read from its source: nothing is imported.

    If there is no such line, the text says why.
    """
    if name in COMMANDS:
        module, function = f"{_CORE}.{name}", name
    else:
        point = added_commands()[name]
        module, function = point.module, point.attr
    try:
        file = _source_file(module)
    except KeyError:  # a namespace package in another is found by an import alone
        return f"({module} describes it)"
    if file is None:
        return _not_loaded(added_commands()[name], "there is no such module")
    source = "\n" + file.read_text(encoding="utf-8", errors="replace")
    after_name = source.partition(f"\ndef {function}(")[2].partition("\ndef ")[0]
    sentence = after_name.partition('"""')[2].partition("\n")[0].removesuffix('"""')
    return sentence or f"{file.name} describes no function {function}"


def _not_loaded(point: metadata.EntryPoint, reason: str) -> str:
    package = "its package" if point.dist is None else point.dist.name
    return f"cannot be loaded from {point.value} ({reason}); install {package} again"


def _source_file(module: str) -> Path | None:
    """Return the file of a module, None if there is none: its packages are not imported."""
    path: Sequence[str] | None = None  # where the finders look; None for sys.path
    origin = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        specs = (finder.find_spec(name, path) for finder in sys.meta_path)
        spec = next(filter(None, specs), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations or ()
        origin = spec.origin
    return Path(origin) if origin and origin.endswith(".py") else None
