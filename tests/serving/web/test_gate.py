"""The gate: each rule of it lets the right requests in, and answers the others by itself."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")

import uvicorn

from cxr_compare.serving.web import gate as gates
from cxr_compare.serving.web.gate import (
    Gate,
    PatientProtocol,
    RateLimit,
    ReportCookie,
    with_security_headers,
)
from cxr_compare.serving.web.limits import ServeSettings

TOKEN = "a-token-of-this-test"  # noqa: S105
LIMITS: dict[str, Any] = {
    "allowed_hosts": ("xray.example:8443",),
    "max_bytes": 1 << 20,
    "seconds": 5.0,
}


@pytest.fixture(autouse=True)
def _short_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients here stop to send without saying so."""
    monkeypatch.setattr(gates, "_DRAIN_SECONDS", 0.5)


class Echo:
    """Answers with the size of the body; notes whether it was asked at all."""

    def __init__(self, *, swallow: bool = False, pause: float = 0.0) -> None:
        self.asked, self.swallow, self.pause = 0, swallow, pause

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        size, more, status = 0, True, 200
        try:
            while more:
                message = await receive()
                size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        except Exception:
            if not self.swallow:
                raise
            status = 400  # as a framework does that turns any error of the body into its own
        await asyncio.sleep(self.pause)
        body = str(size).encode()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})


class Reply:
    """What a request got."""

    def __init__(self, sent: list[dict[str, Any]]) -> None:
        self.status = sent[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in sent[1:])
        self.complete = not sent[-1].get("more_body", False)

    @property
    def code(self) -> str:
        return json.loads(self.body)["error"]["code"]


def ask(
    app: Any,
    method: str = "GET",
    path: str = "/v1/models",
    *,
    headers: list[tuple[str, str]] | None = None,
    host: str | None = "localhost:8000",
    body: list[bytes] | None = None,
    delay: float = 0.0,
    client: str = "192.0.2.1",
    settings_host: str = "127.0.0.1",
    **limits: Any,
) -> Reply:
    """Send one request through a gate, its body in parts."""
    gate = (
        Gate(app, ServeSettings(host=settings_host, **{**LIMITS, **limits}))
        if not isinstance(app, Gate)
        else app
    )
    sent_headers = [*([("host", host)] if host is not None else []), *(headers or [])]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent_headers],
        "client": (client, 4711),
    }
    parts = list(body or [b""])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.sleep(60)
        await asyncio.sleep(delay)
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    return Reply(sent)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),  # names have no case, and any port of ours will do
        ("localhost.:80", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("xray.example:8443", 200),
        ("xray.example:80", 403),  # named with its port
        ("evil.example", 403),  # DNS rebinding: its name, our address
        ("localhost.evil.example", 403),
        ("evil.example:127.0.0.1", 403),
        ("127.0.0.1:8000@evil.example", 403),
        ("localhost:8000x", 403),
        ("localhost:65536", 403),
        ("[::1]x", 403),
        ("[::1]:8000:9", 403),
        ("localhost/:80", 403),
        ("local host", 403),
        ("localhost:", 200),
        ("", 403),
        (None, 403),
    ],
)
def test_only_the_names_of_this_server_are_answered(host: str | None, status: int) -> None:
    app = Echo()
    reply = ask(app, host=host)
    assert (reply.status, app.asked) == (status, int(status == 200))


