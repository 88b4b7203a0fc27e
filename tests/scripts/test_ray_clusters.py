"""`--engine ray` where the command is killed or interrupted, and where no cluster is to join."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: extra cluster"),
]
ROOT = Path(__file__).resolve().parents[2]
# For the start of each Python: decoding takes long enough to be interrupted.
SLOW_DECODER = """
import sys, time
from importlib.machinery import PathFinder
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name != "data_prep.images.image":
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def changed(module):
            run(module)
            read = module.read_image
            def read_image(path, **options):
                time.sleep(0.15)
                return read(path, **options)
            module.read_image = read_image
        spec.loader.exec_module = changed
        return spec
sys.meta_path.insert(0, Slow())
"""
N_IMAGES = 120
VARYING = {"created", "command", "cost"}


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """Environment of the commands: decoding is slow, and Ray's own settings are unset."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_DECODER)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng, folder = np.random.default_rng(0), tmp_path / "source"
    folder.mkdir()
    ids = [f"i{n:03d}" for n in range(N_IMAGES)]
    for name in ids:
        Image.fromarray(rng.integers(0, 255, (40, 50), np.uint8)).save(folder / f"{name}.png")
    images = {"image_id": ids, "path": [f"{name}.png" for name in ids], "patient_id": ids}
    pd.DataFrame(images).to_csv(folder / "images.csv", index=False)
    states = [n % 3 == 0 for n in range(N_IMAGES)]
    labels = {"image_id": ids, "finding": "mass", "state": states}
    pd.DataFrame(labels).to_csv(folder / "labels.csv", index=False)
    return folder


def contents(folder: Path) -> dict[str, Any]:
    """Digest of each file of a folder; JSON without what may differ."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            found[name] = _settled(json.loads(path.read_text()))
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _settled(each) for key, each in value.items() if key not in VARYING}
    return [_settled(each) for each in value] if isinstance(value, list) else value


def start(surroundings: dict[str, str], *words: object) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *map(str, words)],
        env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def prepare(source: Path, out: str, *words: str) -> list[object]:
    return ["scripts.cli", "prepare", source, source.parent / out, "--format", "csv", "--size",
            "32", "--name", "set", *words]  # fmt: skip


@pytest.fixture
def expected(source: Path, surroundings: dict[str, str]) -> dict[str, Any]:
    """What one process prepares."""
    fast = {**surroundings, "PYTHONPATH": str(ROOT)}
    command = start(fast, *prepare(source, "local", "--workers", "1"))
    _, said = command.communicate(timeout=300)
    assert command.returncode == 0, said
    return contents(source.parent / "local")


def below(process: int) -> list[int]:
    """Processes that a process started, and those that they did."""
    found = []
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                found += [child, *below(child)]
    return found


def command_line(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def wait_for(what: Callable[[], Any], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def at_work(process: int) -> bool:
    return any(command_line(each).startswith("ray::_work") for each in below(process))


def scratch_of(process: int) -> str:
    """The folder of the Ray that a command has started."""
    lines = " ".join(map(command_line, below(process)))
    found = re.search(r"\S*/cxr-ray-\w+", lines)
    assert found
    return found[0].rpartition("=")[2]


def naming(text: str) -> list[str]:
    processes = [int(each.name) for each in Path("/proc").glob("[0-9]*")]
    return [line for line in map(command_line, processes) if text in line]


def test_the_same_command_goes_on_where_it_was_killed(
    source: Path, expected: dict[str, Any], surroundings: dict[str, str]
) -> None:
    words = prepare(source, "ray", "--engine", "ray", "--workers", "2")
    command = start(surroundings, *words)
    wait_for(lambda: at_work(command.pid))
    time.sleep(4)
    scratch = scratch_of(command.pid)
    os.kill(command.pid, signal.SIGKILL)
    command.communicate()
    wait_for(lambda: not naming(scratch), 60)
    again = start(surroundings, *words)
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert contents(source.parent / "ray") == expected


def test_ctrl_c_is_said_in_one_line_and_leaves_no_process(
    source: Path, surroundings: dict[str, str]
) -> None:
    command = start(surroundings, *prepare(source, "ray", "--engine", "ray", "--workers", "2"))
    wait_for(lambda: at_work(command.pid))
    time.sleep(2)
    scratch = scratch_of(command.pid)
    os.killpg(command.pid, signal.SIGINT)
    out, said = command.communicate(timeout=60)
    assert command.returncode == 130
    assert said.strip().splitlines()[-1] == "cxr: interrupted; run the same command again to go on"
    assert "Traceback" not in out + said
    assert naming(scratch) == []
    assert not Path(scratch).exists()


def test_no_cluster_at_an_address_is_said_in_one_line(
    source: Path, surroundings: dict[str, str]
) -> None:
    words = prepare(source, "ray", "--engine", "ray", "--address", "127.0.0.1:1")
    command = start(surroundings, *words)
    out, said = command.communicate(timeout=60)
    assert command.returncode == 2
    assert said.startswith("cxr: --address 127.0.0.1:1: cannot join a Ray cluster there (")
    assert len(said.splitlines()) == 1
    assert out == ""
