"""Runs the steps of the study one after the other: resumable, with progress and remaining time."""

from __future__ import annotations

import ctypes
import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from tools.full_size.record import EndedStep, add_step, ended_steps
from tools.full_size.steps import Step

RunCommand = Callable[[Sequence[str], Path], int]
"""Runs the words of a command, writes its output to a file, and returns its exit status."""
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_LOGS = "logs"
_SHOWN = 3  # last lines of the output of a command that failed


def run_words(words: Sequence[str], log: Path) -> int:
    """Run a command as a process that ends if this one ends.

    Args:
        words: ``cxr`` or ``python``, and the arguments.
        log: File to which the output is added.

    Returns:
        The exit status of the command.
    """
    start = [sys.executable, "-P", "-m", "cxr_compare.scripts.cli"]
    if words[0] == "python":
        start = [sys.executable]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*start, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=_end_with_parent,
        )
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise


def run_here(words: Sequence[str], log: Path) -> int:
    """Run a command in this process, which saves the time in which another would start.

    Args:
        words: ``cxr`` or ``python -m MODULE``, and the arguments.
        log: File to which the output is added.

    Returns:
        The exit status of the command.
    """
    name, *arguments = (
        words[2:] if words[0] == "python" else ["cxr_compare.scripts.cli", *words[1:]]
    )
    main = importlib.import_module(name).main
    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        with (
            log.open("a", encoding="utf-8") as output,
            redirect_stdout(output),
            redirect_stderr(output),
        ):
            main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
    return 0


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def remaining_seconds(
    steps: Sequence[Step], predicted: Mapping[str, float], ended: Mapping[str, EndedStep]
) -> float | None:
    """Predict the time of the steps that have not ended.

    The predicted time of a step is multiplied by the ratio of measured to predicted time of the
    ended steps of its kind and system, or else of its kind, or else of all ended steps.

    Args:
        steps: All steps.
        predicted: Seconds of each step by the roofline, by name.
        ended: Steps that ended, by name.

    Returns:
        Seconds; None before the first step has ended.

    Example:
        >>> steps = [Step(name, "train", ("cxr", "train"), "A") for name in ("1", "2", "3")]
        >>> ended = {"1": EndedStep("1", 30.0, "")}
        >>> remaining_seconds(steps, {"1": 10.0, "2": 10.0, "3": 20.0}, ended)
        90.0
    """
    sums: dict[tuple[str, ...], list[float]] = {}
    for step in steps:
        if step.name in ended:
            for key in _keys(step):
                total = sums.setdefault(key, [0.0, 0.0])
                total[0] += ended[step.name].seconds
                total[1] += predicted[step.name]
    if not sums:
        return None
    seconds = 0.0
    for step in steps:
        if step.name not in ended:
            measured, expected = next(sums[key] for key in _keys(step) if key in sums)
            seconds += predicted[step.name] * measured / expected
    return seconds


def _keys(step: Step) -> tuple[tuple[str, ...], ...]:
    """Return the groups of a step, the closest one first."""
    return ((step.kind, step.system), (step.kind,), ())


def run_steps(
    out: Path,
    steps: Sequence[Step],
    predicted: Mapping[str, float],
    *,
    run: RunCommand = run_words,
    say: Callable[[str], object] = print,
) -> None:
    """Run the steps that have not ended, and note each that ends.

    Args:
        out: Folder of results; the output of each command goes to its folder ``logs``.
        steps: All steps, in their order.
        predicted: Seconds of each step by the roofline, by name.
        run: Function that runs a command.
        say: Function that shows a line.

    Raises:
        InputError: A command failed; the message has its log and its last lines.
    """
    ended = ended_steps(out)
    waiting = [step for step in steps if step.name not in ended]
    if ended and waiting:
        say(f"{len(steps) - len(waiting)} of {len(steps)} steps ended before; going on")
    (out / _LOGS).mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(steps, start=1):
        if step.name in ended:
            continue
        say(f"[{number}/{len(steps)}] {_clock()} {step.name}")
        log = out / _LOGS / f"{number:03d}-{step.name.replace(' ', '-').replace(',', '')}.log"
        began = time.perf_counter()
        status = run(step.words, log)
        if status in (130, 143, -signal.SIGINT, -signal.SIGTERM):
            raise KeyboardInterrupt
        if status:
            raise InputError(
                f"{step.name}: failed with status {status}: {_last_lines(log)} (all of it in "
                f"{log}); put that right, and run again: the study goes on with this step"
            )
        seconds = time.perf_counter() - began
        now = datetime.now(UTC).isoformat(timespec="seconds")
        ended[step.name] = EndedStep(step.name, round(seconds, 1), now)
        add_step(out, ended[step.name])
        left = remaining_seconds(steps, predicted, ended) or 0.0
        say(f"    {duration(seconds)}; remaining, predicted: {duration(left)}")


def _last_lines(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_SHOWN:]) or "no output"


def duration(seconds: float) -> str:
    """Return a time as text.

    Example:
        >>> duration(42.2), duration(600), duration(7300)
        ('42 s', '10 min', '2.0 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _clock() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")
