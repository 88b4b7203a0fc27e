"""Work that this program and others do in turns, and the rows of Markdown that say how fast."""

import contextlib
import io
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

MOST_TURNS = 7
FEWEST_TURNS = 3
HEADER = """\
| work | beside | cxr-compare | other program | ratio of a turn | outputs |
|---|---|---|---|---|---|"""


class Work(NamedTuple):
    """A piece of work, done by this program and by others.

    Attributes:
        others: What others do, by the name of their program.
        check: Raises if our output and that of another differ; None where they do not do the same.
        outputs: What `check` shows.
        images: Number of images, where time is stated for one of them.
    """

    name: str
    ours: Callable[[], object]
    others: Mapping[str, Callable[[], object]]
    check: Callable[[Any, Any], None] | None = None
    images: int | None = None
    outputs: str = "equal"


def rows(work: Work, seconds: float = 40.0) -> Iterator[str]:
    """Yield a row for each other program; no turn begins after some seconds and three turns.

    The first turn, which loads what later ones have, is not counted. The ratio is formed within a
    turn, so that a machine that changes its speed changes both.
    """
    sides = {"": work.ours, **work.others}
    outputs = {name: _timed(side)[1] for name, side in sides.items()}
    if work.check is not None:
        for name in work.others:
            work.check(outputs[""], outputs[name])
    turns: list[dict[str, float]] = []
    begun = time.perf_counter()
    while len(turns) < FEWEST_TURNS or (
        len(turns) < MOST_TURNS and time.perf_counter() - begun < seconds
    ):
        order = list(sides) if len(turns) % 2 else list(sides)[::-1]
        turns.append({name: _timed(sides[name])[0] for name in order})
    ours = [turn[""] for turn in turns]
    for name in work.others:
        other = [turn[name] for turn in turns]
        ratios = [b / a for a, b in zip(ours, other, strict=True)]
        times = " | ".join(as_time(statistics.median(s), work.images) for s in (ours, other))
        outcome = "other work" if work.check is None else work.outputs
        yield f"| {work.name} | {name} | {times} | {spread(ratios)} | {outcome} |"


def as_time(seconds: float, images: int | None = None) -> str:
    """Return seconds, or milliseconds of an image, in three digits.

    Examples:
        >>> as_time(0.13149), as_time(12.3, 1000)
        ('0.131 s', '12.3 ms an image')
    """
    value, unit = (seconds, "s") if images is None else (1000 * seconds / images, "ms an image")
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:,.{digits}f} {unit}"


def spread(ratios: list[float]) -> str:
    """Return the median with the lowest and the highest ratio and their number.

    Examples:
        >>> spread([1.0, 3.0, 2.0])
        '2.00 (1.00 to 3.00 in 3 turns)'
    """
    ends = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} turns"
    return f"{statistics.median(ratios):.2f} ({ends})"


def _timed(side: Callable[[], object]) -> tuple[float, object]:
    with contextlib.redirect_stdout(io.StringIO()):  # programs for COCO print
        begun = time.perf_counter()
        output = side()
        return time.perf_counter() - begun, output


def use_one_core() -> None:
    """Let all libraries of this process, and the threads that they start, share one core."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def machine() -> str:
    """Name the processor, and the versions that the times depend on."""
    about = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", about.read_text()) if about.exists() else []
    name = models[0] if models else platform.processor() or platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores; torch {metadata.version('torch')}, "
        f"Python {platform.python_version()}"
    )
