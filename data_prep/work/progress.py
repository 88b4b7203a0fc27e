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
        """Show a message of one line.

        Args:
            text: The message.
        """

    def track(
        self, description: str, total: int | None
    ) -> AbstractContextManager[Callable[..., None]]:
        """Show the progress of the work in a ``with`` block.

        Args:
            description: Name of the work, as the user sees it.
            total: Number of items of the work; None if it is unknown.

        Returns:
            A context manager. It gives a function that is called with the number of items that were
            done since its last call.
        """


class Silence:
    """Implementation of the interface `Progress` that shows no messages and no progress.

    Example:
        >>> with Silence().track("Reading", 2) as advance:
        ...     advance(2)
    """

    def say(self, text: str = "") -> None:
        """Show no message.

        Args:
            text: The message, which is not shown.
        """

    @contextmanager
    def track(self, description: str, total: int | None) -> Iterator[Callable[..., None]]:
        """Show no progress of the work in a ``with`` block.

        Args:
            description: Name of the work, which is not shown.
            total: Number of items of the work, which is not shown.

        Yields:
            A function that does nothing.
        """
        yield lambda *count: None
