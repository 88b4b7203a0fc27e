"""`cxr serve`: the answers of `cxr predict`, and a reason for what gets none; nothing is kept."""

import asyncio
import base64
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest

import cxr_compare
from tests.adapters.commands import cxr
from tests.adapters.server import application, listening
from tests.dicom_files import file_content
from tests.small_dicom import image_file

TOKEN = "a-token-of-this-test"  # noqa: S105
MEBIBYTE = 1 << 20
CASES = json.loads((Path(__file__).parents[1] / "cases" / "requests.json").read_text())["cases"]


@pytest.fixture(scope="module")
def radiographs(world):
    """One radiograph as four files, by kind, and with 16 bits."""
    path = min((world.xrays / "stage_2_train_images").iterdir())
    pixels = pydicom.dcmread(path).pixel_array
    deep = pixels.astype(np.uint16) * 200 + 1000
    return {
        "dicom": path.read_bytes(),
        "png": image_file(pixels, "PNG"),
        "jpeg": image_file(pixels, "JPEG"),
        "tiff": image_file(pixels, "TIFF"),
        "deep": image_file(deep, "PNG"),
    }


@pytest.fixture(scope="module")
def systems(world):
    """A detector and a classifier."""
    return [cxr_compare.Run.open(world.run(kind), name=kind) for kind in ("detector", "classifier")]


@pytest.fixture(scope="module")
def server(systems):
    """The address of a server that takes one mebibyte."""
    with listening(systems, max_bytes=MEBIBYTE, allowed_hosts=("xray.example",)) as address:
        yield address


@pytest.fixture(scope="module")
def locked(systems):
    """The address of a server that asks for a token."""
    with listening(systems, token=TOKEN) as address:
        yield address


def post(address, content, name="a.png", path="/v1/analyze"):
    return httpx.post(f"{address}{path}", files={"file": (name, content)}, timeout=60)


def test_an_answer_is_that_of_predict(server, radiographs, world, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, content in radiographs.items():
        Path(kind).write_bytes(content)
    runs = [f"{name}={world.run(name)}" for name in ("detector", "classifier")]
    capsys.readouterr()
    assert cxr("predict", *runs, *radiographs, "--json") == 0
    predicted = json.loads(capsys.readouterr().out)
    assert len(predicted) == 2 * len(radiographs)
    for kind, content in radiographs.items():
        answers = post(server, content, kind).json()
        expected = [answer for answer in predicted if answer["image"] == kind]
        assert [{**answer, "overlay": None} for answer in answers] == expected
        is_drawn = kind == "dicom"  # its header says so, and the runs learned from drawings
        assert [answer["score"] is not None for answer in answers] == [is_drawn] * 2


def content_of(file, radiographs):
    """The bytes of a file as a case describes it."""
    if "of" in file:
        return radiographs[file["of"]][: file.get("keep")]
    if "base64" in file:
        return base64.b64decode(file["base64"])
    if "dicom" in file:
        return file_content(file["dicom"])
    return bytes(file["zeros"]) if "zeros" in file else file["text"].encode()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_request_gets_its_status_and_a_reason(case, server, locked, radiographs):
    address = locked if case.get("to") == "locked" else server
    sent = {"headers": case.get("headers", {}), "data": case.get("fields")}
    if "file" in case:
        sent["files"] = {"file": ("a", content_of(case["file"], radiographs))}
    elif "files" in case:
        sent["files"] = [(field, ("a", text)) for field, text in case["files"]]
    elif "body" in case:
        sent["content"] = case["body"]
    url = address + case.get("path", "/v1/analyze")
    response = httpx.request(case.get("method", "POST"), url, timeout=60, **sent)
    assert response.status_code == case["status"], response.text
    if case["status"] >= 400:
        assert [part for part in case["says"] if part not in response.text] == []
        assert "\n" not in response.text
        assert "/proc" not in response.text
        assert TOKEN not in response.text
    assert response.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "xray.example"])  # noqa: S104
def test_an_address_of_others_needs_a_token(host, world, capsys):
    assert cxr("serve", world.run("classifier"), "--host", host, "--port", 0) == 2
    assert "token" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_token_that_others_may_read_or_write_is_refused(mode, world, tmp_path, capsys):
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(mode)
    assert cxr("serve", world.run("classifier"), "--token", token, "--port", 0) == 2
    assert f"chmod 600 {token}" in capsys.readouterr().err


BEGIN = (
    "POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\n"
    "Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n"
)
PART = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def connect(address):
    port = int(address.rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(BEGIN.encode() + chunk(PART.encode()))
    return connection


def chunk(content):
    return b"%x\r\n%s\r\n" % (len(content), content)


def trickle(address, content, pause_s):
    """Send content again and again until the server answers or closes; its answer, bytes sent."""
    sent = 0
    with connect(address) as connection:
        connection.settimeout(pause_s)
        while True:
            try:
                connection.sendall(chunk(content))
                sent += len(content)
                return connection.recv(1 << 16), sent
            except TimeoutError:
                continue
            except ConnectionError:
                return b"", sent


@pytest.mark.release
def test_slow_uploads_end_and_others_get_through(systems, radiographs):
    """Bytes come, the image never: more than arrive at once, and a good one is answered."""
    with listening(systems, max_seconds=0.5) as address, ThreadPoolExecutor(20) as threads:
        slow = [threads.submit(trickle, address, b"x", 0.05) for _ in range(20)]
        assert post(address, radiographs["png"]).status_code == 200
        for one in slow:
            answer, sent = one.result(timeout=20)
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"connection: close" in answer.lower()
            assert sent < 10_000


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, 200),
        ({}, 200),
    ],
)
def test_a_page_of_another_site_is_refused_by_what_its_browser_says(
    server, radiographs, headers, status
):
    files = {"file": ("a.png", radiographs["png"])}
    response = httpx.post(f"{server}/v1/analyze", files=files, headers=headers, timeout=60)
    assert response.status_code == status


