"""One thread that answers: requests wait in a bounded queue, and several waiting make one batch."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from data_prep.contracts.errors import InputError
from data_prep.images.decoded_image import DecodedImage
from serving.answer import Answer, LoadedRun
from serving.web.settings import ServeSettings

_WAKE = 0.2  # seconds after which a thread without work looks whether it shall end
_LOOK = 0.004  # seconds after which a thread that waits for more looks whether more is coming
_LONGEST_WAIT = 0.05  # seconds that the first image of a batch waits for others


class Busy(Exception):  # noqa: N818 - an outcome, not a fault
    """As many images wait as may wait; worth trying again after so many seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class Places:
    """Bounds what is under way, before its bytes are taken: requests, and their bytes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._taken, self._bytes = 0, 0

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """A place for a request of some bytes, or `Busy`."""
        if self._taken and (self._taken >= self._most or self._bytes + size > self._most_bytes):
            raise Busy(1)
        self._taken += 1
        self._bytes += size
        try:
            yield
        finally:
            self._taken -= 1
            self._bytes -= size


@dataclass(frozen=True, eq=False)
class _Waiting:
    called: str
    image: DecodedImage
    of_file: tuple[str, ...]
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[list[Answer]]

    def deliver(self, outcome: list[Answer] | Exception) -> None:
        """Hand over the outcome, unless nobody waits for it any more."""
        self.loop.call_soon_threadsafe(self._set, outcome)

    def _set(self, outcome: list[Answer] | Exception) -> None:
        if self.result.done():
            return
        if isinstance(outcome, Exception):
            self.result.set_exception(outcome)
        else:
            self.result.set_result(outcome)


class Batcher:
    """Answers for images, several at a time where several wait.

    Of each batch `on_batch` is told how many images it had, and its seconds.
    """

    def __init__(
        self,
        systems: Sequence[LoadedRun],
        settings: ServeSettings,
        on_batch: Callable[[int, float], object] = lambda images, seconds: None,
    ) -> None:
        self._systems, self._batch, self._on_batch = tuple(systems), settings.batch, on_batch
        self._queue: queue.Queue[_Waiting] = queue.Queue(settings.queue)
        self._ended = threading.Event()
        self._coming = 0
        self._seconds = 0.1  # of an image, a moving average
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch at hand; what waits is refused."""
        self._ended.set()
        self._thread.join()
        while not self._queue.empty():
            self._queue.get_nowait().deliver(Busy(1))

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._queue.qsize()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """While an image is made ready: a batch that begins waits for it, but not for long."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def answer(
        self, called: str, image: DecodedImage, of_file: tuple[str, ...] = ()
    ) -> list[Answer]:
        """What each system says of an image. Cancelled, it is dropped from the queue."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(called, image, of_file, loop, loop.create_future())
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise Busy(max(1, round(self._queue.maxsize * self._seconds))) from None
        return await waiting.result

    def _run(self) -> None:
        while not self._ended.is_set():
            if some := self._next():
                self._answer(some)

    def _next(self) -> list[_Waiting]:
        """The images that wait, at most a batch; those that nobody waits for are dropped."""
        some: list[_Waiting] = []
        with suppress(queue.Empty):
            some.append(self._queue.get(timeout=_WAKE))
        # No longer than an image takes: together they take less than one by one.
        end = time.monotonic() + min(self._seconds, _LONGEST_WAIT)
        while some and len(some) < self._batch:
            left = end - time.monotonic() if self._coming else 0.0
            try:
                some.append(self._queue.get(timeout=max(0.0, min(left, _LOOK))))
            except queue.Empty:
                if left <= 0:
                    break
        return [request for request in some if not request.result.done()]

    def _answer(self, some: Sequence[_Waiting]) -> None:
        start = time.monotonic()
        try:
            outcomes = self._ask(some)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            if len(some) > 1:  # one image must not take the answers of others along
                for request in some:
                    self._answer([request])
                return
            outcomes = [error]
        seconds = time.monotonic() - start
        self._seconds += 0.1 * (seconds / len(some) - self._seconds)
        self._on_batch(len(some), seconds)
        for request, outcome in zip(some, outcomes, strict=True):
            request.deliver(outcome)

    def _ask(self, some: Sequence[_Waiting]) -> list[list[Answer] | Exception]:
        images = [(request.called, request.image) for request in some]
        of_files = [request.of_file for request in some]
        by_system = [system.answer(images, of_files) for system in self._systems]
        outcomes: list[list[Answer] | Exception] = []
        for answers in zip(*by_system, strict=True):
            failed = [answer for answer in answers if isinstance(answer, InputError)]
            good = [answer for answer in answers if not isinstance(answer, InputError)]
            outcomes.append(failed[0] if failed else good)
        return outcomes
