"""Modules of this project as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def own_command(module: str, *arguments: object) -> list[str]:
    """The command that runs one of our modules with this Python.

    Args:
        module: Its name, such as "scripts.cli".
        arguments: Its arguments; numbers and paths become text.

    Returns:
        The words of the command. It imports nothing from the user's folder (``-P``), where
        "training" or "evaluation" may be a folder of the user's.

    Example:
        >>> own_command("scripts.cli", "show", 3)[1:]
        ['-P', '-m', 'scripts.cli', 'show', '3']
    """
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def answer_of(module: str, *arguments: object) -> Any:
    """What one of our modules prints as JSON, run alone: its memory is then its own.

    Raises:
        RuntimeError: It failed; the end of what it said.

    Example:
        >>> answer_of("scripts.none")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        RuntimeError: scripts.none failed: ...No module named scripts.none
    """
    done = subprocess.run(  # noqa: S603  our own command
        own_command(module, *arguments), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)
