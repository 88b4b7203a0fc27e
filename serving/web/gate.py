"""Checks of every request before a route sees it, and security headers of every response.

Checks of host and origin stop other web pages in the same browser (DNS rebinding, cross-site
posts). The token stops strangers, and the limit of size stops bodies that fill the memory. A proxy
in front of the server limits rates and slow clients. Nothing is logged here.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable

from starlette.applications import Starlette
from starlette.authentication import AuthenticationBackend, AuthenticationError
from starlette.datastructures import Headers
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr_compare.serving.web.limits import MEBIBYTE, ServeSettings
from cxr_compare.serving.web.schemas import Refused

# Paths that need no token, besides the files of the page, which asks the user for the token.
_OPEN_PATHS = ("/", "/healthz", "/readyz")
_PAGE_FILES = "/page/"
_CACHE = b"cache-control"
_POLICY = b"content-security-policy"
_HEADERS = (
    (
        _POLICY,
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        b"connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (
        b"permissions-policy",
        b"accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), "
        b"magnetometer=(), microphone=(), midi=(), payment=(), usb=()",
    ),
)


def with_security_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response with security headers added.

    A response keeps its own ``Cache-Control`` and ``Content-Security-Policy``.

    Args:
        headers: Names and values of the headers of the response.

    Returns:
        Names and values of all headers.
    """
    headers = list(headers)
    present = {name.lower() for name, _ in headers} & {_CACHE, _POLICY}
    added = {
        name: value for name, value in ((_CACHE, b"no-store"), *_HEADERS) if name not in present
    }
    return [*(pair for pair in headers if pair[0].lower() not in added), *added.items()]


def add_gate(
    app: Starlette, settings: ServeSettings, answer: Callable[[Refused, Scope], Response]
) -> None:
    """Check each request to an application: its host, origin, token and size, in this order.

    Args:
        app: Application that gets the requests that pass.
        settings: Token, host names and largest size of a request.
        answer: Function that returns the response to a refused request.
    """
    hosts = [settings.host, "localhost", "127.0.0.1", "[::1]", *settings.allowed_hosts]
    hosts = [f"[{host}]" if host.count(":") > 1 and host[0] != "[" else host for host in hosts]
    app.add_middleware(_SizeLimit, most=settings.max_bytes, answer=answer)
    if settings.token is not None:
        app.add_middleware(
            AuthenticationMiddleware,
            backend=_BearerToken(settings.token),
            on_error=lambda connection, error: answer(_no_token(str(error)), connection.scope),
        )
    app.add_middleware(_SameOrigin, answer=answer)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)


class _BearerToken(AuthenticationBackend):
    """Requires the token of the server for all paths but a few."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def authenticate(self, conn: HTTPConnection) -> None:
        path = conn.scope["path"]
        if path in _OPEN_PATHS or path.startswith(_PAGE_FILES):
            return
        sent = conn.headers.getlist("authorization")
        scheme, _, token = (sent[0] if len(sent) == 1 else "").partition(" ")
        is_ours = hmac.compare_digest(token.strip().encode(), self._token)
        if scheme.lower() != "bearer" or not is_ours:
            raise AuthenticationError("send the token of this server: Authorization: Bearer TOKEN")


def _no_token(message: str) -> Refused:
    return Refused(401, "token", message, {"WWW-Authenticate": 'Bearer realm="cxr"'})


class _SameOrigin:
    """Refuses what the page of another site posts; programs name no origin."""

    def __init__(self, app: ASGIApp, answer: Callable[[Refused, Scope], Response]) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and not _is_same_origin(scope):
            message = "sent by a page of another origin; use the page of this server"
            response = self._answer(Refused(403, "origin", message), scope)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_same_origin(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    host = headers.get("host", "").lower()
    for origin in headers.getlist("origin"):
        scheme, _, rest = origin.lower().partition("://")
        if scheme not in ("http", "https") or rest != host:
            return False
    sites = headers.getlist("sec-fetch-site")
    return all(site.lower() in ("same-origin", "none") for site in sites)


class _SizeLimit:
    """Refuses a body that is too large, by the length that it states and while it arrives."""

    def __init__(
        self, app: ASGIApp, most: int, answer: Callable[[Refused, Scope], Response]
    ) -> None:
        self._app = app
        self._most = most
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refused(Headers(scope=scope))
        if refused is not None:
            await self._answer(refused, scope)(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most:
                raise self._too_large()
            return message

        await self._app(scope, limited, send)

    def _refused(self, headers: Headers) -> Refused | None:
        lengths = headers.getlist("content-length")
        if lengths and "transfer-encoding" in headers:
            # A proxy before us may take the other for the length, and hide a request behind it.
            message = "a request has either Content-Length or Transfer-Encoding"
            return Refused(400, "two_lengths", message, {"Connection": "close"})
        if any(not length.isdigit() or int(length[:20]) > self._most for length in lengths):
            return self._too_large()
        return None

    def _too_large(self) -> Refused:
        limit = f"{self._most / MEBIBYTE:,.4g} MiB"
        message = f"larger than the limit of {limit}"
        return Refused(413, "too_large", message, {"Connection": "close"})
