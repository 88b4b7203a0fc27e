"""The benchmark: noisy samples are rejected, ratios follow from figures, nothing is invented."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import bench
from benchmarks.bench import Meter, ProcessorTime, Row, Sample
from benchmarks.report import as_lines, line_of
from benchmarks.worker import Candidate, Run, Worker, peak_gib, timed
from cxr_compare.data_prep.contracts.errors import InputError

pytestmark = pytest.mark.release


class FakeMachine(ProcessorTime):
    """Clocks that only move when a test moves them."""

    def __init__(self, cpus: int = 2, *, watched: bool = True) -> None:
        self.cpus, self.watched = cpus, watched
        self.time = self.others = self.mine = 0.0
        self.calm: list[float] = []  # what others use while we sleep, call by call

    def now(self) -> float:
        return self.time

    def busy(self) -> float | None:
        return self.mine + self.others if self.watched else None

    def own(self) -> float:
        return self.mine

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.others += self.calm.pop(0) if self.calm else 0.0

    def work(self, seconds: float, others: float = 0.0) -> None:
        self.time += seconds
        self.mine += seconds
        self.others += others


def meter_of(machine: FakeMachine, *, rounds: int = 1, guarded: bool = True) -> Meter:
    return Meter(machine, rounds=rounds, least_seconds=1.0, guarded=guarded)


def sampled(meter: Meter, run: Callable[[], Any]) -> Sample:
    return meter.sample(partial(timed, run, now=meter.machine.now), least=1.0)


def measured(meter: Meter, runs: dict[str, Callable[[], Any]], row: Row) -> dict[str, Any]:
    (figure,) = meter.measure(runs, [row], warm=False)
    return figure


def scripted(machine: FakeMachine, steps: list[tuple[float, float]]) -> Callable[[], float]:
    """A run that takes what the list says, call by call: own seconds, those of others."""
    left = iter(steps)

    def run() -> float:
        machine.work(*next(left))
        return 10.0

    return run


def test_noise_is_the_share_of_all_processors_that_others_used():
    machine = FakeMachine(cpus=4)
    sample = sampled(meter_of(machine), scripted(machine, [(2.0, 0.8)]))
    assert (sample.amount, sample.seconds) == (10.0, 2.0)
    assert sample.noise == pytest.approx(0.1)


def test_work_of_the_benchmark_itself_is_not_counted_as_noise():
    machine = FakeMachine(cpus=2)

    def run() -> float:
        machine.time += 1.0
        machine.mine += 2.0
        return 1.0

    assert sampled(meter_of(machine), run).noise == 0.0


def test_a_short_run_is_repeated_within_its_sample():
    machine = FakeMachine()
    sample = sampled(meter_of(machine), scripted(machine, [(0.4, 0)] * 5))
    assert (sample.amount, sample.seconds) == (30.0, pytest.approx(1.2))


def test_a_noisy_sample_is_rejected_counted_and_taken_again():
    machine = FakeMachine()
    run = scripted(machine, [(1.0, 1.0), (1.0, 0.3), (1.0, 0.1)])
    row = measured(meter_of(machine), {"ours": run}, Row("read", "images/s", "ours"))
    assert (row["rejected"], row["n"]) == (2, 1)
    assert row["ours"] == 10.0


def test_a_machine_that_stays_busy_gives_no_figure():
    machine = FakeMachine()
    noisy = scripted(machine, [(1.0, 1.0)] * 4)
    quiet = scripted(machine, [(1.0, 0.0)])
    runs = {"ours": noisy, "peer": quiet}
    row = measured(meter_of(machine), runs, Row("read", "images/s", "ours", "peer"))
    assert [row[key] for key in ("ours", "peer", "ratio", "n", "rejected")] == [None] * 3 + [0, 4]
    assert row["ours_range"] is None
    assert line_of(row) == "read: ours: not measured, others use the machine"


def test_a_rejected_sample_waits_until_the_others_are_quiet():
    machine = FakeMachine()
    machine.calm = [2.0, 2.0, 0.0]
    run = scripted(machine, [(1.0, 1.0), (1.0, 0.0)])
    timer = partial(timed, run, now=machine.now)
    sample, rejected = meter_of(machine).quiet_sample(timer)
    assert sample is not None
    assert (machine.time, rejected) == (5.0, 1), "two runs, and three seconds of sleep between"


def test_after_the_time_limit_every_sample_has_one_try():
    machine = FakeMachine()
    machine.calm = [2.0] * 10
    meter = meter_of(machine)
    meter.patience = 3.0
    timer = partial(timed, scripted(machine, [(1.0, 1.0)] * 3), now=machine.now)
    assert [meter.quiet_sample(timer) for _ in range(3)] == [(None, 1)] * 3
    assert machine.time == 6.0, "three runs and three seconds of sleep in all"


@pytest.mark.parametrize(("watched", "guarded"), [(False, True), (True, False)])
def test_without_a_watch_every_sample_counts(watched, guarded):
    machine = FakeMachine(watched=watched)
    run = scripted(machine, [(1.0, 5.0)])
    meter = meter_of(machine, guarded=guarded)
    row = measured(meter, {"ours": run}, Row("read", "images/s", "ours"))
    assert (row["n"], row["rejected"]) == (1, 0)


def test_candidates_take_turns_in_being_first():
    machine, seen = FakeMachine(), []

    def named(name: str) -> Callable[[], None]:
        def run() -> None:
            seen.append(name)
            machine.work(1.0)

        return run

    list(meter_of(machine, rounds=2).measure({"a": named("a"), "b": named("b")}, []))
    assert seen == ["a", "b", "a", "b", "b", "a"], "once each to warm up, then two rounds"


def row_of(unit: str, *pairs: tuple[float, float]) -> dict[str, Any]:
    """A row of ours against a peer, of the seconds that each took, round by round."""
    rounds = [{"ours": Sample(1.0, a, 0.0), "peer": Sample(1.0, b, 0.0)} for a, b in pairs]
    return Row("open", unit, "ours", "peer").measured(rounds, {})


def test_a_ratio_is_formed_within_its_round():
    row = row_of("s", (1.0, 2.0), (10.0, 20.0), (3.0, 9.0))
    assert (row["ours"], row["peer"]) == (3.0, 9.0)
    assert (row["ratio"], row["ratio_range"]) == (2.0, [2.0, 3.0])
    assert (row["ours_range"], row["n"]) == ([1.0, 10.0], 3)


@pytest.mark.parametrize(
    ("unit", "ours", "peer"), [("s", 0.5, 2.0), ("ms/image", 500.0, 2000.0), ("images/s", 2.0, 0.5)]
)
def test_a_ratio_above_one_means_that_ours_is_faster(unit, ours, peer):
    row = row_of(unit, (0.5, 2.0))
    assert (row["ours"], row["peer"], row["ratio"]) == (ours, peer, 4.0)


@pytest.mark.parametrize(
    ("seconds", "gib", "within"), [(59.0, 3.9, True), (61.0, 1.0, False), (1.0, 4.1, False)]
)
def test_a_limit_is_of_time_and_of_memory(seconds, gib, within):
    row = Row("t", "s", "ours", limit=60.0, limit_gib=4.0)
    sample = Sample(1.0, seconds, 0.0, peak_gib=gib)
    assert row.measured([{"ours": sample}], {})["within_limit"] is within
    assert row.measured([{"ours": None}], {})["within_limit"] is None


@pytest.mark.parametrize(("unit", "seconds"), [("images/s", 2.0), ("s", 2.0), ("ms/image", 2.0)])
def test_the_share_of_the_peak_is_that_of_the_operations_a_second(unit, seconds):
    row = Row("step", unit, "ours", bound=("bf16", 3e9))  # 3 GFLOP in 2 s of 6 GFLOP/s
    rounds = [{"ours": Sample(1.0, seconds, 0.0)}]
    assert row.measured(rounds, {}, peaks={"bf16": 6e9})["share"] == pytest.approx(0.25)
    assert row.measured(rounds, {}, peaks={"fp32": 1.0})["share"] is None


def test_the_table_leaves_empty_what_was_not_measured():
    read = Row("read", "images/s", "ours").measured([{"ours": None}], {"ours": 4})
    rounds = [{"ours": Sample(1.0, seconds, 0.0)} for seconds in (1.0, 2.0, 3.0)]
    lines = as_lines([read, Row("open", "s", "ours").measured(rounds, {})])
    assert lines[1].split() == ["read", "ours", "images/s", "0", "4"]
    assert lines[2].split() == ["open", "ours", "2", "s", "3", "0"]


CANDIDATES = """
import os

