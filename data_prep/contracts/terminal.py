"""What rooms may tell the person who waits, without knowing how that is shown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Terminal(Protocol):
    """Shows lines and progress; the module `scripts.console` is one."""

    def say(self, text: str = "") -> None:
        """Show a line."""

    def progress(
        self, description: str, total: int | None
    ) -> AbstractContextManager[Callable[..., None]]:
        """Show how far a block is; gives a function to call with how many are done."""
