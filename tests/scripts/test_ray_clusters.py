"""Commands with `CXR_ENGINE=ray`: killed, interrupted, in a cluster that loses machines.

A cluster here is several of Ray's raylets on this machine, each of which is a machine to it.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.scripts.launched import (
    below,
    command_line,
    contents,
    ended,
    environment,
    hooked_path,
    naming,
    start,
    wait_until,
    workers_below,
)
from tests.scripts.small_sets import drawn_images
from tests.scripts.test_engines import POISON, POISONED, SIZE, write_source
from tests.scripts.untrained import untrained_run

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: extra cluster"),
]
N_IMAGES = 120
SLOW = "time.sleep(0.15)"  # decoding takes long enough to be interrupted
# Predicting, too, in parts of four images.
SMALL_PARTS = "PART_SIZE = 4"
SLOW_PARTS = """
import time
as_it_was = _PartPredictor.__call__
def slowly(self, images):
    time.sleep(0.4)
    return as_it_was(self, images)
_PartPredictor.__call__ = slowly
"""
# Starts a machine for each line that it reads, and ends them all with its input.
CLUSTER = """
import json, os, sys
from ray.cluster_utils import Cluster
os.makedirs("/tmp/ray", exist_ok=True)  # Ray notes the cluster's address there
cluster = Cluster()
for line in sys.stdin:
    environment, options = json.loads(line)
    os.environ.update(environment)
    node = cluster.add_node(
        num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20,
        node_ip_address="127.0.0.1", **options,
    )
    print(json.dumps([cluster.address, node.all_processes["raylet"][0].process.pid]), flush=True)
