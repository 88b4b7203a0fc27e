"""Blocks of code of the documents, and command lines as documents and messages name them."""

import re
import shlex
from pathlib import Path

from cxr_compare.scripts.cli import COMMANDS, build_command_line

APP = build_command_line()


def code_blocks(page: Path) -> list[tuple[str, str]]:
    """Every block of code of a page: language and text."""
    return re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL)


def cxr_commands(text: str) -> list[str]:
    """Every ``cxr ...`` line of a shell block, also behind torchrun, continuation lines joined."""
    lines = (line.strip() for line in re.sub(r"\\\n\s*", " ", text).splitlines())
    found = (re.match(r"(?:(?:torchrun|srun) .*? )?(cxr [a-z].*)", line) for line in lines)
    return [match[1].split("  #")[0] for match in found if match]


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


def example(name):
    """Example of a command in its help, in one line."""
    return " ".join(COMMANDS[name].example.replace("\\\n", " ").split())
