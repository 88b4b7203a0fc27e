"""The `cxr` program, called in this process as its console script calls it, and its options."""

import sys
from contextlib import contextmanager
from importlib import import_module
from unittest import mock

import cxr_compare
from cxr_compare.commands import console
from cxr_compare.data_prep.base.errors import EXTRAS as EXTRAS
from cxr_compare.data_prep.base.errors import on_command_line as on_command_line
from cxr_compare.scripts import cli

NAMES = tuple(cli.COMMANDS)
PROGRAM = [sys.executable, "-m", "cxr_compare.scripts.cli"]
"""The first words of a process of `cxr`."""
main = cli.main
home_of = cli.home_of


def cxr(*words):
    """Call `cxr` with the words of a command line, and return its exit status."""
    with mock.patch.object(sys, "argv", ["cxr", *map(str, words)]):
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def public(name):
    """The function of a command by its name in Python; `configs` is a package there."""
    return getattr(cxr_compare, "configurations" if name == "configs" else name)


def function_of(name):
    """The function that a command calls."""
    return getattr(import_module(cli.home_of(name)), name)


def options_of(name):
    """Help of each argument and option of a command, by all its names."""
    app = cli.build_command_line(name)
    arguments = app[name].assemble_argument_collection(
        default_parameter=app.default_parameter, parse_docstring=True
    )
    return {each.names: each.parameter.help for each in arguments if each.parse}


def required_of(name):
    """Name of each argument and option that a command requires, as its usage line has it."""
    app = cli.build_command_line(name)
    arguments = app[name].assemble_argument_collection(default_parameter=app.default_parameter)
    return [
        each.name if each.index is None else each.name.lstrip("-").upper()
        for each in arguments
        if each.parse and each.required
    ]


@contextmanager
def failing(name, error):
    """A command that raises an error."""

    def fail(*words):
        raise error

    with mock.patch.object(import_module(cli.home_of(name)), name, fail):
        yield


def as_json(result):
    """Print a result of a Python function as ``--json`` does."""
    console.emit_json(result)


@contextmanager
def stopped_while_predicting(after):
    """A Ctrl-C after some parts of a prediction."""
    shown = console.track

    @contextmanager
    def track(description, total):
        parts = 0

        def advance(n=1):
            nonlocal parts
            parts += 1
            if description.startswith("Predicting") and parts >= after:
                raise KeyboardInterrupt

        with shown(description, total):
            yield advance

    with mock.patch.object(console, "track", track):
        yield
