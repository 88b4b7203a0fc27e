"""Interface for messages and progress of long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Interface by which long work shows messages and progress to the user.

    The module `scripts.console` implements it for the command line.
    """

    def say(self, text: str = "") -> None:
        """Show a message of one line."""

    def track(
        self, description: str, total: int | None
    ) -> AbstractContextManager[Callable[..., None]]:
        """Show the progress of the work in a ``with`` block.

        The block gets a function that is called with the number of items that were done since its
        last call. None for the total means that it is unknown.
        """


class Silence:
    """Implementation of the interface `Progress` that shows no messages and no progress."""

    def say(self, text: str = "") -> None:
        """Show no message."""

    @contextmanager
    def track(self, description: str, total: int | None) -> Iterator[Callable[..., None]]:
        """Show no progress of the work in a ``with`` block."""
        yield lambda *count: None