def told(fails=False):
    if fails:
        raise ValueError("no such file")
    def run():
        print("a library says something")
        return {"threads": "OMP_NUM_THREADS" in os.environ, "pid": os.getpid()}
    return run
"""


@pytest.fixture
def candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """What sets up a candidate, in a module that imports nothing else."""
    (tmp_path / "some_candidates.py").write_text(CANDIDATES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return importlib.import_module("some_candidates").told


def test_a_candidate_has_a_process_that_is_stopped_while_it_waits(candidate):
    worker = Worker(Candidate.from_setup(candidate))
    try:
        worker.ready()
        taken = worker(0.01)
        printed = taken.printed
        assert printed is not None, "what it prints is no answer"
        assert not printed["threads"], "what the user set for us is not the peer's"
        assert 0 < taken.peak_gib < 2
        status, until = Path(f"/proc/{printed['pid']}/stat"), time.monotonic() + 10
        while (stopped := status.read_text().rpartition(")")[2].split()[0]) != "T":
            assert time.monotonic() < until, stopped
    finally:
        worker.end()


def test_candidate_that_fails_gives_a_reason_and_the_others_continue(candidate):
    peers = {
        "peer": Candidate.from_setup(candidate, fails=True),
        "other": Candidate.from_setup(candidate),
    }
    rows = [Row("open", "s", "ours", peer) for peer in peers]
    meter = Meter(ProcessorTime(), rounds=1, least_seconds=0.0, guarded=False)
    failed, measured = meter.measure({"ours": lambda: None, **peers}, rows)
    assert (failed["ours"], failed["failed"]) == (None, "peer: ended: ValueError: no such file")
    assert (measured["ratio"] > 0, measured["failed"]) == (True, "")


def test_load_of_this_process_includes_its_children():
    machine = ProcessorTime()
    this_process, busy = machine.own(), machine.busy()
    spin = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as child:
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
        child.wait()
    used = machine.own() - this_process
    assert used >= 0.35, "the child's time counts once it has ended"
    assert machine.busy() - busy >= used - 0.1, "and everybody's time includes ours"
    assert machine.cpus == len(os.sched_getaffinity(0))


def test_peak_memory_is_this_process_and_not_what_started_it():
    ballast = b"x" * (400 << 20)
    code = "from benchmarks.worker import peak_gib; print(peak_gib())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 0.35 < peak_gib(), len(ballast)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    bench(["data"], quick=True, out=out)
    return json.loads(out.read_text())


def test_a_quick_run_says_where_and_on_what_it_was_made(quick):
    assert quick["contract"] == "bench"
    assert quick["hardware"]["cpus"] >= 1
    assert {"python", "pandas", "pydicom"} <= set(quick["versions"])
    assert (quick["quick"], quick["seed"], quick["n_images"]) == (True, 0, 4)
    assert quick["images"] == "synthetic chest X-rays, seed 0"
    assert "revision" in quick


def test_a_quick_run_has_every_row(quick):
    names = [" ".join([row["work"], *map(str, row["names"].values())]) for row in quick["rows"]]
    for texts in (
        "pixel store DICOM (pydicom, cv2)",
        "pixel store PNG",
        "pixel store JPEG",
        "augment an epoch at 32 px, 2 boxes an image ours albumentations.Compose",
        "1 processor a loop of pydicom",
        "is_member pandas isin",
        "open it pandas",
    ):
        assert any(texts in name for name in names), texts
    assert not any(row["failed"] for row in quick["rows"])


def test_figures_of_a_quick_run_agree_with_each_other(quick):
    keys = {(row["work"], *row["names"].values()) for row in quick["rows"]}
    assert len(keys) == len(quick["rows"])
    for row in quick["rows"]:
        assert row["group"] == "data"
        assert row["n"] == 1, row["work"]
        low, high = row["ours_range"]
        assert 0 < low <= row["ours"] <= high
        if row["peer"] is not None:
            faster = row["ours"] / row["peer"]
            expected = faster if row["unit"] == "images/s" else 1 / faster
            assert row["ratio"] == pytest.approx(expected)


def test_unknown_groups_and_output_paths_are_refused_before_any_work(tmp_path):
    for groups, options, message in (
        (["speed"], {}, "no group 'speed'; choose from machine"),
        (["data"], {"source": tmp_path / "none"}, "none: no such folder"),
        (["data"], {"data": tmp_path, "source": tmp_path}, "either --data or"),
        (["data"], {"data": tmp_path}, "give a data set folder that cxr prepare made"),
        (["data"], {"out": tmp_path / "no" / "b.json"}, "its folder does not exist"),
        (["data"], {"quick": True, "source": tmp_path}, "no image to measure with"),
    ):
        with pytest.raises(InputError, match=message):
            bench(groups, **options)


def test_command_reports_an_error_in_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
