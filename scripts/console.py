"""Output of a command. Messages and progress go to stderr, results and JSON to stdout."""

from __future__ import annotations

import html
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from cxr_compare.data_prep.contracts.errors import shortened

_SILENT = ContextVar("silent", default=False)
_PRINTED_AS = ContextVar[Literal["text", "json"] | None]("printed_as", default=None)


@contextmanager
def silent(on: bool = True) -> Iterator[None]:
    """Show no messages and no progress within a ``with`` block, as in a call from Python.

    `on` False changes nothing: what an outer block silences stays silent.
    """
    before = _SILENT.set(on or _SILENT.get())  # an outer block that silences stays in force
    try:
        yield
    finally:
        _SILENT.reset(before)


def is_silent() -> bool:
    """Return True if messages and progress are not shown, as in a call from Python."""
    return _SILENT.get()


@contextmanager
def printing(form: Literal["text", "json"]) -> Iterator[None]:
    """Let commands print their results within a ``with`` block, as on the command line."""
    before = _PRINTED_AS.set(form)
    try:
        yield
    finally:
        _PRINTED_AS.reset(before)


def printed_as() -> Literal["text", "json"] | None:
    """Return the form in which commands print results; None in a call from Python.

    In a call from Python commands return their results without printing them.
    """
    return _PRINTED_AS.get()


def say(text: str = "") -> None:
    """Print a message to stderr. The middle of a very long line is left out."""
    if _SILENT.get():
        return
    lines = [shortened(line) for line in text.split("\n")]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def emit(text: str) -> None:
    """Print one line of a result to stdout, which the user may send to another program."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def next_step(*commands: str) -> None:
    """Print the command that is usually useful next; several are alternatives."""
    for place, command in enumerate(commands):
        say(f"{'or:' if place else 'Next:':5} {command}")


def emit_json(payload: Any) -> None:
    """Print a result as JSON to stdout; values of other types become texts."""
    emit(json.dumps(payload, indent=2, ensure_ascii=False, default=str))


@contextmanager
def track(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a progress bar during a ``with`` block.

    In a notebook the bar is part of the output of the cell. If stderr is no terminal (a log file or
    CI), one line is printed at the end of the work, and for long work further lines say how long it
    will take.

    The function that it yields takes the number of steps that were done since its last call, by
    default 1. `total` is None if the number of steps is unknown.
    """
    if _SILENT.get():  # asked here: threads that call the function do not know what is silent
        yield lambda n=1: None
        return
    if in_notebook():
        yield from _notebook_progress(description, total)
        return
    if not sys.stderr.isatty():
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
    # What goes into a pipe stays there: rich would write it to stderr, above the bar.
    redirects = sys.stdout.isatty()
    with bars.Progress(*columns, console=Console(stderr=True), redirect_stdout=redirects) as bar:
        task = bar.add_task(description, total=total)

        def advance(n: int = 1) -> None:
            bar.advance(task, n)

        yield advance


# Seconds until the first line of progress. In a block of many hours it is a hundredth of its time.
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


def _notebook_progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    bar = NotebookBar(description, total)
    bar.show()
    began = time.monotonic()

    def advance(n: int = 1) -> None:
        count = bar.count + n
        seconds = time.monotonic() - began
        note = ""
        if total is not None and 0 < count < total and seconds > _FIRST:
            note = time_left((total - count) * seconds / count)
        bar.advance(count, note, is_last=count == total)

    yield advance
    if total is None:  # without a total the browser shows a bar that never ends
        bar.total = bar.count
    bar.advance(bar.count, f"{time.monotonic() - began:.0f} s", is_last=True)


def time_left(seconds: float) -> str:
    """Return how much time is left, as a text.

    Example:
        >>> time_left(20), time_left(340), time_left(12_000)
        ('about 20 seconds left', 'about 6 minutes left', 'about 3.3 hours left')
    """
    if seconds > 5400:
        return f"about {seconds / 3600:.1f} hours left"
    if seconds > 90:
        return f"about {seconds / 60:.0f} minutes left"
    return f"about {10 * max(round(seconds / 10), 1)} seconds left"


_BAR_PAUSE = 0.2  # seconds between two updates, which each are a message to the browser


def in_notebook() -> bool:
    """Return True in a kernel of Jupyter, Colab or Kaggle, whose cells show HTML."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class NotebookBar:
    """Progress bar in a notebook cell, which is updated in place. It needs no widgets.

    `total` is None if the number of steps is unknown, `count` the number of steps that were done so
    far, and `note` the text behind the numbers, such as the time left.

    Example:
        >>> bar = NotebookBar("Reading images", 4)
        >>> bar.count = 2
        >>> bar
        Reading images: 2 of 4
        >>> bar._repr_html_()
        '<progress value="2" max="4"></progress> Reading images: 2 of 4'
    """

    def __init__(self, description: str, total: int | None) -> None:
        self.description = description
        self.total = total
        self.count = 0
        self.note = ""
        self._handle: Any = None
        self._shown = 0.0

    def __repr__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        note = f", {self.note}" if self.note else ""
        return f"{self.description}: {self.count}{of}{note}"

    def _repr_html_(self) -> str:
        value = "" if self.total is None else f' value="{self.count}" max="{max(self.total, 1)}"'
        return f"<progress{value}></progress> {html.escape(repr(self))}"

    def show(self) -> None:
        """Show the bar in the cell that is running."""
        from IPython.display import display

        self._handle = display(self, display_id=True)

    def advance(self, count: int, note: str, *, is_last: bool = False) -> None:
        """Set the number of steps done so far and the text behind them, and redraw the bar.

        To spare the browser, the bar is redrawn only if the last time was more than 0.2 seconds
        ago, or this is the last step.
        """
        self.count = count
        self.note = note
        now = time.monotonic()
        if self._handle is not None and (is_last or now - self._shown > _BAR_PAUSE):
            self._shown = now
            self._handle.update(self)
