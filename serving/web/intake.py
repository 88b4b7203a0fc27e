"""Receiving of uploads: how many arrive at a time, how much they hold, and how slow they may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

MEBIBYTE = 1 << 20


@dataclass(eq=False)
class Body:
    """The body of a request: when it began, and what of it has arrived.

    Attributes:
        limit: Time until which its next part must come; None while none is waited for.
        is_ended: True if it has to leave for another one.
    """

    begun: float
    n_bytes: int = 0
    limit: asyncio.Timeout | None = None
    is_ended: bool = False

    def end(self) -> None:
        """Wait no longer for the rest of it."""
        self.is_ended = True
        if self.limit is not None and not self.limit.expired():
            self.limit.reschedule(0)


@dataclass
class Intake:
    """Places in which bodies arrive, and the memory that they hold until they are answered.

    Memory is counted as it arrives. Where places or memory are full, the body that arrives most
    slowly ends for the next one, after its grace, which is shorter the more are waiting: else a
    crowd of slow ones, one after the other, would outlast the patience of all.

    Attributes:
        places: Bodies that arrive at a time.
        n_bytes: Bytes of all bodies that are in memory.
        grace: Seconds that each body may take at any rate.
        least_rate: Bytes a second from then on.
        patience: Seconds that a request waits for a place, and a body for memory.
    """

    places: int = 16
    n_bytes: int = 256 * MEBIBYTE
    grace: float = 5.0
    least_rate: int = 64_000
    patience: float = 60.0
    _n_waiting: int = field(default=0, repr=False)
    _held: int = field(default=0, repr=False)
    _arriving: list[Body] = field(default_factory=list, repr=False)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition, repr=False)

    @asynccontextmanager
    async def room(self) -> AsyncIterator[Body]:
        """Give a body a place until it `has_arrived`, and hold its memory in a ``with`` block.

        TimeoutError if no place becomes free.
        """
        await self._until(lambda: len(self._arriving) < self.places)
        body = Body(asyncio.get_running_loop().time())
        self._arriving.append(body)
        try:
            yield body
        finally:
            await self.has_left(body)

    async def has_left(self, body: Body) -> None:
        """Free the place and the memory of a body."""
        self._held -= body.n_bytes
        body.n_bytes = 0
        await self.has_arrived(body)

    async def has_arrived(self, body: Body) -> None:
        """Free the place of a body."""
        async with self._changed:
            if body in self._arriving:
                self._arriving.remove(body)
            self._changed.notify_all()

    async def _until(self, is_free: Callable[[], bool]) -> None:
        """Wait for room, and end the slowest body for it; one at a time, so that no second goes."""
        self._n_waiting += 1
        try:
            async with asyncio.timeout(self.patience), self._changed:
                while not is_free():
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(self._end_slowest()):
                            await self._changed.wait()
        finally:
            self._n_waiting -= 1

    def _end_slowest(self) -> float | None:
        """End the slowest body after its grace; return when there is one, if there is none yet."""
        now = asyncio.get_running_loop().time()
        grace = self.grace * self.places / (self.places + self._n_waiting - 1)
        if not self._arriving or any(each.is_ended for each in self._arriving):
            return None
        late = [each for each in self._arriving if each.begun + grace <= now]
        if not late:
            return min(each.begun for each in self._arriving) + grace
        min(late, key=lambda each: each.n_bytes / (now - each.begun + 1e-9)).end()
        return None

    async def in_time(self, body: Body, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the parts of a body; TimeoutError if it arrives more slowly than is allowed."""
        now = asyncio.get_running_loop().time
        while not body.is_ended:
            end = body.begun + self.grace + body.n_bytes / self.least_rate
            async with asyncio.timeout_at(end) as body.limit:
                part = await anext(parts, None)
            body.limit = None
            if part is None:
                return
            body.n_bytes += len(part)
            self._held += len(part)
            if self._held > self.n_bytes:
                paused = now()
                await self._until(lambda: self._held <= self.n_bytes or body.is_ended)
                body.begun += now() - paused  # which was not its fault
            yield part
        raise TimeoutError
