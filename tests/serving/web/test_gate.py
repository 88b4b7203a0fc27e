"""The gate: it lets the right requests in, and answers the others by itself."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.serving.web.gate import add_gate, with_security_headers
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.schemas import Refused
from tests.serving.web.conftest import listening

TOKEN = "a-token-of-this-test"  # noqa: S105
MOST = 1 << 20


async def size(request: Request) -> Response:
    """Answer with the number of bytes of the body."""
    return PlainTextResponse(str(len(await request.body())))


def refusal(refused: Refused, scope: Any = None) -> Response:
    return JSONResponse(refused.body(""), refused.status, headers=refused.headers or None)


async def on_refused(_: Request, error: Any) -> Response:
    return refusal(error)


def gated(**settings: Any) -> Starlette:
    """An application behind the gate that answers every path."""
    app = Starlette(routes=[Route("/{path:path}", size, methods=["GET", "POST"])])
    app.add_exception_handler(Refused, on_refused)
    add_gate(app, ServeSettings(max_bytes=MOST, **settings), refusal)
    return app


def ask(
    method: str = "GET",
    path: str = "/v1/models",
    *,
    headers: list[tuple[str, str]] | None = None,
    host: str = "localhost:8000",
    body: Any = None,
    **settings: Any,
) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(gated(**settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            sent_headers = [("host", host), *(headers or [])]
            raw = [(name.encode(), value.encode("latin-1")) for name, value in sent_headers]
            return await client.request(method, path, headers=raw, content=body)

    return asyncio.run(send())


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),  # names have no case, and any port of ours will do
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("xray.example", 200),
        ("evil.example", 400),  # DNS rebinding: its name, our address
        ("localhost.evil.example", 400),
        ("www.xray.example", 400),
        ("evil.example:127.0.0.1", 400),
        ("127.0.0.1:8000@evil.example", 400),
        ("[::1]x", 400),
        ("", 400),
    ],
)
def test_only_the_names_of_this_server_are_answered(host: str, status: int) -> None:
    assert ask(host=host, allowed_hosts=("xray.example",)).status_code == status


def test_an_ipv6_address_to_listen_on_is_a_name_of_the_server() -> None:
    app = gated(host="2001:db8::1", token=TOKEN)

    async def send(address: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return (await client.get(f"http://{address}:8000/")).status_code

    assert asyncio.run(send("[2001:db8::1]")) == 200
    assert asyncio.run(send("[2001:db8::2]")) == 400


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
    assert ask("POST", headers=headers, body=b"x").status_code == status
    assert ask("GET", headers=headers).status_code == 200  # a browser keeps the answer from them


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
        ([("cookie", TOKEN)], 401),
    ],
)
def test_token_is_required_where_one_is_set(headers: list[tuple[str, str]], status: int) -> None:
    response = ask(headers=headers, token=TOKEN)
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN not in response.text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "xray.example"])  # noqa: S104
def test_a_server_that_others_can_reach_needs_a_token(host: str) -> None:
    with pytest.raises(InputError, match="token is required"):
        ServeSettings(host=host)
    assert ServeSettings(host=host, token=TOKEN).token == TOKEN


@pytest.mark.parametrize("name", ["*", "xray.example:8443", "https://xray.example", ""])
def test_a_host_to_allow_is_one_name_without_a_port(name: str) -> None:
    with pytest.raises(InputError, match="--allowed-host"):
        ServeSettings(allowed_hosts=(name,))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200), ("/page/page.js", 200), ("/healthz", 200), ("/readyz", 200),
        ("/v1/models", 401), ("/examples", 401), ("/report/report.html", 401),
        ("/openapi.json", 401), ("/pagex", 401), ("/page", 401),
    ],
)  # fmt: skip
def test_the_page_that_asks_for_the_token_needs_none(path: str, status: int) -> None:
    assert ask(path=path, token=TOKEN).status_code == status


def test_a_token_is_asked_for_before_a_body_is_read() -> None:
    async def untouched() -> Any:
        pytest.fail("the body was read")
        yield b""

    assert ask("POST", body=untouched(), token=TOKEN).status_code == 401


@pytest.mark.parametrize("length", [str(2 * MOST), "9" * 5000, "-1", "1e3"])
def test_large_file_is_refused_by_its_content_length(length: str) -> None:
    response = ask("POST", headers=[("content-length", length)], body=iter_of(b"x"))
    assert (response.status_code, code(response)) == (413, "too_large")


def test_large_file_without_a_length_is_cut_off_while_it_arrives() -> None:
    too_large = ask("POST", body=iter_of(*[bytes(MOST // 4)] * 5))
    assert (too_large.status_code, code(too_large)) == (413, "too_large")
    fits = ask("POST", body=iter_of(*[bytes(MOST // 4)] * 4))
    assert (fits.status_code, fits.text) == (200, str(MOST))


async def iter_of(*parts: bytes) -> Any:
    for part in parts:
        yield part


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
    """A gate before a server on a real socket."""
    with listening(gated(), lifespan="off") as port:
        yield port


def talk(port: int, content: bytes) -> bytes:
    """Send bytes, then read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(content)
        received = b""
        while part := connection.recv(1 << 16):
            received += part
        return received


@pytest.mark.parametrize("length", [5, 0, 60])
def test_a_request_of_two_lengths_hides_no_other_behind_it(port: int, length: int) -> None:
    begin = b"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    hidden = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    got = talk(port, begin + b"Content-Length: %d\r\n\r\n0\r\n\r\n" % length + hidden)
    assert got.startswith(b"HTTP/1.1 400")
    assert got.count(b"HTTP/1.1") == 1


def test_two_hosts_are_refused(port: int) -> None:
    got = talk(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400")
