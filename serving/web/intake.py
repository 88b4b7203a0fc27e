"""Receiving of uploads: how many arrive at a time, how much they hold, and how slow they may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

MEBIBYTE = 1 << 20


@dataclass
class Intake:
    """Places in which bodies arrive, and the memory that they hold until they are answered.

    Attributes:
        places: Bodies that arrive at a time.
        n_bytes: Bytes of all bodies that are in memory.
        grace: Seconds that each body may take at any rate.
        least_rate: Bytes a second from then on.
        patience: Seconds that a request waits for a place and for memory.
    """

    places: int = 16
    n_bytes: int = 256 * MEBIBYTE
    grace: float = 5.0
    least_rate: int = 64_000
    patience: float = 60.0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition, repr=False)

    @asynccontextmanager
    async def room(self, n_bytes: int) -> AsyncIterator[None]:
        """Hold the memory of a body in a ``with`` block; TimeoutError if none becomes free."""
        async with asyncio.timeout(self.patience), self._changed:
            await self._changed.wait_for(lambda: self.n_bytes >= n_bytes)
            self.n_bytes -= n_bytes
        try:
            yield
        finally:
            async with self._changed:
                self.n_bytes += n_bytes
                self._changed.notify_all()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place while a body arrives; TimeoutError if none becomes free."""
        async with asyncio.timeout(self.patience), self._changed:
            await self._changed.wait_for(lambda: self.places > 0)
            self.places -= 1
        try:
            yield
        finally:
            async with self._changed:
                self.places += 1
                self._changed.notify_all()

    async def in_time(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the parts of a body; TimeoutError if it arrives more slowly than is allowed."""
        loop = asyncio.get_running_loop()
        begun, received = loop.time(), 0
        while True:
            async with asyncio.timeout_at(begun + self.grace + received / self.least_rate):
                part = await anext(parts, None)
            if part is None:
                return
            received += len(part)
            yield part
