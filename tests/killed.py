"""Calls of `cxr_compare` in a process that is killed on the way, as where the power is cut."""

import itertools
import multiprocessing
import os
import signal
from pathlib import Path

import PIL.Image

import cxr_compare

_STEPS = {"read": (PIL.Image, "open"), "commit": (os, "fsync"), "rename": (os, "replace")}


def killed_at(step: tuple[str, int] | Path, call: str, *arguments, **options) -> None:
    """Call a function that dies at the n-th step of a kind, or before a file gets its name."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_call_and_die, args=(step, call, arguments, options))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _call_and_die(step, call, arguments, options):
    kind, number = ("rename", None) if isinstance(step, Path) else step
    owner, name = _STEPS[kind]
    real, numbers = getattr(owner, name), itertools.count(1)

    def die_or_go_on(*given, **further):
        if next(numbers) == number or (number is None and Path(given[1]) == step):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **further)

    setattr(owner, name, die_or_go_on)
    getattr(cxr_compare, call)(*arguments, **options)
