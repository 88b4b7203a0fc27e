"""One server of two tiny exports for all tests of the web layer."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from serving.answer import LoadedRun
from serving.web.app import build_app
from serving.web.settings import ServeSettings


class Client:
    """Calls an app, whose lifespan it begins and ends, in an event loop of a thread of its own."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._lifespan = app.router.lifespan_context(app)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._lifespan.__aenter__())
        while self.get("/readyz").status_code != 200:
            pass
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._lifespan.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self._run(self._send("GET", path, **given))

    def post(self, path: str, **given: Any) -> httpx.Response:
        return self._run(self._send("POST", path, **given))

    def post_together(self, path: str, all_given: list[dict[str, Any]]) -> list[httpx.Response]:
        async def send() -> list[httpx.Response]:
            return await asyncio.gather(*(self._send("POST", path, **each) for each in all_given))

        return self._run(send())

    async def _send(self, method: str, path: str, **given: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.request(method, path, **given)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """Makes noise of 120 x 90 px, another for each seed."""

    def make(seed: int) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (90, 120), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def exports(systems: dict[str, tuple[Path, LoadedRun]]) -> list[Path]:
    """The folders of a detector's and a classifier's export."""
    return [folder for folder, _ in systems.values()]


@pytest.fixture(scope="session")
def served(exports: list[Path]) -> list[LoadedRun]:
    """The exports, opened."""
    return [LoadedRun.open(folder, name=folder.name) for folder in exports]


@pytest.fixture(scope="session")
def app(served: list[LoadedRun]) -> FastAPI:
    """The server's app; it answers while `client` lives."""
    return build_app(served, ServeSettings(batch=4, queue=32, allowed_hosts=("testserver",)))


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[Client]:
    """A client of the app, once it is ready."""
    with Client(app) as client:
        yield client


@pytest.fixture(scope="session")
def client_of() -> type[Client]:
    """Makes a client of another app."""
    return Client
