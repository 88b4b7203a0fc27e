"""Bad requests to `cxr serve` in a process of its own: no status 500, and no growing memory."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.attacks.bad_requests import attack

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def running(exports: list[Path]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server, and its process."""
    command = [sys.executable, "-m", "cxr_compare.scripts.cli", "serve", *map(str, exports)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--port", "0"], env=environment, text=True, stderr=subprocess.PIPE
    ) as started:
        assert started.stderr is not None
        shown = (re.search(r"http://\S+:\d+", line) for line in started.stderr)
        yield next(match[0] for match in shown if match), started
        started.kill()


@pytest.mark.parametrize("count", [60, pytest.param(2_000, marks=pytest.mark.long)])
def test_bad_requests_are_refused_and_leave_no_memory_behind(running: Any, count: int) -> None:
    address, started = running
    found = attack(address, started.pid, count)
    answers, memory = found["answers"], found["memory_mib"]
    assert set(answers) <= {
        "200",
        "400",
        "403",
        "404",
        "405",
        "413",
        "415",
        "422",
        "left",
        "closed",
    }
    assert answers["422"] + answers["415"] > count / 5
    if "after 400" in memory:
        assert memory["highest later"] - memory["after 400"] < 200
    started.send_signal(signal.SIGINT)
    log = started.stderr.read()
    assert " failed: " not in log
    assert "Traceback" not in log
