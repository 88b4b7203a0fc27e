"""Output of a command: lines, progress, JSON. Text goes to stderr, results to stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from cxr_compare.data_prep.contracts.errors import shortened
from cxr_compare.data_prep.work.store_addresses import with_store_addresses

_SILENT = ContextVar("silent", default=False)
_PRINTED_AS = ContextVar[Literal["text", "json"] | None]("printed_as", default=None)


@contextmanager
def silent(on: bool = True) -> Iterator[None]:
    """Show no lines and no progress in the block: it was called by a program, not by a command."""
    before = _SILENT.set(on or _SILENT.get())  # what silences outside stays in force
    try:
        yield
    finally:
        _SILENT.reset(before)


def is_silent() -> bool:
    """Return True if nothing is shown."""
    return _SILENT.get()


@contextmanager
def printing(form: Literal["text", "json"]) -> Iterator[None]:
    """Let the block print its results as they come: it was called from the command line."""
    before = _PRINTED_AS.set(form)
    try:
        yield
    finally:
        _PRINTED_AS.reset(before)


def printed_as() -> Literal["text", "json"] | None:
    """Return how stdout shows results that come one by one; None in a call from Python."""
    return _PRINTED_AS.get()


def say(text: str = "") -> None:
    """Show lines to the person at the terminal; of long ones the beginning and the end.

    Args:
        text: Lines to show on stderr.
    """
    if _SILENT.get():
        return
    lines = [shortened(line) for line in with_store_addresses(text).split("\n")]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def emit(text: str) -> None:
    """Write a line of a result, which may be piped on, to stdout.

    Args:
        text: The line, without its end.
    """
    sys.stdout.write(with_store_addresses(text) + "\n")
    sys.stdout.flush()


def next_step(*commands: str) -> None:
    """Show what to do next, the last line of a command: a command, or several to choose from."""
    for place, command in enumerate(commands):
        say(f"{'or:' if place else 'Next:':5} {command}")


def emit_json(payload: Any) -> None:
    """Write a result for a program to stdout.

    Args:
        payload: Values that JSON knows; others become texts.
    """
    emit(json.dumps(payload, indent=2, ensure_ascii=False, default=str))


@contextmanager
def track(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a progress bar while the block runs.

    Where stderr is no terminal (a log, CI), a line at its end, and how long a long one takes.

    Args:
        description: Text before the bar.
        total: Number of steps, or None where it is unknown.

    Returns:
        A context manager; its value is called with the number of steps done, by default 1.
    """
    if _SILENT.get() or not sys.stderr.isatty():
        yield from _plain_progress(description, total)
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)

        def advance(n: int = 1) -> None:
            bar.advance(task, n)

        yield advance


# seconds before a line; of a block of many hours a hundredth of it
_FIRST = 5.0
_PAUSE = 20.0


def _plain_progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    count = first = 0
    began = time.monotonic()
    told = began + _FIRST - _PAUSE
    if total is None:
        say(description)

    def advance(n: int = 1) -> None:
        nonlocal count, first, began, told
        count = count + n
        now = time.monotonic()
        if count == n:  # what was there before, and the slow first batch, say nothing of the pace
            first = count
            began = now
        done = f"{description}: {count}" + (" so far" if total is None else f" of {total}")
        if count == total:
            say(done)
        elif count > first and now - told > max(_PAUSE, (now - began) / 100):
            told = now
            if total is not None:
                done += f", {time_left((total - count) * (now - began) / (count - first))}"
            say(done)

    yield advance


def time_left(seconds: float) -> str:
    """Return a text for the seconds left.

    Example:
        >>> time_left(20), time_left(340), time_left(12_000)
        ('about 20 seconds left', 'about 6 minutes left', 'about 3.3 hours left')
    """
    if seconds > 5400:
        return f"about {seconds / 3600:.1f} hours left"
    if seconds > 90:
        return f"about {seconds / 60:.0f} minutes left"
    return f"about {10 * max(round(seconds / 10), 1)} seconds left"
