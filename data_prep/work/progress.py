"""Progress reports to the person who waits for long work."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """A reporter of messages and of progress; the module `scripts.console` is one."""

    def say(self, text: str = "") -> None:
        """Show a line."""

    def track(
        self, description: str, total: int | None
    ) -> AbstractContextManager[Callable[..., None]]:
        """Show how far the block is.

        Args:
            description: Name of the work.
            total: Number of items of the work; None where it is unknown.

        Returns:
            A context manager that gives a function. Call it with the number of items that have
            been done since the last call.
        """
