"""`cxr serve`: what it refuses in one line, and a live server from its start to its end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from cxr_compare.classification.activation_maps import activation_maps
from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.scripts.commands.serve import read_token
from cxr_compare.serving.export_graph import write_graph
from cxr_compare.serving.export_spec import PREPROCESS_FILE
from cxr_compare.training.run_info import RunInfo
from tests.plain_info import export_spec
from tests.scripts.small_sets import refusal

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/serving.md").read_text()
SIZE = 32


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a classifier that has learned nothing and has no operating point."""
    folder = tmp_path_factory.mktemp("export")
    network = build_classifier("small_cnn", image_size=SIZE).eval()
    write_graph(network, folder, "onnx")
    Preprocess(size=SIZE, mean=0.5, std=0.25).write(folder / PREPROCESS_FILE)
    frame = activation_maps(network, torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8), "cam").frame
    export_spec(
        findings=("lung_opacity",),
        target=Target("opacity", ("lung_opacity",), "Lung opacity"),
        size=SIZE,
        map_frame=frame,
        run=RunInfo(name="CheXNet"),
    ).complete(folder)
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that `cxr serve` ends with, at exit status 2."""
    return refusal(capsys, "serve", *arguments)


def test_what_is_wrong_is_one_line(export, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("CXR_TOKEN", raising=False)
    assert "nowhere: " in refused(capsys, "nowhere")
    assert f"{tmp_path}: " in refused(capsys, tmp_path)
    assert "token is required" in refused(capsys, export, "--host", "0.0.0.0")  # noqa: S104
    (tmp_path / "token").write_text("short\n")
    (tmp_path / "token").chmod(0o600)
    assert "16 or more" in refused(capsys, export, "--token", tmp_path / "token")
    assert f"{tmp_path / 'none'}: " in refused(capsys, export, "--token", tmp_path / "none")
    assert f"{tmp_path / 'none'}: " in refused(capsys, export, "--report", tmp_path / "none")
    assert "'A'" in refused(capsys, f"A={export}", f"A={export}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(capsys, export, "--port", port)
    assert f"--port {port}: " in line
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # as if it were not installed
    assert "[serve]" in refused(capsys, export)


def test_a_token_that_others_may_read_is_refused(export, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CXR_TOKEN", raising=False)
    token = tmp_path / "token"
    token.write_text("a-token-of-this-test\n")
    for mode in (0o644, 0o640, 0o602):
        token.chmod(mode)
        assert f"chmod 600 {token}" in refused(capsys, export, "--token", token)
    token.chmod(0o600)
    assert read_token(token) == "a-token-of-this-test"
    token.write_text("x" * 5000)
    assert "4,096" in refused(capsys, export, "--token", token)


def test_a_token_of_the_environment_is_taken_and_never_shown(export, monkeypatch, capsys):
    monkeypatch.setenv("CXR_TOKEN", "too short")
    line = refused(capsys, export)
    assert "CXR_TOKEN" in line
    assert "too short" not in line


class Live(NamedTuple):
    """A server of its own process."""

    process: subprocess.Popen[str]
    address: str
    export: Path


@pytest.fixture(scope="module")
def live(export: Path) -> Iterator[Live]:
    code = (
        "import sys\nfrom cxr_compare.scripts.cli import main\n"
        f"sys.argv = ['cxr', 'serve', {str(export)!r}, '--port', '0']\n"
        "try: main()\n"
        "finally: print('LOADED', sorted({'torch', 'lightning'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"http://\S+:\d+", line):
            break
    else:
        pytest.fail("no address was shown")
    try:
        yield Live(process, match[0], export)
    finally:
        process.kill()
        process.communicate()


def test_the_examples_of_the_documentation_get_answers(live: Live, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.dcm", format="PNG")
    (python,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (curl,) = re.findall(r"^curl .*$", PAGE, re.MULTILINE)
    for command in (["bash", "-c", curl], [sys.executable, "-c", python]):
        here = [line.replace("http://127.0.0.1:8000", live.address) for line in command]
        done = subprocess.run(here, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "CheXNet no answer" in done.stdout  # for noise
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer["systems"][0]["system"] == "CheXNet"
    undecided = answer["systems"][0]["undecided_because"]
    assert undecided.startswith("no operating point was exported")  # and no folder of ours
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.width > 480


def test_ctrl_c_ends_the_server_in_one_line_and_exports_needed_no_torch(live: Live) -> None:
    """A request is under way, a connection is kept open, and Ctrl-C comes twice."""
    half = b"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
    half += b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
    port = int(live.address.rpartition(":")[2])
    with (
        httpx.Client(base_url=live.address) as client,
        socket.create_connection(("127.0.0.1", port)) as sending,
    ):
        sending.sendall(half)
        assert client.get("/healthz").status_code == 200
        live.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        live.process.send_signal(signal.SIGINT)
        out, log = live.process.communicate(timeout=10)
        cut_off = sending.recv(1 << 16)
    assert live.process.returncode == 130
    assert cut_off.startswith(b"HTTP/1.1 503")
    assert out == "LOADED []\n"
    assert log.splitlines()[-1] == "Server ended"
    assert "film" not in log
    assert "Traceback" not in log
