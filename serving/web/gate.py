"""Checks that every request passes before a route, of host and token, and the log.

The check of the host stops other web pages in the same browser (DNS rebinding), and the token stops
strangers. A proxy in front of the server limits rates.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from pathlib import Path
from typing import Any

from fastapi.responses import JSONResponse
from fastapi.security.utils import get_authorization_scheme_param
from starlette.applications import Starlette
from starlette.authentication import AuthenticationBackend, AuthenticationError
from starlette.datastructures import MutableHeaders
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.schemas import ErrorAnswer, Refused

_LOG = logging.getLogger("cxr.serve")
_CLIENT_LEFT = 499  # as nginx logs it
# Paths that need no token, besides the files of the page, which asks the user for the token.
_OPEN_PATHS = ("/", "/healthz")
_PAGE_FILES = "/page/"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def add_gate(app: Starlette, settings: ServeSettings) -> None:
    """Check each request to an application: its host, then its token; and log it."""
    hosts = [settings.host, "localhost", "127.0.0.1", "[::1]", *settings.allowed_hosts]
    hosts = [f"[{host}]" if host.count(":") > 1 and host[0] != "[" else host for host in hosts]
    if settings.token is not None:
        app.add_middleware(
            AuthenticationMiddleware,
            backend=_BearerToken(settings.token),
            on_error=lambda connection, error: error_response(_no_token(error), connection.scope),
        )
    app.add_middleware(_HostCheck, hosts=hosts)
    app.add_middleware(_RequestLog)  # outermost: it logs what is refused, too


def error_response(refused: Refused, scope: Scope) -> Response:
    """Return the response to a refused request."""
    body = ErrorAnswer(request_id=scope["cxr_request_id"], error=refused.error)
    return JSONResponse(body.model_dump(exclude_none=True), refused.status, headers=refused.headers)


class _BearerToken(AuthenticationBackend):
    """Requires the token of the server for all paths but a few."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def authenticate(self, conn: HTTPConnection) -> None:
        path = conn.scope["path"]
        if path in _OPEN_PATHS or path.startswith(_PAGE_FILES):
            return
        scheme, token = get_authorization_scheme_param(conn.headers.get("Authorization"))
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), self._token):
            raise AuthenticationError("send the token of this server: Authorization: Bearer TOKEN")


def _no_token(error: AuthenticationError) -> Refused:
    return Refused(401, "token", str(error), {"WWW-Authenticate": 'Bearer realm="cxr"'})


class _HostCheck:
    """Starlette's check of the host; what it refuses gets an answer as all other refusals do."""

    def __init__(self, app: ASGIApp, hosts: list[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def passed(*_: object) -> None:
            await self._app(scope, receive, send)

        async def refused(_: Message) -> None:
            raise Refused(
                400,
                "host",
                "the header Host names another server; use the address of this one, or start it "
                "with --allowed-host NAME",
            )

        check = TrustedHostMiddleware(passed, self._hosts, www_redirect=False)
        await check(scope, receive, refused)


class _RequestLog:
    """Gives each request an id, logs id, route, status and seconds alone, and adds headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["cxr_request_id"] = secrets.token_hex(6)
        start = time.monotonic()
        status = 0  # none yet

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = None
        try:
            await self._app(scope, receive, noting)
        except Refused as error:
            refused = error
        except ClientDisconnect:
            status = _CLIENT_LEFT
        except asyncio.CancelledError:  # the server ends, and waits no longer
            refused = Refused(503, "stopping", "the server is ending; try again later")
        except Exception as error:  # noqa: BLE001 - its text may quote a header
            _LOG.error("%s failed: %s", request_id, _where(error))
            message = f"something went wrong; the log names it as {request_id}"
            refused = Refused(500, "internal", message)
        if refused is not None and not status:
            await error_response(refused, scope)(scope, receive, noting)
        seconds = time.monotonic() - start
        route = getattr(scope.get("route"), "path", "none")
        _LOG.info("%s %s %s %d %.3f s", request_id, scope["method"], route, status, seconds)


def _where(error: BaseException) -> str:
    """Return the type of an error and the lines it came from, without its text."""
    lines: list[str] = []
    trace: Any = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"{Path(code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' '.join(lines[-6:])}"