def test_two_hosts_are_none() -> None:
    assert ask(Echo(), headers=[("host", "localhost")]).code == "host"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),  # a program
        ([("origin", "http://localhost:8000")], 200),
        ([("origin", "https://localhost:8000")], 200),  # behind a proxy that ends TLS
        ([("origin", "http://localhost:9000")], 403),  # another server of the same machine
        ([("origin", "http://evil.example")], 403),
        ([("origin", "null")], 403),  # a sandboxed frame, or a file
        ([("origin", "http://localhost:8000.evil.example")], 403),
        ([("origin", "http://localhost:8000"), ("origin", "http://evil.example")], 403),
        ([("sec-fetch-site", "same-origin")], 200),
        ([("sec-fetch-site", "cross-site")], 403),
        ([("sec-fetch-site", "same-site")], 403),
    ],
)
def test_other_pages_cannot_post(headers: list[tuple[str, str]], status: int) -> None:
    assert ask(Echo(), "POST", headers=headers, body=[b"x"]).status == status
    assert ask(Echo(), "GET", headers=headers).status == 200  # a browser keeps the answer from them


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PUT", "DELETE", "CONNECT", "X-\x7f"])
def test_methods_that_nothing_here_has_are_refused(method: str) -> None:
    reply = ask(Echo(), method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("authorization", f"Bearer {TOKEN}")], 200),
        ([("authorization", f"bearer {TOKEN}")], 200),
        ([], 401),
        ([("authorization", "Bearer ")], 401),
        ([("authorization", f"Bearer {TOKEN}x")], 401),
        ([("authorization", TOKEN)], 401),
        ([("authorization", f"Basic {TOKEN}")], 401),
        ([("authorization", "Bearer \xff\xe9")], 401),
        ([("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer x")], 401),
    ],
)
def test_token_is_required_where_one_is_set(headers: list[tuple[str, str]], status: int) -> None:
    app = Echo()
    reply = ask(app, headers=headers, token=TOKEN)
    assert (reply.status, app.asked) == (status, int(status == 200))
    if status == 401:
        assert reply.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN.encode() not in reply.body


@pytest.mark.parametrize(
    ("method", "path", "cookie", "status"),
    [
        ("GET", "/report/report.html", "{}", 200),
        ("GET", "/report/figures/roc.svg", "other=1; {}", 200),
        ("GET", "/report/report.html", "{}x", 401),
        ("GET", "/report/report.html", "cxr-report-0=", 401),
        ("POST", "/report/open", "{}", 401),  # it may be read, and nothing else
        ("GET", "/v1/models", "{}", 401),
        ("GET", "/reports", "{}", 401),
        ("GET", "/metrics", "{}", 401),
    ],
)
def test_a_cookie_opens_the_report_and_nothing_else(method, path, cookie, status):
    report_cookie = ReportCookie()
    value, _, attributes = report_cookie.header("http://localhost:8000").partition(";")
    assert attributes == " Path=/report/; Max-Age=43200; HttpOnly; SameSite=Strict"
    assert report_cookie.header("https://xray.example").endswith("; Secure")
    gate = Gate(Echo(), ServeSettings(**LIMITS, token=TOKEN), report_cookie)
    assert ask(gate, method, path, headers=[("cookie", cookie.format(value))]).status == status


@pytest.mark.parametrize(("host", "status"), [("0.0.0.0", 401), ("127.0.0.1", 200)])  # noqa: S104
def test_without_a_token_nobody_gets_in_from_elsewhere(host: str, status: int) -> None:
    assert ask(Echo(), settings_host=host).status == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200), ("/page/page.js", 200), ("/healthz", 200), ("/readyz", 200),
        ("/metrics", 401), ("/v1/models", 401), ("/examples", 401), ("/report/report.html", 401),
        ("/openapi.json", 401), ("/pagex", 401), ("//", 401),
    ],
)  # fmt: skip
def test_the_page_that_asks_for_the_token_needs_none(path: str, status: int) -> None:
    assert ask(Echo(), path=path, token=TOKEN).status == status


def test_a_client_that_asks_too_often_waits_and_others_do_not() -> None:
    gate = Gate(Echo(), ServeSettings(**LIMITS, rate=0.5))
    replies = [ask(gate, client="192.0.2.1") for _ in range(30)]
    assert [reply.status for reply in replies].count(200) in (20, 21)
    assert replies[-1].code == "rate"
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 3
    assert ask(gate, client="192.0.2.2").status == 200


