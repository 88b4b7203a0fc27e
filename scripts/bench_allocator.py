"""Benchmark of the settings of malloc that `cxr train` and `cxr predict` apply.

They hold for a whole process, so each side works in one of its own:
``python -m scripts.bench_allocator ASKED``. Both live through all rounds and take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from benchmarks.bench_rows import Row, paired_row, rate
from benchmarks.bench_setting import Setting
from scripts.runtime import choose_device, own_command, tune_cpu

Child = subprocess.Popen[str]

_SIDE, _BATCH = 224, 32
_QUICK = (64, 2)
WORKS = (("inference", "fp32"), ("inference", "bf16"), ("training step", "bf16"))
_NOTE = (
    "malloc: the same code in two processes; ours keeps freed memory for the next batch, as cxr "
    "train and cxr predict do, the peer leaves glibc as it is"
)


def rows(setting: Setting) -> Iterator[Row]:
    """Measure with and without; nothing on CUDA, which has its own allocator."""
    if sys.platform != "linux" or choose_device() == "cuda":
        return
    side, batch = _QUICK if setting.quick else (_SIDE, _BATCH)
    with ExitStack() as opened:
        sides = {
            name: opened.enter_context(_child({"side": side, "batch": batch, "ours": ours}))
            for name, ours in (("ours", True), ("default", False))
        }
        for work, precision in WORKS:
            timings = setting.meter.compare(
                {name: partial(_turn, child, work, precision) for name, child in sides.items()}
            )
            title = (
                f"{work} on cpu in {precision}, DenseNet121, {side} px, batch {batch}: our "
                "settings of malloc against the default"
            )
            yield paired_row(title, timings, "ours", "default", "images/s", rate, _NOTE)


@contextmanager
def _child(asked: dict[str, Any]) -> Iterator[Child]:
    """A process that does one batch of what it is told, each time that it is told."""
    command = own_command("scripts.bench_allocator", json.dumps(asked))
    with subprocess.Popen(  # noqa: S603  our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        yield child
        if child.stdin is not None:
            child.stdin.close()  # its loop ends


def _turn(child: Child, work: str, precision: str) -> float:
    """Pictures that a process did in one turn; the first of a work builds what it needs.

    Raises:
        RuntimeError: The process has ended.
    """
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("Expected pipes to the process that is measured but got none")
    child.stdin.write(json.dumps([work, precision]) + "\n")
    child.stdin.flush()
    answer = child.stdout.readline()
    if not answer:
        raise RuntimeError("Expected an answer of the process that is measured but it has ended")
    return float(answer)


def _build(asked: dict[str, Any], work: str, precision: str) -> Callable[[], float]:
    """One batch of noise through the network that the other rows measure."""
    import torch

    from benchmarks.bench_classification import Size, labelled, scoring, training_step, twins

    size = Size(asked["side"], asked["batch"])
    model, _ = twins(size, 0, "cpu")
    images = torch.randint(256, (size.batch, 1, size.side, size.side), dtype=torch.uint8)
    if work == "inference":
        return scoring(model, images, "cpu", precision)
    return training_step(model, labelled(images, 0), "cpu", precision)


def main() -> None:
    """Do one batch for each line that is read, and say how many pictures that were."""
    asked = json.loads(sys.argv[1])
    tune_cpu(allocator=asked["ours"])
    before, run = "", None
    for line in sys.stdin:
        if run is None or line != before:
            before, run = line, _build(asked, *json.loads(line))
            run()  # warm
        sys.stdout.write(f"{run()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
