"""The gate and the limits: they let the right requests in, and answer the others by themselves."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.serving.run import Run
from cxr_compare.serving.web import limits, server
from cxr_compare.serving.web.gate import add_gate
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.server import ImpatientProtocol, build_app
from tests.serving.web.conftest import listening

TOKEN = "a-token-of-this-test"  # noqa: S105
MOST = 1 << 20
FORM = [("content-type", "multipart/form-data; boundary=x")]


async def size(request: Request) -> Response:
    """Answer with the number of bytes of the body."""
    return PlainTextResponse(str(len(await request.body())))


def gated(**settings: Any) -> Starlette:
    """An application behind the gate that answers every path."""
    app = Starlette(routes=[Route("/{path:path}", size, methods=["GET", "POST"])])
    add_gate(app, ServeSettings(**settings))
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
    response = ask(host=host, allowed_hosts=("xray.example",))
    assert response.status_code == status
    assert status == 200 or code(response) == "host"


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
        ([("authorization", f"Bearer {TOKEN}")], 200),
        ([("authorization", f"bearer {TOKEN}")], 200),
        ([], 401),
        ([("authorization", "Bearer ")], 401),
        ([("authorization", f"Bearer {TOKEN}x")], 401),
        ([("authorization", TOKEN)], 401),
        ([("authorization", f"Basic {TOKEN}")], 401),
        ([("authorization", "Bearer \xff\xe9")], 401),
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
        ("/", 200), ("/page/page.js", 200), ("/healthz", 200),
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


def test_every_response_keeps_a_browser_to_this_server() -> None:
    headers = ask().headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy.pop("img-src") == "'self' data: blob:"
    assert {policy.pop(f"{kind}-src") for kind in ("script", "style", "connect")} == {"'self'"}
    assert set(policy.values()) == {"'none'"}
    assert set(policy) == {"default-src", "frame-ancestors", "base-uri", "form-action"}
    assert headers["cache-control"] == "no-store"
    assert not any(name.startswith("access-control") for name in headers)


@pytest.mark.parametrize(
    ("site", "status"),
    [("same-origin", 415), ("none", 415), ("cross-site", 403), ("same-site", 403)],
)
def test_pages_of_other_sites_cannot_post(client: Any, site: str, status: int) -> None:
    answer = client.post("/v1/analyze", content=b"x", headers={"Sec-Fetch-Site": site})
    assert answer.status_code == status


@pytest.fixture(scope="module")
def small(served: list[Run], client_of: Any) -> Iterator[Any]:
    """A client of a server that takes one mebibyte."""
    settings = ServeSettings(allowed_hosts=("testserver",), max_bytes=MOST)
    with client_of(build_app(served, settings)) as client:
        yield client


def test_a_large_file_is_cut_off_while_it_arrives(small: Any) -> None:
    taken = 0

    async def body() -> Any:
        nonlocal taken
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(16):
            taken += MOST // 4
            yield bytes(MOST // 4)

    answer = small.post("/v1/analyze", content=body(), headers=dict(FORM))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert answer.headers["connection"] == "close"
    assert taken < 2 * MOST


def test_a_client_that_leaves_is_no_error_of_the_server(small, caplog, monkeypatch):
    async def leave(*_: object, **__: object) -> None:
        raise ClientDisconnect

    monkeypatch.setattr("cxr_compare.serving.web.app._read_form", leave)
    with caplog.at_level("INFO", "cxr.serve"), pytest.raises(Exception):  # noqa: B017, PT011
        small.post("/v1/analyze", content=b"--x", headers=dict(FORM))
    assert "/v1/analyze 499" in caplog.text
    assert "failed" not in caplog.text


@pytest.fixture
def impatient(served: list[Run], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that others can reach, which waits a moment only."""
    monkeypatch.setattr(limits, "PATIENCE", 0.3)
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    settings = ServeSettings(host="0.0.0.0", token=TOKEN)  # noqa: S104
    with listening(build_app(served, settings), http=ImpatientProtocol) as port:
        yield port


def test_headers_that_never_end_close_their_connection(impatient: int) -> None:
    assert talk(impatient, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n") == b""
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", impatient), timeout=20) as connection:
        for _ in range(2):  # a connection that is kept is closed by half a header, too
            connection.sendall(whole)
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 200")
        connection.sendall(whole[:30])
        assert connection.recv(1 << 16) == b""


def test_a_body_that_never_ends_is_answered(impatient: int) -> None:
    begin = (
        f"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: {FORM[0][1]}\r\nContent-Length: 900\r\n\r\n--x\r\n"
    )
    assert talk(impatient, begin.encode()).startswith(b"HTTP/1.1 408")


def test_only_an_address_of_this_machine_waits_for_ever() -> None:
    assert ServeSettings().patience is None
    assert ServeSettings(host="0.0.0.0", token=TOKEN).patience == limits.PATIENCE  # noqa: S104


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


def test_two_hosts_are_refused(port: int) -> None:
    got = talk(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 400")