cluster.shutdown()
"""


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    return environment(hooked_path(tmp_path, f"{POISONED}; {SLOW}"))


class Machines:
    """A cluster of raylets on the loopback device, for those who have its token."""

    def __init__(self, surroundings: dict[str, str], folder: str) -> None:
        self.surroundings = {
            **surroundings,
            "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_MODE": "token",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # leaves 127.0.0.1 as it is
            "RAY_raylet_start_wait_time_s": "300",
            "RAY_agent_register_timeout_ms": "300000",
        }  # fmt: skip
        self.folder, self.address = folder, ""
        with Path(folder, "log").open("w") as log:
            self.starter = subprocess.Popen(
                [sys.executable, "-c", CLUSTER],
                env=self.surroundings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True, start_new_session=True,
            )  # fmt: skip

    def add(self, **variables: str) -> int:
        """Start a machine of one processor, the first of which has the head; its raylet."""
        assert self.starter.stdin is not None
        assert self.starter.stdout is not None
        options = {} if self.address else {"temp_dir": self.folder}
        self.starter.stdin.write(json.dumps([variables, options]) + "\n")
        self.starter.stdin.flush()
        answer = self.starter.stdout.readline()
        assert answer, Path(self.folder, "log").read_text()
        self.address, raylet = json.loads(answer)
        return int(raylet)

    def end(self) -> None:
        left = [self.starter.pid, *below(self.starter.pid)]
        with suppress(subprocess.TimeoutExpired):
            self.starter.communicate(timeout=30)
        for process in left:
            if self.folder in command_line(process):
                os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    hook = tmp_path_factory.mktemp("hook")
    path = hooked_path(
        hook,
        f"{POISONED}; {SLOW}",
        scripts__commands__predict=SMALL_PARTS,
        serving__predict_folder=SLOW_PARTS,
    )
    with cluster_of(environment(path)) as cluster:
        cluster.add()
        yield cluster


@contextmanager
def cluster_of(surroundings: dict[str, str]) -> Iterator[Machines]:
    folder = tempfile.mkdtemp(prefix="cxr-ray-", dir="/tmp")  # short: sockets lie below it
    cluster = Machines(surroundings, folder)
    try:
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)


def end_machine(first: int) -> None:
    """As a loss of power does: all its processes at once, without a word."""
    os.kill(first, signal.SIGSTOP)  # it must not start others meanwhile
    for process in [first, *below(first)]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_images(tmp_path_factory.mktemp("phantom"), 80, 64, [SIZE])


TO_RAY = {"CXR_ENGINE": "ray"}


def prepare_words(source: Path, out: str, *options: str) -> list[object]:
    return ["prepare", source / "labels.csv", source, source.parent / out, "--size", SIZE,
            "--name", "set", *options]  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path, N_IMAGES)


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> dict[str, Any]:
    """What local processes prepare."""
    (tmp_path / "poison").mkdir()
    fast = environment(hooked_path(tmp_path / "poison", POISONED))
    ended(start(fast, *prepare_words(source, "local", "--workers", "2")))
    return contents(source.parent / "local")


def scratch_of(process: int) -> str:
    """The folder of the Ray that a command has started."""
    lines = " ".join(map(command_line, below(process)))
    match = re.search(r"\S*/ray-cxr-\w+", lines)
    assert match
    return match[0].rpartition("=")[2]


def test_the_same_command_goes_on_where_it_was_killed(source, expected, surroundings):
    arguments = prepare_words(source, "ray", "--workers", "2")
    command = start(surroundings | TO_RAY, *arguments)
    wait_until(lambda: workers_below(command.pid))
    time.sleep(4)
    scratch = scratch_of(command.pid)
    os.kill(command.pid, signal.SIGKILL)
    command.communicate()
    wait_until(lambda: not naming(scratch), 60)
    ended(start(surroundings | TO_RAY, *arguments))
    assert contents(source.parent / "ray") == expected


def test_ctrl_c_is_one_line_and_leaves_no_process(source, surroundings):
    command = start(surroundings | TO_RAY, *prepare_words(source, "ray", "--workers", "2"))
    wait_until(lambda: workers_below(command.pid))
    time.sleep(2)
    scratch = scratch_of(command.pid)
    os.killpg(command.pid, signal.SIGINT)
    out, output = command.communicate(timeout=60)
    assert command.returncode == 130
    assert (
        output.strip().splitlines()[-1] == "cxr: interrupted; run the same command again to go on"
    )
    assert "Traceback" not in out + output
    assert naming(scratch) == []
    assert not Path(scratch).exists()


def test_address_without_a_cluster_is_reported_in_one_line(source, surroundings):
    nowhere = TO_RAY | {"CXR_ADDRESS": "127.0.0.1:1"}
    command = start(surroundings | nowhere, *prepare_words(source, "ray"))
    out, output = command.communicate(timeout=60)
    assert command.returncode == 2
    assert output.startswith("cxr: CXR_ADDRESS=127.0.0.1:1: ")
    assert len(output.splitlines()) == 1
    assert out == ""


def test_prepare_loses_nothing_with_a_machine_that_dies_and_uses_one_that_joins(
    machines, source, expected
):
    dying = machines.add()
    to_cluster = TO_RAY | {"CXR_ADDRESS": machines.address}
    command = start(machines.surroundings | to_cluster, *prepare_words(source, "ray"))
    wait_until(lambda: workers_below(dying))
    time.sleep(2)
    end_machine(dying)
    joining = machines.add()
    wait_until(lambda: workers_below(joining))
    assert command.poll() is None
    ended(command)
    assert contents(source.parent / "ray") == expected
    excluded = pd.read_parquet(source.parent / "ray/excluded.parquet").set_index("path")
    assert sorted(excluded.index) == [POISON, "torn.png"]
    assert "crashed" in excluded.loc[POISON, "reason"]
    end_machine(joining)


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_predict_loses_nothing_with_a_machine_that_dies(machines, data, tmp_path, kind):
    run, dying = untrained_run(kind, data, tmp_path / "run"), machines.add()
    arguments = ["predict", run, "--data", data, "--batch-size", 2, "--out"]
    to_cluster = TO_RAY | {"CXR_ADDRESS": machines.address}
    command = start(machines.surroundings | to_cluster, *arguments, tmp_path / "ray")
    wait_until(lambda: workers_below(dying))
    time.sleep(3)
    assert command.poll() is None
    end_machine(dying)
    ended(command)
    ended(start(machines.surroundings, *arguments, tmp_path / "local"))
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert len(list((tmp_path / "ray/predicted_images.parquet").iterdir())) > 3


def test_lost_cluster_is_reported_in_one_line_and_costs_no_image(source, expected, surroundings):
    with cluster_of(surroundings) as machines:
        raylet = machines.add()
        to_cluster = TO_RAY | {"CXR_ADDRESS": machines.address}
        command = start(machines.surroundings | to_cluster, *prepare_words(source, "ray"))
        wait_until(lambda: workers_below(raylet))
        time.sleep(3)
        end_machine(machines.starter.pid)
        out, output = command.communicate(timeout=120)
    assert command.returncode == 2
    assert re.fullmatch(r"cxr: CXR_ENGINE=ray: .*\n", output)
    assert out == ""
    ended(start(surroundings, *prepare_words(source, "ray", "--workers", "2")))
    assert contents(source.parent / "ray") == expected
