"""What a verb shows: lines, progress, JSON. Words go to stderr, results for programs to stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from data_prep.work.object_store import shown

_SILENT = ContextVar("silent", default=False)
_PRINTED_AS = ContextVar[Literal["text", "json"] | None]("printed_as", default=None)


@contextmanager
def silent(on: bool = True) -> Iterator[None]:
    """Show no lines and no progress in the block: it was called by a program, not by a verb."""
    before = _SILENT.set(on or _SILENT.get())  # what silences outside stays in force
    try:
        yield
    finally:
        _SILENT.reset(before)


def is_silent() -> bool:
    """Whether nothing is shown."""
    return _SILENT.get()


@contextmanager
def printing(form: Literal["text", "json"]) -> Iterator[None]:
    """Let what the block runs print its results as they come: it was called by a verb's command."""
    before = _PRINTED_AS.set(form)
    try:
        yield
    finally:
        _PRINTED_AS.reset(before)


def printed_as() -> Literal["text", "json"] | None:
    """What stdout gets of results that come one by one; None where a program called."""
    return _PRINTED_AS.get()


def say(text: str = "") -> None:
    """Show a line to the person at the terminal."""
    if _SILENT.get():
        return
    sys.stderr.write(shown(text) + "\n")
    sys.stderr.flush()


def emit(text: str) -> None:
    """Write a line of a result, which may be piped on, to stdout."""
    sys.stdout.write(shown(text) + "\n")
    sys.stdout.flush()


def next_step(*commands: str) -> None:
    """Show what to do next, the last line of a verb: a command, or several to choose from."""
    for place, command in enumerate(commands):
        say(f"{'or:' if place else 'Next:':5} {command}")


def emit_json(payload: Any) -> None:
    """Write a result for a program to stdout."""
    emit(json.dumps(payload, indent=2, ensure_ascii=False, default=str))


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a progress bar while the block runs.

    Where stderr is no terminal (a log, CI), a line at the start and one at the end instead.
    """
    if _SILENT.get() or not sys.stderr.isatty():
        yield from _plain_progress(description, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)

        def advance(n: int = 1) -> None:
            bar.advance(task, n)

        yield advance


def _plain_progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    count = 0
    if total is None:
        say(description)

    def advance(n: int = 1) -> None:
        nonlocal count
        before, count = count, count + n
        # At most four lines: a quarter, half, three quarters, all.
        if total and before * 4 // total != count * 4 // total:
            say(f"{description}: {count} of {total}")

    yield advance
