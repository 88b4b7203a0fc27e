"""Checks of every request before a route sees it, and security headers of every response.

Checks of host and origin stop other web pages in the same browser (DNS rebinding, cross-site
posts). The token and the limits of rate, size and time stop strangers and floods of requests.
Nothing is logged here.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from cxr_compare.data_prep.work.network_addresses import is_loopback
from cxr_compare.serving.web.limits import MEBIBYTE, ServeSettings
from cxr_compare.serving.web.schemas import Refused

# Paths that need no token, besides the files of the page, which asks the user for the token.
_OPEN_PATHS = ("/", "/healthz", "/readyz")
REPORT_FILES = "/report/"  # the only path that a cookie opens, and only to be read
_PAGE_FILES = "/page/"
_COOKIE_SECONDS = 12 * 3600
_METHODS = ("GET", "HEAD", "POST")
_MOST_CLIENTS = 4096
_DRAIN_SECONDS = 2.0
_DRAIN_BYTES = 256 << 20
_MOST_BYTES = 512 << 20  # largest size of all request bodies in memory
# A body must grow by at least so many bytes in each interval of so many seconds.
_LEAST_BYTES = 16 << 10
_PACE_SECONDS = 5.0
_BURST_SECONDS = 10.0  # seconds of the rate that a client may use at once
_LEAST_BURST = 20.0
# Form of RFC 9110, in lower case.
_HOST = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?")
_LARGEST_PORT = 65535
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


class RateLimit:
    """Limit on the requests of each client address: a token bucket for each.

    The table of addresses is bounded; if it is full, the address that was idle longest is removed.

    Args:
        rate: Requests a second that one client may send; 0 sets no limit.
        clock: Function that returns the time in seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._burst = max(_LEAST_BURST, rate * _BURST_SECONDS)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Count a request, and return after how many seconds the client may send it.

        Args:
            address: IP address of the client. IPv6 addresses of one /64 network count as one
                client.

        Returns:
            0 if the request is allowed now; otherwise it must be refused, and the value is in
            seconds.
        """
        if self._rate <= 0:
            return 0.0
        key = _network(address)
        now = self._clock()
        tokens, before = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - before) * self._rate)
        let_in = tokens >= 1
        self._buckets[key] = (tokens - let_in, now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if let_in else (1 - tokens) / self._rate


def _network(address: str) -> str:
    """Return the client of an address: an IPv6 client has a network of 64 bits."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or int(parsed) >> 64) if parsed.version == 6 else address


@dataclass
class _Progress:
    """Progress of a request."""

    until: float  # time at which more of its body, or all, must have arrived
    read: int = 0  # bytes of its body
    paced: int = 0  # bytes that had arrived when `until` was set
    whole: bool = False  # True if the whole body has arrived
    begun: bool = False  # True if the response has begun
    refused: Refused | None = None  # reason why its body is not read further


class ReportCookie:
    """Cookie that gives a browser access to the files of the report, because links send no token.

    The cookie is not the token: cookies do not distinguish ports, so other servers of the same host
    see it as well. It gives access only to the report, only for reading, and only until this server
    ends.
    """

    def __init__(self) -> None:
        self._name = f"cxr-report-{secrets.token_hex(4)}"
        self._value = secrets.token_urlsafe()

    def header(self, origin: str) -> str:
        """Return the value of the header ``Set-Cookie`` for a page of an origin.

        Args:
            origin: Scheme and host of the page, such as ``https://cxr.example``.
        """
        cookie = f"{self._name}={self._value}; Path={REPORT_FILES}; Max-Age={_COOKIE_SECONDS}"
        secure = "; Secure" if origin.lower().startswith("https://") else ""
        return f"{cookie}; HttpOnly; SameSite=Strict{secure}"

    def is_in(self, cookies: Iterable[bytes]) -> bool:
        """Return True if the ``Cookie`` headers of a request contain the cookie.

        Args:
            cookies: Values of the ``Cookie`` headers of the request.
        """
        expected = f"{self._name}={self._value}".encode()
        pairs = [pair.strip() for line in cookies for pair in line.split(b";")]
        return any(hmac.compare_digest(pair, expected) for pair in pairs)


