"""Command lines as the documents and messages name them."""

import shlex

from cxr_compare.scripts.cli import COMMANDS, build_app

APP = build_app()


def parse(command):
    """Parse a command line that begins with ``cxr``, without running it."""
    APP.parse_args([word for word in shlex.split(command)[1:] if word != "--json"])


def options():
    """Options of each command."""
    shared = {"--json", "--help"}
    return {
        name: shared.union(*(each.names for each in APP[name].assemble_argument_collection()))
        for name in COMMANDS
    }
