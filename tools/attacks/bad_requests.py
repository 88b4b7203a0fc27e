"""Bad requests to a running `cxr serve`: none may be a status 500, and memory may not grow.

``tests/serving/web/test_bad_requests.py`` runs the attack. Against a server of your own, whose
process has the number PID:

    python -m tools.attacks.bad_requests http://127.0.0.1:8000 PID 2000
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from tests.small_dicom import as_file, chest, dicom_image, image_file

_AT_ONCE = 8
_WARM = 400  # requests after which memory is measured first
_LEFT = "left"  # outcome of a client that does not wait for the answer
_CLOSED = "closed"  # outcome of a connection that the server closed without an answer
_Request = Callable[[], bytes]


def attack(address: str, process: int, count: int, seed: int = 0) -> dict[str, object]:
    """Send bad requests to a server, and measure its memory meanwhile.

    `process` is the number of the server's process; `count` is at least 400. The result has the
    number of answers by status, and the resident memory of the server in MiB at the start, after
    400 requests, and the highest later.
    """
    url = urlsplit(address)
    target = (str(url.hostname), url.port or 80)
    outcomes: Counter[str] = Counter()
    memory = {"start": _resident(process)}
    highest = 0
    with ThreadPoolExecutor(_AT_ONCE) as clients:
        sent = clients.map(lambda request: _send(target, *request), _requests(count, seed))
        for number, outcome in enumerate(sent, start=1):
            outcomes[outcome] += 1
            if number == _WARM:
                memory["after 400"] = _resident(process)
            elif number > _WARM and number % 20 == 0:
                highest = max(highest, _resident(process))
    memory["highest later"] = max(highest, _resident(process))
    return {"answers": dict(sorted(outcomes.items())), "memory_mib": memory}


def _resident(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) >> 10
    raise ProcessLookupError(process)


def _requests(count: int, seed: int) -> Iterator[tuple[bytes, bool]]:
    """Yield the bytes of each request, and whether the client waits for the answer."""
    rng = np.random.default_rng(seed)
    makers = [*_heads(), *_uploads(rng)]
    for number in range(count):
        content = makers[number % len(makers)]()
        leaves = number % 11 == 10
        if leaves:  # in the middle of what it sends
            content = content[: int(rng.integers(1, len(content)))]
        yield content, not leaves


def _heads() -> list[_Request]:
    """Return requests that are wrong before their body."""
    begin = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    lines = [
        b"\x16\x03\x01\x02\x00\x01\x00" + bytes(40) + b"\r\n\r\n",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        begin.replace(b"localhost", b"evil.example"),
        b"GET / HTTP/1.1\r\n\r\n",
        begin + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        begin + b"Content-Length: -1\r\n\r\n",
        begin + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        begin + b"Transfer-Encoding: nothing\r\n\r\n",
        begin + b"Authorization: Bearer \xff\xfe\r\n\r\n",
        begin.replace(b"GET /", b"GET /page/..%2f..%2fapp.py"),
        begin.replace(b"GET /", b"GET /examples/%00%c0%ae"),
        begin.replace(b"GET /", b"BREW /v1/analyze"),
        begin.replace(b"GET /", b"DELETE /v1/models"),
        begin.replace(b"GET /", b"POST /v1/analyze?include=" + b"x," * 1000),
    ]
    return [
        lambda line=line: line if line.endswith(b"\r\n\r\n") else line + b"\r\n" for line in lines
    ]


def _uploads(rng: np.random.Generator) -> list[_Request]:
    """Return requests with a wrong or damaged file, or a wrong form."""
    pixels = chest(0)
    files = {
        "png": image_file(pixels, "PNG"),
        "deep": image_file(pixels.astype(np.uint16) * 200, "PNG"),
        "jpeg": image_file(pixels, "JPEG"),
        "tiff": image_file(pixels, "TIFF", compression="tiff_lzw"),
        "dicom": as_file(dicom_image(pixels)),
    }
    bombs = {
        "pixels": _png(60_000, 60_000, b""),
        "rows": _png(4000, 4000, bytes(4000)),
        "text": image_file(pixels, "PNG")[:33]
        + _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27))),
        "profile": image_file(pixels, "PNG")[:33]
        + _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 26))),
        "large": image_file(Image.new("L", (5000, 5000), 90), "PNG"),
    }
    others = [
        b"",
        b"<svg xmlns='x'/>",
        b"PK\x03\x04" + bytes(99),
        b"%PDF-1.7",
        b"\x80\x04K\x01.",
        bytes(5000),
    ]

    def damaged(content: bytes) -> bytes:
        changed = bytearray(content)
        for place in rng.integers(0, len(changed), rng.integers(1, 40)):
            changed[place] = rng.integers(256)
        return bytes(changed[: int(rng.integers(len(changed) // 2, len(changed) + 1))])

    made: list[_Request] = []
    for path in ("/v1/analyze?include=overlay,maps,csv", "/v1/pixels"):
        made += [lambda p=path, c=content: _post(p, damaged(c)) for content in files.values()]
        made += [lambda p=path, c=content: _post(p, c) for content in (*bombs.values(), *others)]
        made += [
            lambda p=path: _post(p, b"x", name="image"),
            lambda p=path: _post(p, b"x", boundary="y"),
            lambda p=path: _post(p, files["png"], end=b"\r\n--x"),
            lambda p=path: _post(p, files["png"]).replace(
                b"multipart/form-data", b"application/json"
            ),
        ]
    return made


def _chunk(kind: bytes, content: bytes) -> bytes:
    length = struct.pack(">I", len(content))
    return length + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, rows: bytes) -> bytes:
    """Return a PNG file that states a size, and has other rows."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = _chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + data + _chunk(b"IEND", b"")


def _post(
    path: str,
    content: bytes,
    *,
    name: str = "file",
    boundary: str = "x",
    end: bytes = b"\r\n--x--\r\n",
) -> bytes:
    """Return the bytes of a request that uploads a file."""
    body = (
        f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'.encode()
        + content
        + end
    )
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _send(target: tuple[str, int], content: bytes, waits: bool) -> str:
    """Send a request, and return the status of its answer as text."""
    with socket.create_connection(target, timeout=120) as connection:
        try:
            connection.sendall(content)
            if not waits:
                return _LEFT
            answer = b""
            while part := connection.recv(1 << 16):
                answer += part[: 200 - len(answer)]
        except (ConnectionResetError, BrokenPipeError):
            return _CLOSED
    return answer[9:12].decode() or _CLOSED


if __name__ == "__main__":
    found = attack(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
