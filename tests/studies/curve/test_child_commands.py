"""Commands get devices of their own, here or in a Ray cluster, and survive what dies there."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.ray_cluster import open_cluster
from cxr_compare.studies.curve import child_commands
from cxr_compare.studies.curve.child_commands import (
    Command,
    Machines,
    Running,
    ThisMachine,
    run_commands,
    share_devices,
)
from cxr_compare.studies.curve.cluster import MachineShare, choose_machines, share_machines

ROOT = Path(__file__).resolve().parents[3]
has_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
# For the start of each Python: in place of a `cxr` command, say which GPUs it sees, and when.
_CHILD = """
import os, sys, time
if "cxr_compare.scripts.cli" in sys.orig_argv:
    start = time.monotonic()
    time.sleep(float(sys.orig_argv[-1]))
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), start, time.monotonic(), flush=True)
    os._exit(0)
"""


@pytest.fixture
def children_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that say which GPUs they see, and when they ran."""
    (tmp_path / "sitecustomize.py").write_text(_CHILD)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setattr(child_commands, "_POLL", 0.01)


def record_intervals(
    folder: Path, machines: Machines, commands: int
) -> list[tuple[str, float, float]]:
    """Run commands on machines; return the GPUs, start and end that each reports."""
    ran: list[Running] = []

    def ended(running: Running) -> bool:
        ran.append(running)
        return running.problem() is not None

    names = [f"{number}" for number in range(commands)]
    run_commands((Command(n, ["0.2"], folder / f"{n}.log") for n in names), machines, ended=ended)
    assert sorted(trial.command.name for trial in ran) == names
    lines = [(folder / f"{name}.log").read_text().split() for name in names]
    return [(gpus, float(start), float(end)) for gpus, start, end in lines]


def most_at_a_time(gpu: str, intervals: list[tuple[str, float, float]]) -> int:
    spans = [(start, end) for gpus, start, end in intervals if gpu in gpus.split(",")]
    return max(sum(a <= start < b for a, b in spans) for start, _ in spans)


@pytest.mark.parametrize(
    ("visible", "devices", "jobs", "seen", "most"),
    [
        (None, 1, 3, {"0", "1", "2"}, 1),  # all that torch finds
        ("4,GPU-6a,7", 1, 4, {"4", "GPU-6a", "7"}, 2),  # of the job, by its names; small ones share
        ("4,5,6,7", 2, 2, {"4,5", "6,7"}, 1),
    ],
)
@pytest.mark.usefixtures("children_tell")
def test_processes_at_the_same_time_see_disjoint_gpus(
    tmp_path, monkeypatch, visible, devices, jobs, seen, most
):
    monkeypatch.setattr(child_commands, "runs_on_gpu", lambda device: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    intervals = record_intervals(
        tmp_path, ThisMachine(share_devices("auto", devices, jobs)), 2 * jobs
    )
    assert {gpus for gpus, _, _ in intervals} == seen
    gpus = {gpu for one in seen for gpu in one.split(",")}
    assert max(most_at_a_time(gpu, intervals) for gpu in gpus) <= most


@pytest.mark.parametrize(
    ("machines", "options", "share"),
    [
        ([(2, 0)], ("cpu", 1, 1), MachineShare(2)),  # all of it, as without a cluster
        ([(2, 0)], ("cpu", 1, 2), MachineShare(1, threads=1)),
        ([(2, 0)], ("auto", 1, 9), MachineShare(1, threads=1)),  # seven wait
        ([(8, 0), (3, 0)], ("auto", 1, 3), MachineShare(3, threads=3)),  # two here, one there
        ([(8, 2), (64, 0)], ("cpu", 1, 1), MachineShare(64)),
        ([(8, 2), (64, 0)], ("auto", 1, 2), MachineShare(4, 1.0)),
        ([(8, 2), (64, 0)], ("cuda", 2, 1), MachineShare(8, 2.0)),
        ([(8, 2)], ("auto", 1, 4), MachineShare(2, 0.5)),
        ([(1, 2)], ("auto", 1, 2), MachineShare(1, 1.0)),  # one at a time
    ],
)
def test_a_cluster_is_shared_out_by_gpus_else_by_processors(machines, options, share):
    assert share_machines(machines, *options) == share


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("cuda", 3, 1), "--device cuda: .* 3 GPUs .*Ray"),
        (("auto", 2, 2), "--jobs 2 .*--devices 2: .* 1 at a time"),
        (("tpu", 1, 1), "--device tpu: .*auto, cpu .*cuda"),
    ],
)
def test_too_few_gpus_of_a_cluster_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        share_machines([(8, 2), (8, 0)], *options)


def test_after_five_failures_in_a_row_no_more_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(child_commands, "_POLL", 0.0)
    started: list[str] = []

    class Fails:
        jobs = 1

        def start(self, command: Command, slot: int) -> Any:
            started.append(command.name)
            return type("Child", (), {"poll": lambda self: 0 if command.name == "2" else 2})()

    run_commands(
        (Command(str(number), [], tmp_path / "log") for number in range(20)),
        Fails(),
        ended=lambda running: running.status != 0,
    )
    assert started == [str(number) for number in range(8)]


@has_ray
@pytest.mark.long
@pytest.mark.usefixtures("children_tell")
def test_processes_in_a_cluster_see_the_gpus_that_ray_assigned(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    import ray

    ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for jobs, most in ((2, 1), (4, 2)):  # small ones share
            (folder := tmp_path / str(jobs)).mkdir()
            options: Any = {"device": "auto", "devices": 1, "jobs": jobs, "reads": [tmp_path]}
            with open_cluster() as cluster:
                intervals = record_intervals(folder, choose_machines(cluster, **options), 4)
            assert {gpus for gpus, _, _ in intervals} == {"0", "1"}
            assert max(most_at_a_time(gpu, intervals) for gpu in "01") <= most
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (0, None),
        (2, "failed with status 2"),
        (-9, "ended by SIGKILL, perhaps for want of memory"),
        (-15, "ended by SIGTERM"),
        (143, "ended by SIGTERM"),
    ],
)
def test_status_of_a_process_is_described_in_text(status, problem):
    assert child_commands.problem_of_status(status) == problem


def test_a_command_that_was_interrupted_interrupts_the_others():
    with pytest.raises(KeyboardInterrupt):
        child_commands.problem_of_status(130)
