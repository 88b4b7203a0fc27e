"""What a calibration brings: training steps under its choice, under none, and under a short spin.

Each set of settings has a process of its own, as `scripts.machines.calibration` says why. The busy
process beside which the second half is measured is this benchmark's own, so it does not count as
noise.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

from benchmarks.bench import Row, Setting
from benchmarks.worker import Run
from data_prep.contracts.errors import InputError
from data_prep.contracts.workers import cpu_count
from scripts.machines.calibration import (
    Choice,
    ProcessorTime,
    TimingProcess,
    calibrate,
    computes_bf16,
)

_NETWORKS = ("RetinaNet", "CheXNet")  # about the size that the quickstart trains
_BATCH, _SIDE, _STEPS = 8, 128, 2  # images, px, steps an answer
_ALONE, _OLD, _NEW = "left alone", "a spin of 1,000", "calibrated"
_THERE, _PAIR = "calibrated there", "two side by side, half the threads each"
_BUSY = "beside a busy process"
_PATIENCE = 300.0  # s, for a step


def calibration_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Measure training steps on a machine that is quiet but for others, then beside a busy process.

    Beside it a second calibration is made, as a training that began there would make one.
    """
    quiet, old = _choice(), Choice(spin=1_000, keep_memory=True)
    half = replace(quiet, threads=max(1, cpu_count() // 2))
    with ExitStack() as stack:
        runs = {
            _ALONE: _started(Choice(), stack),
            _OLD: _started(old, stack),
            _NEW: _started(quiet, stack),
            _PAIR: _started(half, stack, number=2),
        }
        pairs = [(_NEW, _ALONE), (_NEW, _OLD), (_PAIR, _NEW)]
        yield from _measured(setting, runs, pairs, "quiet", str(quiet), rounds=5)
        with _busy_process():
            there = _choice()
            runs[_THERE] = _started(there, stack)
            pairs = [(_NEW, _ALONE), (_THERE, _ALONE), (_THERE, _OLD), (_PAIR, _THERE)]
            yield from _measured(setting, runs, pairs, _BUSY, str(there), rounds=3)


def _measured(
    setting: Setting,
    runs: dict[str, Callable[[str], float]],
    pairs: list[tuple[str, str]],
    where: str,
    choice: str,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    for network in _NETWORKS:
        rows = [
            Row(
                f"{network}, training, {where}",
                "images/s",
                ours,
                peer,
                note=f"calibrated {where}: {choice}",
            )
            for ours, peer in pairs
        ]
        steps: dict[str, Run] = {name: partial(run, network) for name, run in runs.items()}
        yield from setting.meter.measure(steps, rows, most=rounds)


def _choice() -> Choice:
    found = calibrate(ProcessorTime())
    if found is None:
        raise InputError("benchmarks calibration: this machine is too slow or too busy for it")
    return found.choice


def _started(choice: Choice, stack: ExitStack, number: int = 1) -> Callable[[str], float]:
    """Processes that train side by side; a run of them returns how many images that took."""
    children = []
    for _ in range(number):
        child = TimingProcess(choice.spin, choice.keep_memory, "benchmarks.bench_calibration")
        stack.callback(child.end)
        children.append(child)
    precision = choice.precision or ("bf16" if computes_bf16() else "fp32")

    def run(network: str) -> float:
        for child in children:
            child.order(choice.threads, precision, network)
        for child in children:
            child.answer(_PATIENCE)
        return float(_BATCH * _STEPS * number)

    return run


@contextmanager
def _busy_process() -> Iterator[None]:
    code = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as child:  # noqa: S603  our own code
        try:
            yield
        finally:
            child.kill()


@cache
def _training(network: str, precision: str) -> Callable[[], object]:
    """Some training steps of a network."""
    import torch

    from benchmarks import bench_models as models

    seed = torch.Generator().manual_seed(0)
    images = torch.randint(256, (_BATCH, 1, _SIDE, _SIDE), dtype=torch.uint8, generator=seed)
    if network == "RetinaNet":
        detector = models.detector_twins(models.Size(_SIDE, _BATCH, "resnet18", 64), 0, "cpu")[0]
        step = models.detector_step(detector, models.boxed(images, 0), "cpu", precision)
    else:
        classifier = models.classifier_twins(models.Size(_SIDE, _BATCH), 0, "cpu")[0]
        step = models.classifier_step(classifier, models.labelled(images, 0), "cpu", precision)

    def steps() -> None:
        for _ in range(_STEPS):
            step()

    return steps


BLOCKS = {"calibration": (calibration_rows,)}

if __name__ == "__main__":
    from scripts.machines.calibration_step import serve

    serve(_training, most=1)