def test_a_rate_is_reached_again_after_the_wait_and_never_exceeded() -> None:
    now = 0.0
    limit = RateLimit(2.0, clock=lambda: now)
    let_in = 0
    for _ in range(10_000):
        let_in += limit.wait("192.0.2.1") == 0.0
        now += 0.01
    assert let_in == pytest.approx(20 + 2 * 100, abs=1)
    while not (wait := limit.wait("192.0.2.1")):
        pass
    now += wait + 1e-6
    assert limit.wait("192.0.2.1") == 0.0


def test_rate_limit_remembers_4096_clients_and_forgets_the_idlest() -> None:
    limit = RateLimit(0.001, clock=lambda: 0.0)
    while not limit.wait("192.0.2.1"):
        pass
    for number in range(4095):
        limit.wait(f"2001:db8:{number:x}::1")
    assert limit.wait("192.0.2.1") > 0
    for number in range(4096):
        limit.wait(f"2001:db8:{number:x}::1")
    assert limit.wait("192.0.2.1") == 0.0


def test_rate_limit_counts_a_network_of_ipv6_as_one_client() -> None:
    limit = RateLimit(0.001, clock=lambda: 0.0)
    waits = [limit.wait(f"2001:db8::{number:x}") for number in range(30)]
    assert waits[19] == 0.0
    assert waits[20] > 0


def test_large_file_is_refused_by_its_content_length_and_while_received() -> None:
    app = Echo()
    response = ask(app, "POST", headers=[("content-length", str(2 << 20))], body=[b"x"])
    assert (response.status, response.code, app.asked) == (413, "too_large", 0)
    assert ask(app, "POST", headers=[("content-length", "9" * 5000)], body=[b"x"]).status == 413
    assert ask(app, "POST", headers=[("content-length", "-1")], body=[b"x"]).status == 413
    unsaid = ask(Echo(), "POST", body=[bytes(1 << 18)] * 5)
    assert (unsaid.status, unsaid.code) == (413, "too_large")
    fits = ask(Echo(), "POST", body=[bytes(1 << 18)] * 4)
    assert (fits.status, fits.body) == (200, b"1048576")


def test_a_framework_that_swallows_the_cut_does_not_hide_it() -> None:
    reply = ask(Echo(swallow=True), "POST", body=[bytes(1 << 18)] * 5)
    assert (reply.status, reply.code, reply.complete) == (413, "too_large", True)


def test_a_body_of_which_next_to_nothing_comes_is_ended_soon(monkeypatch) -> None:
    monkeypatch.setattr(gates, "_PACE_SECONDS", 0.1)
    slow = ask(Echo(), "POST", body=[b"x"] * 10_000, delay=0.01)
    assert (slow.status, slow.code) == (408, "slow_request")
    steady = ask(Echo(), "POST", body=[bytes(16 << 10)] * 20, delay=0.02, seconds=30.0)
    assert (steady.status, steady.body) == (200, str(20 * (16 << 10)).encode())


def test_what_has_come_of_all_bodies_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(gates, "_MOST_BYTES", 3 << 20)
    gate = Gate(Echo(), ServeSettings(max_bytes=2 << 20))
    gate.bytes_in_memory = (3 << 20) - 1  # of other requests
    assert ask(gate, "POST", body=[b"x"]).status == 200
    busy = ask(gate, "POST", body=[b"xy"])
    assert (busy.status, busy.code, gate.bytes_in_memory) == (429, "busy", (3 << 20) - 1)


def test_a_slow_body_and_a_slow_answer_are_ended() -> None:
    slow = ask(Echo(), "POST", body=[b"x"] * 100, delay=0.05, seconds=0.3)
    assert (slow.status, slow.code) == (408, "slow_request")
    late = ask(Echo(pause=60), "POST", body=[b"x"], seconds=0.2)
    assert (late.status, late.code) == (504, "too_slow")


def test_nothing_speaks_websocket() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    app = Echo()
    gate = Gate(app, ServeSettings())
    asyncio.run(gate({"type": "websocket"}, None, send))  # type: ignore[arg-type]
    assert sent[0]["type"] == "websocket.close"
    assert app.asked == 0


