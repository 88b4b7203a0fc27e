"""One server of two tiny exports for all tests of the web layer."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from cxr_compare.serving.run import Run
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.server import build_app
from tests.scripts.launched import wait_until
from tests.small_dicom import image_file


@contextmanager
def listening(app: Any, **options: Any) -> Iterator[int]:
    """The port of the loopback at which a server of an app listens."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none", **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 20)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(20)


class Client:
    """Calls an app in an event loop of a thread of its own.

    Args:
        app: What is called.
        lifespan: Whether it is begun and ended; files are given away without.
    """

    def __init__(self, app: FastAPI, *, lifespan: bool = True) -> None:
        self._app, self._begins = app, lifespan
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._lifespan = app.router.lifespan_context(app)

    def __enter__(self) -> Self:
        self._thread.start()
        if self._begins:
            self._run(self._lifespan.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        if self._begins:
            self._run(self._lifespan.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._run(self._send("GET", path, **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self._run(self._send("POST", path, **options))

    def post_together(self, path: str, requests: list[dict[str, Any]]) -> list[httpx.Response]:
        async def send() -> list[httpx.Response]:
            return await asyncio.gather(
                *(self._send("POST", path, **request) for request in requests)
            )

        return self._run(send())

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.request(method, path, **options)

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        """The app for a caller in another loop; its lifespan is begun and ended here."""
        if scope["type"] == "lifespan":
            for moment in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{moment}.complete"})
            return
        caller = asyncio.get_running_loop()

        async def there(work: Any) -> Any:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, caller))

        work = self._app(scope, lambda: there(receive()), lambda message: there(send(message)))
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """Makes squares of random grey, 120 x 90 px, others for each seed."""

    def make(seed: int) -> bytes:
        coarse = np.random.default_rng(seed).integers(0, 256, (9, 12), dtype=np.uint8)
        pixels = np.kron(coarse, np.ones((10, 10), np.uint8))  # noise of single pixels is doubted
        return image_file(pixels, "PNG")

    return make


@pytest.fixture(scope="session")
def exports(systems: dict[str, tuple[Path, Run]]) -> list[Path]:
    """The folders of a detector's and a classifier's export."""
    return [folder for folder, _ in systems.values()]


@pytest.fixture(scope="session")
def served(exports: list[Path]) -> list[Run]:
    """The exports, opened."""
    return [Run.open(folder, name=folder.name) for folder in exports]


@pytest.fixture(scope="session")
def app(served: list[Run]) -> FastAPI:
    """The server's app; it answers while `client` lives."""
    return build_app(served, ServeSettings(allowed_hosts=("testserver",)))


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[Client]:
    """A client of the app, once it is ready."""
    with Client(app) as client:
        yield client


@pytest.fixture(scope="session")
def client_of() -> type[Client]:
    """Makes a client of another app."""
    return Client
