"""The commands in the groups that `cxr --help` shows."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
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
        "readers",
        "explain",
        "plan",
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


def command_groups() -> dict[str, tuple[str, ...]]:
    """Return all commands by the title of their group."""
    return COMMAND_GROUPS


def all_commands() -> tuple[str, ...]:
    """Return the names of all commands in Python, in the order of `cxr --help`."""
    return COMMANDS


def command_function(name: str) -> Callable[..., Any]:
    """Import and return the function of a command by its name in Python, such as ``tune``."""
    function: Callable[..., Any] = getattr(import_module(f"{_CORE}.{name}"), name)
    return function


def first_sentence(name: str) -> str:
    """Return the first line of a command's docstring, read from its source: nothing is imported."""
    source = (Path(__file__).parent / "commands" / f"{name}.py").read_text(encoding="utf-8")
    return source.partition(f"\ndef {name}(")[2].partition('"""')[2].partition("\n")[0]
