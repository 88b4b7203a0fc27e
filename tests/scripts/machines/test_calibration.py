"""The calibration of a machine: nothing is changed without a clear gain, nothing breaks for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.contracts.errors import InputError
from scripts.machines import calibration, calibration_step
from scripts.machines.calibration import (
    SWITCH,
    Calibration,
    Candidate,
    Choice,
    ProcessorTime,
    Timer,
    Work,
    calibrate,
    choose,
    describe_machine,
    plan,
    settle,
    stored,
)
from scripts.show import show

ALONE = Candidate(None, None, False, "bf16")
KEPT = ALONE._replace(keep_memory=True)
ONE_THREAD = KEPT._replace(threads=1)
SHORT_SPIN = KEPT._replace(spin=1_000)
EXACT = KEPT._replace(precision="fp32")
PLAN = plan(2, bf16=True)
FOUND = Calibration(Choice(2, 1_000, True, "bf16"), [{"ms": 1.0}], 1.0, "2026-01-01T00:00:00+00:00")


class Clock(ProcessorTime):
    """Clocks that only move when a test moves them."""

    def __init__(self, others: float = 0.0) -> None:
        self.cpus, self.time, self.others = 2, 0.0, others

    def now(self) -> float:
        return self.time

    def busy(self) -> float | None:
        return self.time * (1 + self.others * self.cpus)

    def own(self) -> float:
        return self.time


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine of two processors with bf16, where calibration is on and the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in (SWITCH, "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # what a test sets by itself is undone after it
        del os.environ[name]
    monkeypatch.setattr(calibration, "cpu_count", lambda: 2)
    monkeypatch.setattr(calibration, "processor_name", lambda: "Processor A")
    monkeypatch.setattr(calibration, "computes_bf16", lambda: True)
    return tmp_path / "cxr-compare" / "machine.json"


def steps(
    speed: Mapping[tuple[Candidate, Work], float],
    noise: float = 0.0,
    rounds: int = 8,
    seed: int = 0,
) -> dict[tuple[Candidate, Work], list[float]]:
    """Times of a machine whose candidates take 1 s over their speed, times lognormal noise."""
    rng = np.random.default_rng(seed)
    return {
        each: list(np.exp(rng.normal(0, noise, rounds)) / speed.get(each, 1.0)) for each in PLAN
    }


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        pytest.param({}, Choice(None, None, False, "bf16"), id="all alike: left alone"),
        pytest.param(
            {(SHORT_SPIN, "step"): 1.03}, Choice(None, None, False, "bf16"), id="a small gain"
        ),
        pytest.param({(SHORT_SPIN, "step"): 1.3}, Choice(None, 1_000, False, "bf16"), id="spin"),
        pytest.param(
            {(SHORT_SPIN, "step"): 0.5}, Choice(None, None, False, "bf16"), id="a spin that halves"
        ),
        pytest.param(
            {(ONE_THREAD, "step"): 2.0, (SHORT_SPIN, "step"): 1.5},
            Choice(1, None, False, "bf16"),
            id="the better of two",
        ),
        pytest.param(
            {(ONE_THREAD, "step"): 2.0, (ONE_THREAD, "large"): 0.6},
            Choice(None, None, False, "bf16"),
            id="fewer threads that large images would pay for",
        ),
        pytest.param(
            {(KEPT, "large"): 2.0, (ONE_THREAD, "large"): 2.0},
            Choice(None, None, True, "bf16"),
            id="memory",
        ),
        pytest.param(
            {(KEPT, "large"): 2.0, (ONE_THREAD, "large"): 2.0}
            | {(each, "step"): 0.8 for each, work in PLAN if each.keep_memory},
            Choice(None, None, False, "bf16"),
            id="memory that small images would pay for",
        ),
        pytest.param({(EXACT, "step"): 1.2}, Choice(None, None, False, "fp32"), id="precision"),
    ],
)
def test_settings_are_replaced_only_for_a_clear_gain(
    speed: dict[tuple[Candidate, Work], float], expected: Choice
) -> None:
    assert choose(steps(speed)) == expected


def test_noise_alone_changes_nothing() -> None:
    changed = sum(
        choose(steps({}, noise, rounds, seed)) != Choice(None, None, False, "bf16")
        for noise in (0.02, 0.1, 0.3)
        for rounds in (4, 6, 8)
        for seed in range(100)
    )
    assert changed <= 45  # of 900, of six candidates each


def test_threads_are_halved_down_to_one() -> None:
    assert {c.threads for c, _ in plan(48, bf16=False)} == {None, 24, 12, 6, 3, 1}
    assert not any(c.spin for c, _ in plan(1, bf16=False))  # one thread has nobody to wait for


def timing(
    clock: Clock, seconds: Callable[[Candidate, Work], float]
) -> Callable[[], contextmanager[Timer]]:
    @contextmanager
    def opened() -> Iterator[Timer]:
        def timer(candidate: Candidate, work: Work) -> float:
            taken = seconds(candidate, work)
            clock.time += taken
            return taken

        yield timer

    return opened


def test_hopeless_candidates_are_timed_no_further(machine: Path) -> None:
    clock, seen = Clock(), []

    def seconds(candidate: Candidate, work: Work) -> float:
        seen.append(candidate)
        return 0.5 if candidate.spin else 0.05

    found = calibrate(clock, timing(clock, seconds))
    assert found
    assert seen.count(SHORT_SPIN) == 2
    assert seen.count(ALONE) == 2 * 10
    assert found.choice == Choice(None, None, False, "bf16")
    assert found.seconds == pytest.approx(clock.time, abs=0.1)


def test_a_calibration_that_takes_too_long_leaves_all_alone(machine: Path) -> None:
    clock = Clock()

    def seconds(candidate: Candidate, work: Work) -> float:
        if clock.time > 60:
            raise TimeoutError
        return 1.0

    found = calibrate(clock, timing(clock, seconds))
    assert found  # three rounds in time are enough
    clock.time = 40.0
    assert calibrate(clock, timing(clock, seconds)) is None


@pytest.mark.parametrize(("others", "kept"), [(0.02, True), (0.6, False)])
def test_what_other_programs_disturbed_is_used_once_and_not_kept(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    others: float,
    kept: bool,
) -> None:
    clock = Clock(others)

    def seconds(candidate: Candidate, work: Work) -> float:
        return 0.05 if candidate.threads == 1 else 0.1

    monkeypatch.setattr(calibration, "ProcessorTime", lambda: clock)
    monkeypatch.setattr(calibration, "_processes", timing(clock, seconds))
    choice, origin = settle(worth=True)
    assert choice == Choice(1, None, False, "bf16")
    assert machine.exists() is kept
    told = capsys.readouterr().err
    assert "s: 1 thread, spin left alone, memory left alone, bf16" in told
    assert ("for this time only, since other programs used 60% of" in told) is not kept
    # A second call, and a process that this one starts, find the same.
    monkeypatch.setattr(calibration, "_processes", None)
    assert settle(worth=True)[0] == choice
    assert origin.startswith("calibration of 20" if kept else "calibration, not kept")
    facts = describe_machine(anew=False)
    assert ("choice" in facts) is kept
    if kept:
        assert len(facts["table"]) == len(PLAN)
        assert "other programs used 2% of the processors" in facts["calibration"]


@pytest.mark.parametrize("own", ["OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_nothing_is_measured_where_the_user_has_decided_or_the_work_is_short(
    monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    monkeypatch.setattr(calibration, "_processes", None)  # cannot be called
    assert settle(worth=False) == (Choice(), "left alone")
    monkeypatch.setenv(own, "4")
    assert settle(worth=True) == (Choice(), "left alone")
    assert calibration.keep(FOUND)
    monkeypatch.setenv(SWITCH, "off")
    assert settle(worth=True) == (Choice(), "left alone")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("cpu_count", lambda: 4),
        ("processor_name", lambda: "Processor B"),
        ("_VERSION", -1),
        ("metadata", type("Packages", (), {"version": staticmethod(lambda name: "9.9")})),
    ],
)
def test_another_machine_is_measured_anew_and_forgets_none(
    monkeypatch: pytest.MonkeyPatch, name: str, other: object
) -> None:
    assert calibration.keep(FOUND)
    assert stored() == FOUND
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(calibration, name, other)
        assert stored() is None
        assert calibration.keep(Calibration(Choice(1)))
    assert stored() == FOUND


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"machines": 3}',
        '{"machines": {"KEY": 3}}',
        '{"machines": {"KEY": {"choice": {"threads": -1}}}}',
        '{"machines": {"KEY": {"choice": {"spin": "fast"}}}}',
        '{"machines": {"KEY": {"choice": {"colour": 1}}}}',
    ],
)
def test_a_broken_cache_is_said_left_out_and_replaced(
    machine: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    machine.parent.mkdir()
    machine.write_text(content.replace("KEY", calibration.machine_key()))
    assert settle(worth=False) == (Choice(), "left alone")
    assert capsys.readouterr().err.startswith(f"{machine}: left out, since it cannot be read (")
    assert calibration.keep(FOUND) == machine
    assert stored() == FOUND


def test_a_cache_that_cannot_be_written_is_said_and_is_no_failure(
    machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.parent.write_text("a file where the folder should be")
    assert calibration.keep(FOUND) is None
    told = capsys.readouterr().err
    assert told.startswith(f"{machine}: not written (")
    assert told.count("\n") == 1

    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/not/allowed")
    monkeypatch.setattr(Path, "home", homeless)
    assert calibration.keep(FOUND) is None
    assert stored() is None


def test_a_parent_process_hands_its_choice_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, json.dumps(asdict(FOUND.choice)))
    assert settle(worth=True) == (FOUND.choice, "calibration, not kept")
    monkeypatch.setenv(SWITCH, "no")
    with pytest.raises(InputError, match="CXR_CALIBRATION=no: set it to 'off'"):
        settle(worth=True)


def test_the_process_that_times_answers_each_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order = {"threads": 1, "precision": "fp32", "work": "step"}
    orders = [order, order, order | {"work": "large", "threads": None}]
    monkeypatch.setattr("sys.stdin", StringIO("".join(json.dumps(each) + "\n" for each in orders)))
    monkeypatch.setattr("sys.argv", ["calibration_step"])
    monkeypatch.setattr(calibration_step, "_LARGE", (1, 8, 16, 16))
    before = torch.get_num_threads()
    try:
        calibration_step.serve()
        assert torch.get_num_threads() == before  # None: what torch does by itself
    finally:
        torch.set_num_threads(before)
    assert [float(line) > 0 for line in capsys.readouterr().out.split()] == [True] * 3


def test_show_machine_tells_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    show(machine=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["calibration"].startswith("none: a long training")
    row = {"ms": 31.25, "ratio": 1.5, "work": "step", "settings": "1 thread"}
    assert calibration.keep(replace(FOUND, table=[row]))
    show(machine=True, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["table"] == [row]
    assert (facts["processor"], facts["usable processors"]) == ("Processor A", 2)
    show(machine=True)
    told = capsys.readouterr().err
    assert "2 threads, spin 1,000, freed memory kept, bf16" in told
    assert "31.2 ms   1.50x  step   1 thread\n" in told
    for wrong in (
        {},
        {"folder": Path("x"), "machine": True},
        {"folder": Path("x"), "calibrate": True},
    ):
        with pytest.raises(InputError, match="show: give a folder, or --machine"):
            show(**wrong)


@pytest.mark.long
def test_a_real_calibration_ends_and_leaves_no_process_behind() -> None:
    found = calibrate(ProcessorTime())
    assert found is None or found.table
    with calibration._processes() as timer:
        assert timer(KEPT, "large") > 0
        with pytest.raises(OSError, match="ended"):
            timer(KEPT, "unheard of")  # type: ignore[arg-type]
