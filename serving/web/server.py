"""A server's life: listening, ending on a signal, its log."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn

from serving.answer import LoadedRun
from serving.web.app import build_app
from serving.web.gate import PatientProtocol
from serving.web.settings import ServeSettings

_IDLE = 20  # seconds that a connection without a request stays open


class _Server(uvicorn.Server):
    """Tells when it listens, and says that it is not ready from the signal on."""

    ended_by: int | None = None

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn would leave requests and the decoding processes alone
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.server.status = "stopping"
        self.ended_by = sig
        super().handle_exit(sig, frame)


def run_server(
    systems: Sequence[LoadedRun],
    settings: ServeSettings,
    listening: socket.socket,
    *,
    report: Path | None,
    grace: int,
    on_start: Callable[[], object],
) -> int:
    """Serve on a bound socket until a signal ends it, and return the signal's number.

    Args:
        systems: What answers.
        settings: Limits.
        listening: The bound socket.
        report: Folder of a report, or None.
        grace: Seconds that requests under way get at the end.
        on_start: Called once it listens.

    Raises:
        RuntimeError: It ended by itself; the log says why.
    """
    handler = logging.StreamHandler()  # a line a request: its id, route, status and seconds
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in (("cxr.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(level)
    config = uvicorn.Config(
        build_app(systems, settings, report=report),
        http=PatientProtocol,
        log_config=None,
        access_log=False,  # it would name paths and addresses
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=grace,
        limit_concurrency=None,
        ws="none",
    )
    server = _Server(config, on_start)
    with suppress(KeyboardInterrupt):  # uvicorn has ended, and raises the signal again
        server.run(sockets=[listening])
    if server.ended_by is None:
        raise RuntimeError("the server ended by itself")
    return server.ended_by
