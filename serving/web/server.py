"""The server process: its application, its log, and its end on a signal."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr_compare.serving.answer import RESEARCH_USE
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.analysis import Server
from cxr_compare.serving.web.app import Files, not_now, reports, router
from cxr_compare.serving.web.gate import add_gate, with_security_headers
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.schemas import Refused
from cxr_compare.serving.web.systems import ServedSystem, missed_together, report_figures

_LOG = logging.getLogger("cxr.serve")
_REPORT_URL = "/report/report.html"
_MOST_CONNECTIONS = 64  # further ones get the status 503


def build_app(
    systems: Sequence[Run], settings: ServeSettings, *, report: Path | None = None
) -> FastAPI:
    """Build the web application that predicts uploaded images with some systems.

    Args:
        systems: Loaded runs (trained networks with their thresholds) or exports of their networks.
        settings: Limits and addresses of the server.
        report: Report folder of cxr compare on these systems, or None.

    Returns:
        The application. It does not listen yet.
    """
    served = [
        ServedSystem(run, figures, _REPORT_URL if figures and figures.images == "test" else None)
        for run, figures in zip(systems, report_figures(systems, report), strict=True)
    ]
    server = Server(served, settings, missed_together(systems, report))
    app = FastAPI(
        title="cxr-compare",
        version=metadata.version("cxr-compare"),
        summary="What lesion detectors and image classifiers say of a chest X-ray.",
        description=RESEARCH_USE,
        docs_url=None,  # its scripts would be loaded from another server
        redoc_url=None,
        lifespan=lambda app: server.running(),
    )
    app.state.server = server
    app.state.files = Files(report)
    app.include_router(router)
    app.include_router(reports)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    add_gate(app, settings, _error_of)
    # Outermost: it logs what the gate refuses, too.
    app.add_middleware(_RequestLog, server=server)
    return app


class _RequestLog:
    """Gives each request an id, and logs id, route, status and seconds alone."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["cxr_request_id"] = secrets.token_hex(6)
        start = time.monotonic()
        status = 500
        begun = False

        async def noting(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status = message["status"]
                begun = True
                message["headers"] = with_security_headers(message["headers"])
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:  # the server ends, and waits no longer
            if not begun:
                await _error_of(not_now(self._server), scope)(scope, receive, noting)
        except Exception as error:  # noqa: BLE001 - its text may quote a header
            _LOG.error("%s failed: %s", request_id, _where(error))
            if not begun:
                message = f"something went wrong; the log names it as {request_id}"
                await _error_of(Refused(500, "internal", message), scope)(scope, receive, noting)
        seconds = time.monotonic() - start
        route = getattr(scope.get("route"), "path", "none")
        _LOG.info("%s %s %s %d %.3f s", request_id, scope["method"], route, status, seconds)


def _where(error: BaseException) -> str:
    """Return the type of an error and the lines it came from, without its text."""
    places: list[str] = []
    trace: Any = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' '.join(places[-6:])}"


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101
    return _error_of(error, request.scope)


def _error_of(refused: Refused, scope: Scope) -> Response:
    body = refused.body(scope["cxr_request_id"])
    return JSONResponse(body, refused.status, headers=refused.headers or None)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code, message = {
        404: ("not_found", "there is nothing here"),
        405: ("method_not_allowed", f"this path takes {(error.headers or {}).get('Allow')}"),
    }.get(error.status_code, ("refused", str(error.detail)))
    return _error_of(Refused(error.status_code, code, message, error.headers), request.scope)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    place = " ".join(map(str, first["loc"]))
    return _error_of(Refused(400, "bad_input", f"{place}: {first['msg']}"), request.scope)


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
        if self.force_exit:  # uvicorn would leave requests alone
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.server.status = "stopping"
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
    """Serve on a socket until a signal ends the server.

    Args:
        systems: Loaded runs (trained networks with their thresholds) or exports of their networks.
        settings: Limits and addresses of the server.
        listening: Socket that is bound to the address.
        report: Report folder of cxr compare on these systems, or None.
        grace: Seconds that requests get to finish after the signal.
        on_start: Function that is called once the server listens.

    Returns:
        Number of the signal, such as 2 for Ctrl-C.

    Raises:
        RuntimeError: The server ended by itself; the log says why.
    """
    handler = logging.StreamHandler()  # a line a request: its id, route, status and seconds
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in (("cxr.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level)
    config = uvicorn.Config(
        build_app(systems, settings, report=report),
        http="h11",
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
