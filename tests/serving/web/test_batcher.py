"""The queue before the systems: batches, back-pressure, and requests that nobody waits for."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.serving.web.analysis import Batcher
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.schemas import Refused


class System:
    """Answers with what each image is called, once it is let."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.batches: list[list[str]] = []

    def answer(self, images: Sequence[tuple[str, Any]], file_warnings: Sequence[Any]) -> list[Any]:
        self.begun.set()
        assert self.go.wait(10)
        names = [called for called, _ in images]
        self.batches.append(names)
        assert file_warnings == [(called,) for called in names]
        if "breaks" in names:
            raise MemoryError
        return [InputError("not finite") if name == "wrong" else f"of {name}" for name in names]


IMAGE = DecodedImage(np.zeros((1, 1), np.uint8), {})


async def asked(reader: Batcher, called: str) -> Any:
    return await reader.answer(called, IMAGE, (called,))


async def begin(reader: Batcher, system: System, *names: str) -> list[asyncio.Task[Any]]:
    """Ask for the first image, and for the others while it is at work."""
    tasks = [asyncio.create_task(asked(reader, names[0]))]
    await asyncio.sleep(0)
    await asyncio.to_thread(system.begun.wait, 10)
    tasks += [asyncio.create_task(asked(reader, name)) for name in names[1:]]
    await asyncio.sleep(0)
    return tasks


def run(scenario: Any) -> System:
    """Play a scenario with a reader of two systems, the second of which is asked last."""
    system = System()
    reader = Batcher([system, system], ServeSettings(queue=3, batch=2))  # type: ignore[list-item]
    reader.start()
    try:
        asyncio.run(scenario(reader, system))
    finally:
        system.go.set()
        reader.stop()
    return system


def test_waiting_images_are_answered_in_batches_with_their_answers() -> None:
    async def scenario(reader: Batcher, system: System) -> None:
        tasks = await begin(reader, system, "a", "b", "c", "d")
        assert reader.waiting == 3
        system.go.set()
        assert await asyncio.gather(*tasks) == [["of " + name] * 2 for name in "abcd"]

    assert run(scenario).batches[::2] == [["a"], ["b", "c"], ["d"]]


def test_a_batch_waits_for_what_is_being_decoded_but_not_for_long(monkeypatch):
    monkeypatch.setattr("cxr_compare.serving.web.analysis._LONGEST_WAIT", 10.0)

    async def scenario(reader: Batcher, system: System) -> None:
        system.go.set()
        reader.seconds_per_image = 10.0
        with reader.coming():
            first = asyncio.create_task(asked(reader, "a"))
            await asyncio.sleep(0.05)
            assert not first.done()
            assert await asked(reader, "b") == ["of b"] * 2
            assert await first == ["of a"] * 2
            reader.seconds_per_image = 0.01
            assert await asked(reader, "c") == ["of c"] * 2  # though the other never comes

    assert run(scenario).batches[::2] == [["a", "b"], ["c"]]


def test_image_beyond_the_queue_is_refused_with_a_retry_time() -> None:
    async def scenario(reader: Batcher, system: System) -> None:
        tasks = await begin(reader, system, "a", "b", "c", "d")
        with pytest.raises(Refused) as busy:
            await asked(reader, "e")
        assert int(busy.value.headers["Retry-After"]) >= 1
        system.go.set()
        await asyncio.gather(*tasks)
        assert await asked(reader, "e") == ["of e"] * 2

    run(scenario)


def test_image_of_a_cancelled_request_is_never_processed() -> None:
    async def scenario(reader: Batcher, system: System) -> None:
        tasks = await begin(reader, system, "a", "b", "c")
        tasks[1].cancel()
        await asyncio.sleep(0)
        system.go.set()
        assert await tasks[2] == ["of c"] * 2

    assert run(scenario).batches[::2] == [["a"], ["c"]]


def test_an_image_that_fails_takes_no_other_along() -> None:
    async def scenario(reader: Batcher, system: System) -> None:
        tasks = await begin(reader, system, "a", "breaks", "b", "wrong")
        system.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcomes[0], outcomes[2]] == [["of a"] * 2, ["of b"] * 2]
        assert isinstance(outcomes[1], MemoryError)
        assert isinstance(outcomes[3], InputError)

    run(scenario)


def test_what_waits_at_the_end_is_refused() -> None:
    async def scenario(reader: Batcher, system: System) -> None:
        tasks = await begin(reader, system, "a", "b", "c", "d")
        stopping = asyncio.create_task(asyncio.to_thread(reader.stop))
        await asyncio.sleep(0.01)
        system.go.set()
        await stopping
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes[0] == ["of a"] * 2
        assert all(isinstance(outcome, Refused) for outcome in outcomes[1:])

    run(scenario)
