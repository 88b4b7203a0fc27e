"""The list of commands, in the groups that `cxr --help` shows.

Code that needs all commands reads this list, and a test compares every other list with it. Only
`cxr_compare/__init__.py` repeats the names, because type checkers read imports and run no code.
"""

COMMAND_GROUPS = {
    "Data": ("synth", "prepare", "check", "split", "show"),
    "Train": ("list_configs", "train"),
    "Evaluate": ("predict", "import_predictions", "ensemble", "tune", "compare", "overlay"),
    "Serve": ("export", "serve", "pacs", "monitor"),
    "Study": ("curve", "folds", "readers", "plan"),
}
"""Names of the command functions by the title of their group, in the order of the work.

Each function is in the module of `scripts/commands` that has its name.
"""
COMMANDS = tuple(name for group in COMMAND_GROUPS.values() for name in group)