def test_every_response_keeps_a_browser_to_this_server() -> None:
    headers = dict(with_security_headers([(b"X-Frame-Options", b"ALLOWALL"), (b"age", b"1")]))
    policy = dict(
        part.split(" ", 1) for part in headers[b"content-security-policy"].decode().split("; ")
    )
    assert policy.pop("img-src") == "'self' data: blob:"
    assert {policy.pop(f"{kind}-src") for kind in ("script", "style", "connect")} == {"'self'"}
    assert set(policy.values()) == {"'none'"}
    assert set(policy) == {"default-src", "frame-ancestors", "base-uri", "form-action"}
    assert headers[b"x-frame-options"] == b"DENY"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"age"] == b"1"
    assert b"X-Frame-Options" not in headers
    assert not any(name.startswith(b"access-control") for name in headers)
    app_headers = [
        (b"Cache-Control", b"max-age=60"),
        (b"Content-Security-Policy", b"default-src 'self'"),
    ]
    secured = with_security_headers(app_headers)
    assert [value for name, value in secured if name.lower() == b"cache-control"] == [b"max-age=60"]
    assert [value for name, value in secured if name.lower() == b"content-security-policy"] == [
        app_headers[1][1]
    ]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A gate before a server on a real socket, which waits 0.5 s for headers."""

    class Hasty(PatientProtocol):
        header_seconds = 0.5

    limits = {**LIMITS, "max_bytes": 1 << 16, "seconds": 1.0}
    config = uvicorn.Config(
        Gate(Echo(), ServeSettings(**limits)),
        port=0,
        http=Hasty,
        lifespan="off",
        log_level="critical",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def talk(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send parts, then read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except (BrokenPipeError, ConnectionResetError):
            return b"cut"
        received = b""
        while part := connection.recv(1 << 16):
            received += part
        return received


REQUEST = b"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (),  # says nothing
        (b"GET /v1/mod",),  # stops in the middle
        tuple(b"X-%d: y\r\n" % number for number in range(30)),  # drips
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GE"),  # a second request that stops
    ],
    ids=["silent", "stopped", "dripping", "second"],
)
def test_connections_that_never_finish_their_headers_are_closed(port, parts):
    got = talk(port, *parts, pause=0.1 if len(parts) > 2 else 0.0)  # or it raises a time-out
    assert got == b"cut" or got.count(b"HTTP/1.1") == len(parts) // 2 % 2


def test_a_request_that_comes_in_time_is_answered_on_a_socket(port: int) -> None:
    got = talk(port, REQUEST + b"Content-Length: 4\r\n\r\n", b"1234", pause=0.1)
    assert got.startswith(b"HTTP/1.1 200")
    assert got.partition(b"\r\n\r\n")[2] == b"1\r\n4\r\n0\r\n\r\n"


def test_a_slow_body_gets_its_answer_on_a_socket(port: int) -> None:
    got = talk(port, REQUEST + b"Content-Length: 400\r\n\r\n", b"1234")
    assert got.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("length", [5, 0, 60])
def test_a_request_of_two_lengths_hides_no_other_behind_it(port: int, length: int) -> None:
    begin = b"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    hidden = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    got = talk(port, begin + b"Content-Length: %d\r\n\r\n0\r\n\r\n" % length + hidden)
    assert got.startswith(b"HTTP/1.1 400")
    assert got.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("size", [b"Content-Length: 9000000", b"Transfer-Encoding: chunked"])
def test_a_client_that_sends_too_much_still_reads_why(port: int, size: bytes) -> None:
    parts = [bytes(9000)] * 1000
    if b"chunked" in size:
        parts = [*(b"%x\r\n%s\r\n" % (len(part), part) for part in parts), b"0\r\n\r\n"]
    got = talk(port, REQUEST + size + b"\r\n\r\n", *parts)
    assert got.startswith(b"HTTP/1.1 413")
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_large"
