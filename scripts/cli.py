"""`cxr`: each command is a function whose signature and docstring cyclopts reads."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Group, Parameter, Token

from cxr_compare.commands.console import emit, emit_json, say
from cxr_compare.data_prep.base.errors import InputError, in_shell, on_command_line
from cxr_compare.data_prep.base.files import disk_errors


@dataclass(frozen=True)
class Command:
    """Help of a command: its first sentence, its arguments, and an example."""

    line: str
    arguments: str
    example: str


COMMANDS = {
    "prepare": Command(
        "Make a data set of images and labels.",
        "[LABELS...] IMAGES OUT",
        "cxr prepare labels.csv images out/data",
    ),
    "train": Command(
        "Train a detector or a classifier.",
        "CONFIG --data DATA --out OUT",
        "cxr train retinanet_small --data out/data --out out/retinanet",
    ),
    "compare": Command(
        "Compare systems on the same images.",
        "SYSTEMS...",
        "cxr compare RetinaNet=out/retinanet CheXNet=out/chexnet --both \\\n"
        "    --data out/data --out out/report",
    ),
    "overlay": Command(
        "Draw predictions over chosen images.",
        "SYSTEMS... --out OUT",
        "cxr overlay RetinaNet=out/retinanet CheXNet=out/chexnet \\\n"
        "    --data out/data --out out/overlays",
    ),
    "predict": Command(
        "Answer for images, or predict a data set.",
        "RUNS... [IMAGES...]",
        "cxr predict out/retinanet out/chexnet new-images \\\n    --out out/new --csv out/new.csv",
    ),
    "synth": Command(
        "Draw synthetic chest X-rays with known lesions.",
        "OUT",
        "cxr synth xrays --images 60 --size 128",
    ),
    "check": Command(
        "Search a data set for leaks and faults.",
        "DATA",
        "cxr check out/data",
    ),
    "split": Command(
        "Add a split by patient to a data set.",
        "DATA --name NAME",
        "cxr split out/data --name cv --folds 5",
    ),
    "configs": Command(
        "Print the names of the configurations, or one of them.",
        "[NAME]",
        "cxr configs retinanet_small",
    ),
    "folds": Command(
        "Join the reports of the folds of a cross-validation into one table.",
        "REPORTS... --out OUT",
        "cxr folds out/report-0 out/report-1 out/report-2 --out out/folds",
    ),
    "show": Command(
        "Say what a folder is; print a report.",
        "FOLDER",
        "cxr show out/report",
    ),
    "export": Command(
        "Write a run as ONNX, or a data set as COCO or YOLO.",
        "SOURCE OUT --format FORMAT",
        "cxr export out/retinanet out/retinanet-onnx --format onnx",
    ),
    "serve": Command(
        "Serve runs to browsers and programs.",
        "RUNS...",
        "cxr serve out/retinanet out/chexnet",
    ),
}
"""The help of each command, so that the list of them loads none."""
_OF_README = ("prepare", "train", "compare", "overlay", "predict")
"""Commands of the whole way, which the list has first."""
VALUES = {"STR": "TEXT", "INT": "NUMBER", "FLOAT": "NUMBER"}
"""Words of the help for a value, by the name of its type in Python."""
_BAD_INPUT, _BUG, _INTERRUPTED, _NOBODY_READS = 2, 3, 130, 141
_WHOLE = re.compile(r"[+-]?\d+")


def home_of(command: str) -> str:
    """Return the module of a command."""
    return f"cxr_compare.commands.{command}"


def _versions() -> str:
    names = ("cxr-compare", "torch", "torchvision")
    versions = [f"Python {platform.python_version()}"]
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} is not installed")
    return ", ".join(versions)


def _read_value(kind: Any, tokens: Sequence[Token]) -> Any:
    """Read words as cyclopts does, but round no number and take no nan."""
    value = cyclopts.convert(kind, tokens)
    numbers = value if isinstance(value, list) else [value]
    for number, token in zip(numbers, tokens, strict=False):
        is_whole = isinstance(number, int) and not isinstance(number, bool)
        if is_whole and not _WHOLE.fullmatch(token.value.strip()):
            raise ValueError(f"'{token.value}' is no whole number")
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"'{token.value}' is no number")
    return value


def _shown_default(value: Any) -> str | None:
    """Return a default as the help shows it; nothing for a flag, or where there is none."""
    return None if value is None or value is False else str(value)


def _value_word(metavar: str | None) -> str | None:
    """Return the word for a value in place of its type in Python."""
    return None if metavar is None else re.sub(r"\w+", lambda m: VALUES.get(m[0], m[0]), metavar)


def _show_panel(console: Any, options: Any, panel: Any) -> None:
    """Print a part of the help as cyclopts does, without words of Python."""
    from cyclopts.help.formatters import DefaultFormatter

    entries = [entry.copy(metavar=_value_word(entry.metavar)) for entry in panel.entries]
    DefaultFormatter()(console, options, panel.copy(entries=entries))


def build_command_line(called: str = "") -> App:
    """Build the application; only the command `called` is described in full."""
    app = App(
        name="cxr",
        help="Detector or classifier: which finds the disease better on your chest X-rays, and "
        "how sure?\n\nResearch use only, not a medical device.",
        usage="Usage: cxr COMMAND [OPTIONS]",
        version=_versions,
        help_format="markdown",
        help_formatter=_show_panel,
        default_parameter=Parameter(
            negative=(), converter=_read_value, show_default=_shown_default
        ),
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    app["--help"].group = app["--version"].group = Group("Options")
    for position, (name, command) in enumerate(COMMANDS.items()):
        texts = (
            {
                "usage": f"Usage: cxr {name} {command.arguments} [OPTIONS]",
                "help_epilogue": f"Example:\n```\n{command.example}\n```",
            }
            if name == called
            else {"help": command.line}
        )
        group = "Commands" if name in _OF_README else "Further commands"
        app.command(f"{home_of(name)}:{name}", name=name, group=group, sort_key=position, **texts)
    app.meta.default(partial(_run, app))
    app.meta.suppress_keyboard_interrupt = False  # else it ends without a word
    return app


def _run(
    app: App,
    /,
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    as_json: Annotated[
        bool, Parameter("--json", negative=(), show_default=False, group="Options")
    ] = False,
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
        app = build_command_line(next((word for word in words if word in COMMANDS), ""))
        with on_command_line(), disk_errors(Path("/dev/stdout")):
            status = app.meta(words, result_action="return_value") or 0
            sys.stdout.flush()
    except InputError as error:
        if "--json" in sys.argv:
            emit_json(error)
        for number, line in enumerate(error.lines(in_shell)):
            say(("" if number else "cxr: ") + line)
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
