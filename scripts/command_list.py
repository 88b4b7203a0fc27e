"""The commands in the groups that `cxr --help` shows: those of the core, and those that are added.

Annexes and other people's packages add a command by an entry point of the group
`cxr_compare.commands`, such as `dose = my_package.dose:dose`. Of the core,
`cxr_compare/__init__.py` repeats the names, because type checkers read imports and run no code.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module, metadata
from typing import Any

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
COMMANDS = tuple(name for group in COMMAND_GROUPS.values() for name in group)

MAIN_OPTIONS = {"compare": ("data", "truth", "boxes", "patients", "out")}
"""Options that the help of a command shows first, by its function; all others come after "More".

A command that is not listed shows all its options in one list.
"""


@cache  # the distributions of an environment take 15 ms to look through
def added_commands() -> dict[str, metadata.EntryPoint]:
    """Return the entry point of each command that is not of the core, by its function's name."""
    points = metadata.entry_points(group="cxr_compare.commands")
    return {point.name: point for point in points if point.name not in COMMANDS}


def command_groups() -> dict[str, tuple[str, ...]]:
    """Return all commands by the title of their group; an added group has its package's name."""
    groups = dict(COMMAND_GROUPS)
    for name, point in added_commands().items():
        package = point.module.removeprefix("cxr_compare.").partition(".")[0]
        title = package.replace("_", " ").capitalize()
        groups[title] = (*groups.get(title, ()), name)
    return groups


def all_commands() -> tuple[str, ...]:
    """Return the names of all command functions, in the order of `cxr --help`."""
    return tuple(name for names in command_groups().values() for name in names)


def command_module(name: str) -> str:
    """Return the full name of the module of a command function, which is not imported."""
    if name in COMMANDS:
        return f"cxr_compare.scripts.commands.{name}"
    return added_commands()[name].module


def command_function(name: str) -> Callable[..., Any]:
    """Return the Python function of a command of `cxr`.

    Args:
        name: Name of the function, such as ``tune`` or ``import_predictions``.

    Returns:
        The function, such as `cxr_compare.tune`. Its module is imported now.
    """
    function: Callable[..., Any] = getattr(import_module(command_module(name)), name)
    return function