class Gate:
    """ASGI middleware that passes an HTTP request on, or refuses it with a reason.

    Refusals have the status 400, 401, 403, 405, 408, 413, 429 or 504. A body that grows too large
    or arrives too slowly is cut off, whatever the application does. If other machines can reach the
    server and it has no token, every request is refused.

    Args:
        app: ASGI application to which accepted requests are passed.
        settings: Settings of the server: token, host names, and limits of a request.
        cookie: Cookie that gives access to the report; None makes one.

    Attributes:
        bytes_in_memory: Number of bytes of all request bodies that are in memory.
    """

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, cookie: ReportCookie | None = None
    ) -> None:
        self._app = app
        self._cookie = cookie or ReportCookie()
        local_names = (settings.host, "localhost", "127.0.0.1", "::1")
        self._hosts = frozenset(
            map(_split_host, map(str.lower, (*local_names, *settings.allowed_hosts)))
        )
        token = settings.token
        if token is None and not is_loopback(settings.host):
            token = secrets.token_urlsafe()
        self._token = None if token is None else token.encode()
        self._most = settings.max_bytes
        self._seconds = settings.seconds
        self._limit = RateLimit(settings.rate)
        self.bytes_in_memory = 0
        self._most_held = max(_MOST_BYTES, settings.max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or answer it with a refusal.

        Args:
            scope: Facts about the request, by the ASGI specification.
            receive: ASGI function that returns the next message of the client.
            send: ASGI function that sends a message to the client.
        """
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._pass_http(scope, receive, send)
        else:  # nothing here speaks websocket
            await send({"type": "websocket.close", "code": 1008})

    async def _pass_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._require(scope)
        except Refused as refused:
            await _answer(refused, scope, receive, send)
            return
        now = asyncio.get_running_loop().time()
        progress = _Progress(now + _PACE_SECONDS)
        deadline = now + self._seconds

        async def limited() -> Message:
            return await self._receive(receive, progress, deadline)

        async def noting(message: Message) -> None:
            if progress.refused is not None and not progress.begun:
                return  # what the application says of a body that it could not read
            progress.begun = True
            await send(message)

        try:
            async with asyncio.timeout(2 * self._seconds) as limit:
                await self._app(scope, limited, noting)
        except Refused as refused:
            progress.refused = refused
        except TimeoutError:
            if not limit.expired():
                raise
            progress.refused = Refused(
                504, "too_slow", f"no answer within {self._seconds:g} seconds; try again"
            )
        finally:
            self.bytes_in_memory -= progress.read
        if progress.refused is not None and not progress.begun:
            await _answer(progress.refused, scope, receive, send)

    async def _receive(self, receive: Receive, progress: _Progress, deadline: float) -> Message:
        if progress.refused is not None:
            raise progress.refused
        if progress.whole:
            return await receive()
        try:
            async with asyncio.timeout_at(min(deadline, progress.until)):
                message = await receive()
        except TimeoutError:
            message = f"the file did not arrive within {self._seconds:g} seconds"
            if progress.until < deadline:
                message = f"too little of the file came within {_PACE_SECONDS:g} seconds"
            progress.refused = Refused(408, "slow_request", message)
            raise progress.refused from None
        if message["type"] == "http.request":
            came = len(message.get("body", b""))
            progress.read += came
            # Counted from received bytes, not from the length that the client states.
            self.bytes_in_memory += came
            progress.whole = not message.get("more_body", False)
            if progress.read - progress.paced >= _LEAST_BYTES:
                progress.paced = progress.read
                progress.until = asyncio.get_running_loop().time() + _PACE_SECONDS
            if progress.read > self._most:
                progress.refused = self._too_large()
            elif self.bytes_in_memory > max(self._most_held, progress.read):
                message = "as many images come as may; try again"
                progress.refused = Refused(429, "busy", message, {"Retry-After": "1"})
            if progress.refused is not None:
                raise progress.refused
        return message

    def _require(self, scope: Scope) -> None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # A proxy before us may take the other for the length, and hide a request behind it.
            message = "a request has either Content-Length or Transfer-Encoding"
            raise Refused(400, "two_lengths", message)
        host = self._require_host(headers.get(b"host", []))
        method = scope["method"]
        if method not in _METHODS:
            message = f"no {method if method.isalpha() else 'such method'} here"
            raise Refused(405, "method_not_allowed", message, {"Allow": ", ".join(_METHODS)})
        client = scope.get("client")
        wait = self._limit.wait(client[0] if client else "")
        if wait > 0:
            again = {"Retry-After": str(int(wait) + 1)}
            raise Refused(429, "rate", "too many requests; wait and try again", again)
        if method == "POST":
            _require_same_origin(headers, host)
        self._require_token(method, scope["path"], headers)
        for value in headers.get(b"content-length", []):
            if not value.isdigit() or int(value[:20]) > self._most:
                raise self._too_large()

    def _require_host(self, hosts: list[bytes]) -> str:
        host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        name, port = _split_host(host) if _is_host(host) else ("", "")
        if (name, "") not in self._hosts and (name, port) not in self._hosts:
            raise Refused(
                403,
                "host",
                "this server has another name; add this one to allowed_hosts in the file of "
                "--settings",
            )
        return host

    def _require_token(self, method: str, path: str, headers: Mapping[bytes, list[bytes]]) -> None:
        if self._token is None or path in _OPEN_PATHS or path.startswith(_PAGE_FILES):
            return
        is_report = path.startswith(REPORT_FILES) and method != "POST"
        if is_report and self._cookie.is_in(headers.get(b"cookie", [])):
            return
        sent = headers.get(b"authorization", [b""])
        scheme, _, token = sent[0].partition(b" ")
        is_ours = hmac.compare_digest(token.strip(), self._token)
        if len(sent) != 1 or scheme.lower() != b"bearer" or not is_ours:
            message = "send the token of this server: Authorization: Bearer TOKEN"
            if is_report:
                message = f"open the report from the page of this server, or {message}"
            raise Refused(401, "token", message, {"WWW-Authenticate": 'Bearer realm="cxr"'})

    def _too_large(self) -> Refused:
        limit = self._most / MEBIBYTE
        return Refused(
            413, "too_large", f"larger than the limit of {limit:,.4g} MiB (max_mib of --settings)"
        )


def _require_same_origin(headers: Mapping[bytes, list[bytes]], host: str) -> None:
    """Refuse what another page sends; programs name no origin."""
    message = "sent by a page of another origin; use the page of this server"
    refused = Refused(403, "origin", message)
    for origin in headers.get(b"origin", []):
        scheme, _, rest = origin.decode("latin-1").lower().partition("://")
        if scheme not in ("http", "https") or rest != host:
            raise refused
    for site in headers.get(b"sec-fetch-site", []):
        if site.lower() not in (b"same-origin", b"none"):
            raise refused


def _is_host(host: str) -> bool:
    """Return True for a name or an address, alone or with a port."""
    match = _HOST.fullmatch(host)
    return match is not None and int(match[1] or 0) <= _LARGEST_PORT


def _split_host(host: str) -> tuple[str, str]:
    """Name and port of a host, also of "[::1]:80" and "::1"; the port may be empty."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name, rest.removeprefix(":")
    if host.count(":") > 1:
        return host, ""
    name, _, port = host.partition(":")
    return name.removesuffix("."), port


async def _answer(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the refusal; a client that sends on is listened to for a while, or it would miss it."""
    body = json.dumps(refused.body(scope.get("cxr_request_id", ""))).encode()
    length = str(len(body))
    headers = {"Content-Type": "application/json", "Content-Length": length, "Connection": "close"}
    all_headers = (headers | refused.headers).items()
    raw = [(name.lower().encode(), value.encode()) for name, value in all_headers]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if refused.status != 408:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await _drain(receive)
    await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    left = _DRAIN_BYTES
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


class PatientProtocol(H11Protocol):
    """HTTP protocol of uvicorn that closes a connection whose headers arrive too slowly.

    Attributes:
        header_seconds: Longest time for the headers of a request, seconds.
    """

    header_seconds = 10.0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Start the timer that closes a connection whose headers arrive too slowly.

        Args:
            transport: Connection with the client.
        """
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Give received bytes to uvicorn's parser, and restart or stop the timer for the headers.

        The timer closes the connection if the headers of a request take longer than
        `header_seconds`. It stops when the headers are complete, and starts again when the response
        is complete.

        Args:
            data: Bytes that the connection received.
        """
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer for the headers, because the connection has ended.

        Args:
            exc: Error that ended the connection; None if it was closed.
        """
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self.header_seconds, self._give_up)

    def _unwatch(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self.transport.close()
