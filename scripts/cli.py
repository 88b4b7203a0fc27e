"""`cxr`: each command is a function whose signature and docstring cyclopts reads."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Group, Parameter, Token

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import disk_errors
from cxr_compare.scripts.console import emit, emit_json, say

COMMANDS = {
    "synth": "Draw synthetic chest X-rays with known lesions.",
    "prepare": "Make a data set of images and labels.",
    "check": "Search a data set, or a published split, for leaks and faults.",
    "split": "Add a split by patient to a data set.",
    "configs": "Print the names of the configurations, or one of them.",
    "train": "Train a detector or a classifier.",
    "predict": "Answer for images, or predict a data set.",
    "compare": "Compare systems on the same images.",
    "folds": "Join the reports of the folds of a cross-validation into one table.",
    "overlay": "Draw predictions over chosen images.",
    "verify": "Compute a report again from its folder, and say what differs.",
    "show": "Say what a folder is; print a report.",
    "export": "Write a run as ONNX, or a data set as COCO or YOLO.",
    "serve": "Serve runs to browsers and programs.",
    "readers": "Compare a system with the readers of a study.",
    "explain": "Say which average precision a published number is.",
    "plan": "Say how many patients a comparison needs.",
}
"""Commands with their first sentence, so that the list of them loads none."""
_HOMES = {"compare": "cxr_compare.scripts.comparison"}
_BAD_INPUT, _BUG, _INTERRUPTED, _NOBODY_READS = 2, 3, 130, 141
_WHOLE = re.compile(r"[+-]?\d+")


def home_of(command: str) -> str:
    """Return the module of a command."""
    return _HOMES.get(command, f"cxr_compare.scripts.commands.{command}")


def _versions() -> str:
    names = ("cxr-compare", "torch", "torchvision")
    known = [f"Python {platform.python_version()}"]
    for name in names:
        try:
            known.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            known.append(f"{name} is not installed")
    return ", ".join(known)


def _read_value(wanted: Any, tokens: Sequence[Token]) -> Any:
    """Read words as cyclopts does, but round no number and take no nan."""
    value = cyclopts.convert(wanted, tokens)
    numbers = value if isinstance(value, list) else [value]
    for number, token in zip(numbers, tokens, strict=False):
        is_whole = isinstance(number, int) and not isinstance(number, bool)
        if is_whole and not _WHOLE.fullmatch(token.value.strip()):
            raise ValueError(f"'{token.value}' is no whole number")
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"'{token.value}' is no number")
    return value


def build_app(called: str = "") -> App:
    """Build the application; only the command `called` is described in full."""
    app = App(
        name="cxr",
        help="Detector or classifier: which finds the disease better on your chest X-rays, and "
        "how sure?\n\nResearch use only, not a medical device.",
        version=_versions,
        help_format="markdown",
        default_parameter=Parameter(negative=(), converter=_read_value),
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    app["--help"].group = app["--version"].group = Group("Options")
    for place, (name, line) in enumerate(COMMANDS.items()):
        shown = {} if name == called else {"help": line}
        app.command(f"{home_of(name)}:{name}", name=name, sort_key=place, **shown)
    app.meta.default(partial(_run, app))
    app.meta.suppress_keyboard_interrupt = False  # else it ends without a word
    return app


def _run(
    app: App,
    /,
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    as_json: Annotated[bool, Parameter("--json", negative=())] = False,
) -> int:
    """Run a command, and print its result.

    Args:
        as_json: Print the result as JSON, alone on stdout.
    """
    result: Any = app(words, result_action="return_value")
    if as_json:
        emit_json(result)
    elif result is not None:
        emit(str(result))
    return int(getattr(result, "exit_status", 0))


def _usage_line(error: cyclopts.CycloptsError) -> str:
    program = " ".join(["cxr", *(error.command_chain or ())])
    text = " ".join(str(error).split())
    if isinstance(error, cyclopts.UnknownCommandError):
        text = text.partition(" Available commands:")[0]
    return f"{text} See: {program} --help"


def main() -> None:
    """Run the command line; exit with 2 for bad input, 3 for a fault of ours, 130 for Ctrl-C."""
    try:
        words = sys.argv[1:] or ["--help"]
        app = build_app(next((word for word in words if word in COMMANDS), ""))
        with disk_errors(Path("/dev/stdout")):
            status = app.meta(words, result_action="return_value") or 0
            sys.stdout.flush()
    except InputError as error:
        say("cxr: " + " ".join(str(error).split()))
        status = _BAD_INPUT
    except cyclopts.CycloptsError as error:
        say("cxr: " + _usage_line(error))
        status = _BAD_INPUT
    except KeyboardInterrupt:
        say("cxr: interrupted; the same command goes on")
        status = _INTERRUPTED
    except BrokenPipeError:
        # Python writes what is left of it when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _NOBODY_READS
    except Exception:  # noqa: BLE001 - the last place that can say it
        traceback.print_exc()
        status = _BUG
    sys.exit(status)


if __name__ == "__main__":
    main()
