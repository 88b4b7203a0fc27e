"""The server process: its application, its log, and its end on a signal."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import FrameType

import h11
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from cxr_compare.serving.answer import RESEARCH_USE
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.analysis import Server
from cxr_compare.serving.web.app import Files, router
from cxr_compare.serving.web.gate import add_gate, error_response
from cxr_compare.serving.web.limits import PATIENCE, ServeSettings
from cxr_compare.serving.web.schemas import Refused
from cxr_compare.serving.web.systems import ServedSystem, missed_together, report_figures

_REPORT_URL = "/report/report.html"
_MOST_CONNECTIONS = 64  # further ones get the status 503


def build_app(
    systems: Sequence[Run], settings: ServeSettings, *, report: Path | None = None
) -> FastAPI:
    """Build the web application that predicts uploaded images with some systems.

    `systems` are loaded runs or exports, and `report` is the report folder of cxr compare on them.
    The application does not listen yet.
    """
    served = [
        ServedSystem(run, figures, _REPORT_URL if figures and figures.images == "test" else None)
        for run, figures in zip(systems, report_figures(systems, report), strict=True)
    ]
    app = FastAPI(
        title="cxr-compare",
        version=metadata.version("cxr-compare"),
        summary="What lesion detectors and image classifiers say of a chest X-ray.",
        description=RESEARCH_USE,
        docs_url=None,  # its scripts would be loaded from another server
        redoc_url=None,
    )
    app.state.server = Server(served, settings, missed_together(systems, report))
    app.state.files = Files(report)
    app.include_router(router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    add_gate(app, settings)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101
    return error_response(error, request.scope)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code, message = {
        404: ("not_found", "there is nothing here"),
        405: ("method_not_allowed", f"this path takes {(error.headers or {}).get('Allow')}"),
    }.get(error.status_code, ("refused", str(error.detail)))
    return error_response(Refused(error.status_code, code, message, error.headers), request.scope)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    place = " ".join(map(str, first["loc"]))
    return error_response(Refused(400, "bad_input", f"{place}: {first['msg']}"), request.scope)


class ImpatientProtocol(H11Protocol):
    """Closes a connection on which the headers of a request take too long to arrive."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the headers of the first request."""
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Wait no longer if the headers are complete, else from their first part on."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:  # the headers are complete
            self._stop()
        elif self._timer is None:
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._timer = self.loop.call_later(PATIENCE, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    """Tells when it listens, and which signal ended it."""

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
        if self.force_exit:  # uvicorn would leave requests alone
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.ended_by = sig
        super().handle_exit(sig, frame)


def run_server(
    systems: Sequence[Run],
    settings: ServeSettings,
    listening: socket.socket,
    *,
    report: Path | None,
    grace: int,  # seconds that requests under way get at the end
    on_start: Callable[[], object],  # called once it listens
) -> int:
    """Serve on a bound socket until a signal ends the server; return the number of the signal.

    `grace` is the time in seconds that requests get to finish after the signal. `on_start` is
    called once the server listens. Raises RuntimeError if the server ended by itself; the log says
    why.
    """
    handler = logging.StreamHandler()  # a line a request: its id, route, status and seconds
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in (("cxr.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level)
    app = build_app(systems, settings, report=report)
    app.state.server.warm_up()
    config = uvicorn.Config(
        app,
        http="h11" if settings.patience is None else ImpatientProtocol,
        log_config=None,
        access_log=False,  # an access log would name paths and addresses
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace,
        limit_concurrency=_MOST_CONNECTIONS,
        ws="none",
    )
    server = _Server(config, on_start)
    with suppress(KeyboardInterrupt):  # uvicorn has ended, and raises the signal again
        server.run(sockets=[listening])
    if server.ended_by is None:
        raise RuntimeError("the server ended by itself")
    return server.ended_by
