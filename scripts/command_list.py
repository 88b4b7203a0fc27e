"""The list of commands, in the groups that `cxr --help` shows.

Code that needs all commands reads this list, and a test compares every other list with it. Only
`cxr_compare/__init__.py` repeats the names, because type checkers read imports and run no code.
"""

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
    "Use and study": (
        "show",
        "export",
        "serve",
        "pacs",
        "monitor",
        "curve",
        "readers",
        "plan",
    ),
}
"""Names of the command functions by the title of their group, in the order of the work.

Each function is in the module of `scripts/commands` that has its name.
"""
COMMANDS = tuple(name for group in COMMAND_GROUPS.values() for name in group)

MAIN_OPTIONS = {"compare": ("data", "truth", "boxes", "patients", "out")}
"""Options that the help of a command shows first, by its function; all others come after "More".

A command that is not listed shows all its options in one list.
"""
