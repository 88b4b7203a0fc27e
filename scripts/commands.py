"""The list of commands; everything else that names all of them follows from it, or a test compares.

`cxr_compare/__init__.py` writes out their imports for type checkers, and `setup.cfg` their modules
for import-linter, as neither tool runs code: tests hold both to this list.
"""

COMMAND_GROUPS = {
    "Data": ("synth", "prepare", "check", "split", "show"),
    "Train": ("list_configs", "train", "sweep"),
    "Evaluate": ("predict", "import_predictions", "ensemble", "tune", "compare", "overlay"),
    "Serve": ("export", "serve", "pacs", "monitor"),
    "Study": ("curve", "folds", "readers", "transfer", "plan"),
}
"""The functions of commands by the title that the help shows them below, in the order of the work.

Each is in the module of `scripts` that has its name.
"""
COMMANDS = tuple(name for group in COMMAND_GROUPS.values() for name in group)