def test_an_upload_without_an_end_is_cut_off_at_the_limit(server):
    """No Content-Length says how large it will be."""
    answer, sent = trickle(server, bytes(MEBIBYTE // 4), 0.01)
    assert not answer or answer.startswith(b"HTTP/1.1 413")
    assert sent < 32 * MEBIBYTE  # what sockets hold, and never all that is sent


class Faulty:
    """A system that fails as a fault of ours does."""

    def __init__(self, run):
        self.run = run

    def __getattr__(self, name):
        return getattr(self.run, name)

    def answer(self, *_, **__):
        raise ValueError("patient Doe^Jane")


def test_a_fault_of_ours_is_logged_without_its_text(systems, radiographs, caplog):
    with listening([Faulty(systems[1])]) as address, caplog.at_level(logging.INFO):
        response = post(address, radiographs["png"])
    assert response.status_code == 500
    assert "ValueError" in caplog.text
    assert "Doe" not in caplog.text + response.text


class SlowUpload:
    """An upload whose first part has arrived, and whose rest arrives when it is told to go on."""

    def __init__(self, client, content):
        self.is_waited_for, self.go_on = asyncio.Event(), asyncio.Event()
        half = len(content) // 2
        self.parts = PART.encode() + content[:half], content[half:] + b"\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        posted = client.post("/v1/analyze", content=self.arriving(), headers=headers)
        self.response = asyncio.create_task(posted)

    async def arriving(self):
        yield self.parts[0]
        self.is_waited_for.set()  # the server has taken the first part, and asks for the next
        await self.go_on.wait()
        yield self.parts[1]


async def with_slow_uploads(systems, contents, do, **settings):
    """Do something while some uploads are under way, and return their responses."""
    transport = httpx.ASGITransport(application(systems, **settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        slow = [SlowUpload(client, content) for content in contents]
        for each in slow:
            await asyncio.wait_for(each.is_waited_for.wait(), 30)  # a server that takes few hangs
        await do(client)
        assert not any(each.response.done() for each in slow)
        for each in slow:
            each.go_on.set()
        return await asyncio.gather(*(each.response for each in slow))


def test_slow_uploads_keep_no_other_one_waiting(systems, radiographs):
    async def post_quickly(client):
        files = {"file": ("a.png", radiographs["png"])}
        assert (await client.post("/v1/analyze", files=files)).status_code == 200

    contents = [radiographs["png"]] * 40
    responses = asyncio.run(with_slow_uploads(systems, contents, post_quickly))
    assert [response.status_code for response in responses] == [200] * len(contents)


def padded(content, size):
    return content + bytes(size - len(content))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system lists no open files")
def test_a_large_upload_lies_in_a_file_without_a_name(systems, radiographs, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def stored():
        """Sizes of the open files of the folder."""
        links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        inside = [path for path in links if str(path.readlink()).startswith(str(tmp_path))]
        return [path.stat().st_size for path in inside]

    async def look(_client):
        assert stored() == [4 * MEBIBYTE]
        assert list(tmp_path.iterdir()) == []

    contents = [padded(radiographs["jpeg"], 8 * MEBIBYTE)]
    (response,) = asyncio.run(with_slow_uploads(systems, contents, look))
    assert response.status_code == 200
    assert stored() == []


def test_an_upload_that_cannot_be_stored_is_refused(systems, radiographs, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with listening(systems) as address:
        assert post(address, padded(radiographs["jpeg"], 4 * MEBIBYTE)).status_code == 507
        assert post(address, radiographs["jpeg"]).status_code == 200
    assert "cannot be stored" in caplog.text


def test_answers_at_once_belong_to_their_images(server, world):
    files = sorted((world.xrays / "stage_2_train_images").iterdir())[:4]
    alone = [post(server, file.read_bytes(), file.name).json() for file in files]
    assert len({answers[1]["score"] for answers in alone}) == len(files)
    with ThreadPoolExecutor() as threads:
        together = list(threads.map(lambda f: post(server, f.read_bytes(), f.name).json(), files))
    assert together == alone


PROGRAM = """
import signal, sys
from tests.adapters.commands import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
try:
    main()
finally:
    print("loaded", sorted({"torch", "lightning"} & set(sys.modules)))
"""


def test_a_server_from_its_start_to_ctrl_c(world, radiographs, tmp_path):
    """A folder of exports in a process of its own: no torch, and a log that names no file."""
    folder = tmp_path / "exports"
    folder.mkdir()
    for kind in ("detector", "classifier"):
        (folder / kind).symlink_to(world.export(kind))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", folder, "--port", "0", "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with ExitStack() as at_the_end:
        at_the_end.callback(process.kill)
        lines = iter(process.stderr.readline, "")
        page = next(line for line in lines if line.startswith("Page: "))
        address = page.split()[1].rstrip("/")
        answers = post(address, radiographs["dicom"], "Doe^Jane.dcm").json()
        assert [answer["system"] for answer in answers] == ["classifier", "detector"]
        assert answers[0]["image"] == "Doe^Jane.dcm"
        assert httpx.get(f"{address}/Doe^Jane?Doe^Jane").status_code == 404
        with connect(address):  # a request is under way
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            out, log = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == "loaded []\n"
    assert "POST /v1/analyze 200" in log
    assert "Doe" not in log
    assert "Traceback" not in log
    assert log.splitlines()[-1].startswith("cxr: ")  # the one line of Ctrl-C
