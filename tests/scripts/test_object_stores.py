"""The commands on an S3 server (moto, a process on loopback), and a line that cuts, slows, garbles.

Whatever goes wrong between here and the store: what comes out equals what a local run gives, byte
for byte but for times and places, or one line says what is wrong.
"""

import asyncio
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.pixel_store_writer import PixelStoreWriter
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.work import object_store
from cxr_compare.data_prep.work.image_files import open_image
from cxr_compare.data_prep.work.local_copies import local_folder
from cxr_compare.data_prep.work.object_store import (
    StoreError,
    abort_uploads,
    fetch,
    list_files,
    send,
)
from cxr_compare.data_prep.work.shard_cache import fetch_shard
from cxr_compare.data_prep.work.store_addresses import local_path
from cxr_compare.serving import predict_folder
from tests.scripts.launched import ended, environment, free_port, hooked_path, settled, start
from tests.scripts.small_sets import cxr, write_source
from tests.scripts.test_ray_clusters import SMALL_PARTS, cluster_of
from tests.scripts.untrained import untrained_run

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto")

# A client leaves the sockets of a line that was cut to the garbage collector.
pytestmark = [
    pytest.mark.release,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
CONTENT = bytes(range(256)) * 1200  # several reads of the network


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an S3 server that has a bucket `bkt`."""
    port = free_port()
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "moto ended"
                time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()
        log.close()
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            gc.collect()


class FaultyLine(threading.Thread):
    """A line to a server on loopback, one request a connection, that fails as it is told.

    Attributes:
        fault: cut, short, garbled, slow, busy or none.
        of: Requests whose first line holds this fail.
        times: How many of them are left to fail.
        at: The byte of the answer's body from which on it fails.
    """

    def __init__(self, server: int) -> None:
        super().__init__(daemon=True)
        self.server, self.fault, self.of, self.times, self.at = server, "none", "", 0, 0
        self.requests: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()

    def run(self) -> None:
        self.loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self.ended = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.ended.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.ended.set)
        self.join()
        self.loop.close()

    def fail(self, fault: str, key: str, times: int, at: int = 0) -> None:
        self.fault, self.of, self.times, self.at = fault, key, times, at

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first = head.split(b"\r\n")[0].decode()
        self.requests.append(first)
        fault = self.fault if self.times and self.of in first else "none"
        self.times -= fault != "none"
        if fault == "busy":
            body = b"<Error><Code>SlowDown</Code><Message>Reduce the rate</Message></Error>"
            start = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(body)}\r\n".encode()
            writer.write(start + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
            return
        there, to = await asyncio.open_connection("127.0.0.1", self.server)
        lines = head[:-4].split(b"\r\n")
        if any(line.lower().startswith(b"expect:") for line in lines):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        headers = [
            header
            for header in lines
            if not header.lower().startswith((b"expect:", b"connection:"))
        ]
        to.write(b"\r\n".join([*headers, b"Connection: close", b"", b""]))
        pump = asyncio.ensure_future(self._pump(reader, to))
        answer = await there.readuntil(b"\r\n\r\n")
        if fault == "slow":
            await asyncio.sleep(3)
        body = await there.read(-1)
        if fault == "garbled":
            body = body[: self.at] + bytes([body[self.at] ^ 0x20]) + body[self.at + 1 :]
        if fault in ("cut", "short"):
            body = body[: self.at]
        if fault == "short":
            lines = [header for header in answer.split(b"\r\n") if b"ontent-" not in header]
            answer = b"\r\n".join([lines[0], b"Content-Length: %d" % self.at, *lines[1:]])
        writer.write(answer + body)
        await writer.drain()
        pump.cancel()
        to.close()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while block := await reader.read(1 << 16):
            to.write(block)
            await to.drain()


@pytest.fixture
def line(server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyLine]:
    """A line to the server, to which all that is called `s3://` goes; patience is short."""
    faulty = FaultyLine(server)
    faulty.start()
    faulty.ready.wait()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "a-secret-key",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{faulty.port}",
        "AWS_CONFIG_FILE": f"{tmp_path}/none", "AWS_SHARED_CREDENTIALS_FILE": f"{tmp_path}/none",
        "CXR_CACHE": f"{tmp_path}/cache",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_store, "FIRST_PAUSE_S", 0.01)
    config = {**object_store.S3_OPTIONS["config_kwargs"], "read_timeout": 1}
    config["retries"] = {"mode": "standard", "max_attempts": 1}
    monkeypatch.setitem(object_store.S3_OPTIONS, "config_kwargs", config)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem()
    if store.exists("bkt"):
        store.rm("bkt", recursive=True)
    store.mkdir("bkt")
    yield faulty
    s3fs.S3FileSystem.clear_instance_cache()
    faulty.end()


@pytest.mark.parametrize(
    ("fault", "key", "at"),
    [
        ("cut", "GET /bkt/a.png", 100_000), ("short", "GET /bkt/a.png", 100_000),
        ("garbled", "GET /bkt/a.png", 200_001), ("busy", "GET /bkt/a.png", 0),
        pytest.param("cut", "GET /bkt/a.png", 0, marks=pytest.mark.long),
        pytest.param("slow", "GET /bkt/a.png", 0, marks=pytest.mark.long),
        pytest.param("busy", "HEAD", 0, marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_an_image_arrives_as_it_is_whatever_the_line_does(line, fault, key, at):
    s3fs.S3FileSystem().pipe_file("bkt/a.png", CONTENT)
    path = local_path("s3://bkt/a.png")
    line.fail(fault, key, times=1, at=at)
    with open_image(path) as copy:
        assert copy.read_bytes() == CONTENT
    assert line.times == 0


def test_a_garbled_shard_is_fetched_again(line):
    store = s3fs.S3FileSystem()
    store.pipe_file("bkt/d/pixels/x/shard-00000.npy", CONTENT)
    path = local_folder("s3://bkt/d") / "pixels" / "x" / "shard-00000.npy"
    assert not path.exists()
    line.fail("garbled", "GET /bkt/d", times=2, at=5)
    assert fetch_shard(path, None).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "key"),
    [
        ("busy", "PUT /bkt/out"),
        pytest.param("slow", "PUT /bkt/out", marks=pytest.mark.long),
        pytest.param("busy", "HEAD /bkt/out", marks=pytest.mark.long),
    ],
)
def test_a_file_is_sent_whole_whatever_the_line_does(line, tmp_path, fault, key):
    (tmp_path / "a.parquet").write_bytes(CONTENT)
    line.fail(fault, key, times=1)
    send(tmp_path / "a.parquet", "s3://bkt/out/a.parquet")
    assert line.times == 0
    assert s3fs.S3FileSystem().cat_file("bkt/out/a.parquet") == CONTENT


@pytest.mark.parametrize(
    "fault",
    [
        "short",
        *(pytest.param(f, marks=pytest.mark.long) for f in ("cut", "slow", "busy", "garbled")),
    ],
)
def test_lasting_network_fault_is_reported_in_one_line(line, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(object_store, "LONGEST_RETRY_S", 0.3)
    s3fs.S3FileSystem().pipe_file("bkt/a.png", CONTENT)
    line.fail(fault, "GET /bkt/a.png", times=10_000, at=7)
    with pytest.raises(StoreError, match=r"^s3://bkt/a\.png: .* \(tried for \d+ s\)"):
        fetch("s3://bkt/a.png", tmp_path / "a.png")
    assert list(tmp_path.glob("*.png")) == list(tmp_path.glob(".*.tmp")) == []


def test_uploads_that_a_killed_program_left_are_removed_and_those_of_others_are_not(line):
    store = s3fs.S3FileSystem()
    for key in ("out/data/big", "out/data-2/big"):
        store.call_s3("create_multipart_upload", Bucket="bkt", Key=key)
    assert abort_uploads("s3://bkt/out/data") == 1
    left = store.call_s3("list_multipart_uploads", Bucket="bkt")["Uploads"]
    assert [upload["Key"] for upload in left] == ["out/data-2/big"]


def test_permanent_fault_is_reported_at_once_without_a_secret(line, capsys, monkeypatch):
    lines = {}
    for address in ("s3://no-such-bucket/data", "s3://me:a-secret-key@bkt/data", "s3://bkt/none"):
        assert cxr("show", address) == 2
        lines[address] = capsys.readouterr().err
    output = "".join(lines.values())
    assert [text.count("\n") for text in lines.values()] == [1, 1, 1]
    assert "s3://no-such-bucket/data: " in output
    assert "no user and no password" in output
    assert "cxr: s3://bkt/none: " in output
    assert "secret" not in output
    assert "cxr-remote" not in output


@pytest.mark.parametrize("code", ["AccessDenied", "SignatureDoesNotMatch"])
def test_request_that_is_refused_is_sent_once(line, monkeypatch, code):
    def refuse(*_: Any, **__: Any) -> None:
        requests.append(1)
        raise PermissionError(
            f"An error occurred ({code}) when calling the ListObjectsV2 operation"
        )

    requests: list[int] = []
    monkeypatch.setattr(s3fs.S3FileSystem, "find", refuse)
    with pytest.raises(StoreError, match=rf"s3://bkt/a: .*{code}.*docs/scale"):
        list_files("s3://bkt/a")
    assert requests == [1]


def test_missing_package_is_reported_with_its_installation(line, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InputError, match=r"pip install '\.\[cluster\]'"):
        list_files("s3://bkt/a")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source of 16 images, one of them broken, as CSV."""
    names = [f"i{number:02d}" for number in range(16)]
    states = {"opacity": ["present" if number % 3 else "absent" for number in range(16)]}
    paths = [f"images/{name}.png" for name in names]
    folder = write_source(tmp_path / "source", names, states, path=paths)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        pixels = rng.integers(0, 255, (40 + number, 48), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
        os.utime(folder / "images" / f"{name}.png", (10**9, 10**9))
    (folder / "images" / "i07.png").write_bytes(b"\x89PNG and no more")
    scores = pd.DataFrame({"image_id": names, "score": np.linspace(0.1, 0.9, 16)})
    scores.drop(7).to_csv(tmp_path / "scores.csv", index=False)
    return folder


def plain(name: str, content: bytes) -> Any:
    """What of a file must be equal: all but times and places."""
    if name.endswith(".json"):
        return settled(json.loads(content), "source_root", "when", "run", "folder")
    if ".decoded/" in name:
        return pd.read_parquet(io.BytesIO(content)).drop(columns="file_mtime_ns").to_csv()
    return content


def stored(folder: str) -> dict[str, bytes]:
    """The files of a folder of the bucket, by their names in it."""
    store = s3fs.S3FileSystem()
    return {name.removeprefix(f"{folder}/"): store.cat_file(name) for name in store.find(folder)}


def require_same(remote: dict[str, bytes], local: Path) -> None:
    files = [path for path in local.rglob("*") if path.is_file()]
    assert remote.keys() == {path.relative_to(local).as_posix() for path in files}
    for name, content in remote.items():
        assert plain(name, content) == plain(name, (local / name).read_bytes()), name


def chain(source: str, out: str, scores: Path) -> None:
    """Data set, another split, audit, predictions of others and their thresholds."""
    data, pred = f"{out}/data", f"{out}/pred"
    few = ("--workers", "0", "--size", "32", "--name", "set")
    assert cxr("prepare", source, data, "--format", "csv", *few) == 0
    assert cxr("split", data, "--name", "other", "--seed", "3") == 0
    assert cxr("check", data, "--no-pixels") in (0, 1)
    assert cxr("import", scores, "--data", data, "--out", pred, "--name", "X") == 0
    assert cxr("tune", pred, "--data", data) == 0
    assert cxr("show", pred) == 0


def test_commands_give_the_same_on_s3_as_locally(line, source, tmp_path, capsys):
    chain(str(source), str(tmp_path / "out"), tmp_path / "scores.csv")
    store = s3fs.S3FileSystem()
    store.put(f"{source}/", "bkt/source/", recursive=True)
    capsys.readouterr()
    line.fail("busy", "/bkt/out", times=3)
    chain("s3://bkt/source", "s3://bkt/out", tmp_path / "scores.csv")
    output = capsys.readouterr()
    remote = stored("bkt/out")
    require_same(remote, tmp_path / "out")
    for name, content in remote.items():
        assert b"cxr-remote" not in content, name
        assert b"a-secret-key" not in content, name
    assert json.loads(remote["data/dataset.json"])["source_root"] == "s3://bkt/source"
    assert "s3://bkt/out/data: complete" in output.err
    assert "cxr-remote" not in output.err + output.out
    excluded = pd.read_parquet(io.BytesIO(remote["data/excluded.parquet"]))
    assert excluded["path"].tolist() == ["images/i07.png"]
    shutil.rmtree(tmp_path / "cache")
    from cxr_compare import DataSet, Predictions

    assert len(Predictions.open("s3://bkt/out/pred").scores) == 15
    dataset = DataSet.open("s3://bkt/out/data")
    assert dataset.read_original("i03").shape == (43, 48)
    assert dataset.store(32).image("i03").shape == (32, 32)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_commands_give_the_same_on_google_cloud_storage_as_locally(source, tmp_path, monkeypatch):
    server = pytest.importorskip("gcp_storage_emulator.server")
    gcsfs = pytest.importorskip("gcsfs")
    port = free_port()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks by TLS, which it lacks
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    google = server.create_server("127.0.0.1", port, in_memory=True, default_bucket="bkt")
    google.start()
    try:
        chain(str(source), str(tmp_path / "out"), tmp_path / "scores.csv")
        store = gcsfs.GCSFileSystem(skip_instance_cache=True)
        store.put(f"{source}/", "bkt/source/", recursive=True)
        chain("gs://bkt/source", "gs://bkt/out", tmp_path / "scores.csv")
        names = [name.removeprefix("bkt/out/") for name in store.find("bkt/out")]
        remote = {name: store.cat_file(f"bkt/out/{name}") for name in names}
    finally:
        google.stop()
    require_same(remote, tmp_path / "out")


@pytest.mark.long
def test_a_large_file_is_sent_in_parts_and_a_cut_part_again(line, tmp_path, monkeypatch):
    patient = {
        **object_store.S3_OPTIONS["config_kwargs"],
        "read_timeout": 20,
    }  # moto joins the parts
    monkeypatch.setitem(object_store.S3_OPTIONS, "config_kwargs", patient)
    path, size = tmp_path / "large", 3 * object_store.PART_BYTES + 1
    path.write_bytes(np.random.default_rng(0).bytes(size))
    line.fail("cut", "partNumber=2", times=1)
    assert send(path, "s3://bkt/out/large").size == size
    parts = [request for request in line.requests if "partNumber=" in request]
    assert {request.partition("partNumber=")[2].partition("&")[0] for request in parts} == set(
        "1234"
    )
    assert line.times == 0
    fetch("s3://bkt/out/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert abort_uploads("s3://bkt/out") == 0


def test_a_store_that_fails_stops_prepare_instead_of_leaving_images_out(
    line, source, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(object_store, "LONGEST_RETRY_S", 0.2)
    store = s3fs.S3FileSystem()
    store.put(f"{source}/", "bkt/source/", recursive=True)
    arguments = ("prepare", "s3://bkt/source", "s3://bkt/data", "--format", "csv", "--workers", "0")
    line.fail("busy", "GET /bkt/source/images/i11.png", times=1000)
    assert cxr(*arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("cxr: s3://bkt/source/images/i11.png: ")
    assert last.endswith("run the same command again to go on")
    assert store.find("bkt/data") == []
    line.fail("none", "", times=0)
    assert cxr(*arguments) == 0
    excluded = pd.read_parquet(io.BytesIO(store.cat_file("bkt/data/excluded.parquet")))
    assert excluded["path"].tolist() == ["images/i07.png"]


def test_another_machine_brings_the_folders_that_a_command_names(line, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 32, 32), np.uint8)
    here = tmp_path / "made" / "pixels" / "letterbox-32"
    with PixelStoreWriter(here, 32) as writer:
        for number, image in enumerate(pixels):
            writer.add(f"i{number}", image, Placement(1.0, 1.0, 0.0, 0.0))
    elsewhere = Path("/home/her/cxr-remote/s3/bkt/data/pixels/letterbox-32")
    with pytest.raises(InputError, match=r"letterbox-32: .*CXR_ENGINE"):
        predict_folder.open_store(elsewhere)
    s3fs.S3FileSystem().put(f"{here}/", "bkt/data/pixels/letterbox-32/", recursive=True)
    store = predict_folder.open_store(elsewhere)
    assert store.folder == local_path("s3://bkt/data/pixels/letterbox-32")
    assert np.array_equal(store.image("i3"), pixels[3])


@pytest.mark.long
def test_machines_that_share_no_disk_prepare_and_predict_from_s3(line, source, tmp_path):
    pytest.importorskip("ray")
    hook, out = tmp_path / "hook", tmp_path / "out"
    hook.mkdir()
    surroundings = environment(hooked_path(hook, scripts__commands__predict=SMALL_PARTS))
    few = ("--format", "csv", "--size", "32", "--name", "set")
    ended(start(surroundings, "prepare", source, out / "data", *few, "--workers", "1"))
    run_folder = untrained_run("detector", out / "data", tmp_path / "run")
    ids = ("--batch-size", "2", "--split", "default")
    ended(start(surroundings, "predict", run_folder, "--data", out / "data", *ids, "--out",
                out / "pred"))  # fmt: skip
    store = s3fs.S3FileSystem()
    store.put(f"{source}/", "bkt/source/", recursive=True)
    store.put(f"{run_folder}/", "bkt/run/", recursive=True)
    with cluster_of(surroundings) as machines:
        for name in ("first", "second"):
            machines.add(CXR_CACHE=str(tmp_path / name))
        to_cluster = {"CXR_ENGINE": "ray", "CXR_ADDRESS": machines.address}
        driver = machines.surroundings | to_cluster
        ended(start(driver, "prepare", "s3://bkt/source", "s3://bkt/out/data", *few))
        arguments = (
            "s3://bkt/run",
            "--data",
            "s3://bkt/out/data",
            "--out",
            "s3://bkt/out/pred",
            *ids,
        )
        ended(start(driver, "predict", *arguments))
    require_same(stored("bkt/out"), out)
    for name in ("model.safetensors", "shard-00000.npy"):
        assert list(tmp_path.glob(f"*/cxr-remote/s3/bkt/**/{name}"))
    assert list((tmp_path / "first").rglob("*.npy")) + list((tmp_path / "second").rglob("*.npy"))
