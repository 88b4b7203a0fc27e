"""A progress bar in the output of a notebook cell."""

from __future__ import annotations

import html
import sys
import time
from typing import Any

_PAUSE = 0.2  # seconds between two updates, which each are a message to the browser


def in_notebook() -> bool:
    """Return True in a kernel of Jupyter, Colab or Kaggle, whose cells show HTML."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class NotebookBar:
    """Progress bar in a notebook cell, which is updated in place. It needs no widgets.

    Args:
        description: Text before the numbers.
        total: Number of steps, or None if it is unknown.

    Attributes:
        description: Text before the numbers.
        total: Number of steps, or None if it is unknown.
        count: Number of steps that were done so far.
        note: Text behind the numbers, such as the time left.

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
        """Set the number of steps that were done, and redraw the bar.

        To spare the browser, the bar is redrawn only if the last time was more than 0.2 seconds
        ago.

        Args:
            count: Number of steps that were done so far.
            note: Text behind the numbers, such as the time left.
            is_last: True always redraws it.
        """
        self.count = count
        self.note = note
        now = time.monotonic()
        if self._handle is not None and (is_last or now - self._shown > _PAUSE):
            self._shown = now
            self._handle.update(self)
