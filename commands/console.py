"""Output of a command: lines and a bar on stderr while it works, its result on stdout."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cxr_compare.data_prep.base.errors import ShownAsText, printable, shortened


def say(text: str) -> None:
    """Write lines to stderr; the middle of a very long one, which quotes a file, is left out."""
    sys.stderr.write(printable("\n".join(map(shortened, text.split("\n"))), "\n") + "\n")
    sys.stderr.flush()


def emit(text: str) -> None:
    """Write a result to stdout."""
    sys.stdout.write(printable(text, "\n\t") + "\n")
    sys.stdout.flush()


def emit_json(value: Any) -> None:
    """Write a result to stdout as JSON."""
    emit(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a number that is undefined is null."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a number of NumPy
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _said_once(line: str) -> Callable[..., None]:
    """Return a function that writes a line at its first call: work that is refused says nothing."""
    begun: list[int] = []

    def advance(n: int = 1) -> None:
        if not begun:
            begun.append(n)
            say(line)

    return advance


@contextmanager
def track(description: str, total: int) -> Iterator[Callable[..., None]]:
    """Show progress: a bar on a terminal and in a notebook, else one line at the first step."""
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield _said_once(f"{description}: {total}")
        return
    from rich import progress
    from rich.console import Console

    columns = (*progress.Progress.get_default_columns(), progress.MofNCompleteColumn())
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda n=1: bar.advance(task, n)


@dataclass(frozen=True, repr=False)
class Shown(ShownAsText):
    """Result of a command: the text that it shows, and its values, which --json prints."""

    text: str
    values: Any

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> Any:
        """Return the values."""
        return self.values
