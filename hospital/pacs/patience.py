"""Waiting for an archive that does not answer, as opposed to one that refuses a request."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cxr_compare.data_prep.contracts.errors import InputError

Result = TypeVar("Result")

# seconds
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 16.0
_FEW = 3  # number of times that a request is sent which fails while the archive is up


class UnreachableError(InputError):
    """The archive did not respond within the allowed time, or a disk is full."""


class RefusedError(InputError):
    """The archive refused a request about one image. Requests about other images may succeed."""


class OutageError(Exception):
    """A request to an archive that failed for now, and may succeed if it is repeated later.

    The reason is one line. The archive may say after how many seconds it wants the request to be
    repeated. If `is_down`, requests about other images fail as well, else only this one.
    """

    def __init__(
        self, reason: str, *, retry_after: float | None = None, is_down: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.is_down = is_down


@dataclass(frozen=True)
class Patience:
    """Rule for repeating a request to an archive that does not answer.

    The waiting time doubles from half a second to 16 seconds.

    Attributes:
        seconds: Longest time, in seconds, during which the archive may fail to answer.
        say: Function that shows a line to the user; it is called once in each outage.
    """

    seconds: float
    say: Callable[[str], object]
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def run(self, attempt: Callable[[], Result], archive: str) -> Result:
        """Call a function until it raises no `OutageError` (failure that may pass) or time is over.

        `archive` is the name for messages. `UnreachableError` says that the function has failed for
        longer than `seconds`, and `RefusedError` that it has failed three times with an outage that
        concerns only this request (`is_down` is False).
        """
        end = self.clock() + self.seconds
        wait = _FIRST_WAIT
        count = 0
        while True:
            try:
                return attempt()
            except OutageError as outage:
                count += 1
                if not outage.is_down and count >= _FEW:
                    raise RefusedError(f"{archive}: {outage.reason}, {count} times") from None
                left = end - self.clock()
                if left <= 0:
                    waited = f", for {self.seconds:g} s" if self.seconds else ""
                    raise UnreachableError(f"{archive}: {outage.reason}{waited}") from None
                if count == 1:
                    self.say(
                        f"{archive}: {outage.reason}; trying again for up to {self.seconds:g} s"
                    )
                self.sleep(min(max(wait, outage.retry_after or 0.0), left))
                wait = min(2 * wait, _LONGEST_WAIT)
