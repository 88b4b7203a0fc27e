"""The `cxr` command: one verb a module, each imported with nothing heavy."""

from __future__ import annotations

import errno
import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

import cxr_compare
from cxr_start import require_own_rooms
from data_prep.contracts.addresses import addresses_in
from data_prep.contracts.errors import InputError
from scripts.console import emit, say

_INTERRUPTED, _TERMINATED = 130, 143
# A full disk or a forbidden file, wherever met, is the machine's doing and not our bug.
_MACHINE_REFUSES = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


def _refuse_intruders() -> None:
    """Check that the rooms are this project's own: their names are common words."""
    try:
        require_own_rooms()
    except ImportError as error:
        raise InputError(str(error)) from None


def _show_version(asked: bool) -> None:
    """Say what runs, by what is installed: nothing heavy is imported for it."""
    if not asked:
        return
    versions = [f"cxr-compare {cxr_compare.__version__}", f"Python {platform.python_version()}"]
    for package in ("torch", "torchvision"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} is not installed")
    emit(", ".join(versions))
    raise typer.Exit


def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions of cxr-compare, Python and torch.",
            callback=_show_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Detector or classifier: which finds the disease better on your chest X-rays, and how sure?

    Research use only, not a medical device.
    """


class _Program(TyperGroup):
    """The group of verbs; typer's own flags are off, as none of them is left to be checked.

    It would import pydantic to check them, which takes a third of the time of a verb's help.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        for param in params:
            if param.default is None and getattr(param, "is_flag", False):
                param.default = False
        return params


def build_app() -> typer.Typer:
    """Assemble the verbs; each module imports heavy libraries inside its function only."""
    from scripts import (
        check,
        compare,
        configs,
        curve,
        ensemble,
        export,
        import_predictions,
        overlay,
        pacs,
        plan,
        predict,
        prepare,
        readers,
        serve,
        show,
        split,
        sweep,
        synth,
        train,
        transfer,
        tune,
    )
    from scripts import compare as folds

    app = typer.Typer(
        name="cxr",
        cls=_Program,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich alone takes 0.2 s to import
    )
    app.callback()(_program)
    app.command("synth")(synth.synth)
    app.command("prepare")(prepare.prepare)
    app.command("check")(check.check)
    app.command("split")(split.split)
    app.command("configs")(configs.configs)
    app.command("train")(train.train)
    app.command("sweep")(sweep.sweep)
    app.command("curve")(curve.curve)
    app.command("predict")(predict.predict)
    app.command("import")(import_predictions.import_predictions)
    app.command("ensemble")(ensemble.ensemble)
    app.command("tune")(tune.tune)
    app.command("compare")(compare.compare)
    app.command("folds")(folds.folds)
    app.command("readers")(readers.readers)
    app.command("transfer")(transfer.transfer)
    app.command("plan")(plan.plan)
    app.command("overlay")(overlay.overlay)
    app.command("pacs")(pacs.pacs)
    app.command("export")(export.export)
    app.command("serve")(serve.serve)
    app.command("show")(show.show)
    return app


def _usage_line(error: TyperException) -> str:
    """A wrong option or argument as one line that says where help is."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    verb = context.command_path if context else "cxr"
    return " ".join(f"{message} See '{verb} --help'.".split())


def _with_advice(error: InputError) -> str:
    """The message; of a folder that cxr did not write also which download it looks like."""
    from data_prep.store.folder_kinds import WrongFolderError

    if isinstance(error, WrongFolderError) and error.foreign:
        from data_prep.formats.registry import unprepared

        if raw := unprepared(error.folder):
            return f"{error.folder}: {raw}"
    return str(error)


class _Termination:
    """Lets SIGTERM end the program as Ctrl-C does: what is being written is cleaned up first."""

    def __init__(self) -> None:
        self.asked = False
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked loader or pool ends at once, without a word
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.asked = True
        raise KeyboardInterrupt


def main() -> None:
    """Run `cxr`: exit 0 done, 1 a problem found, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    termination = _Termination()
    before = signal.signal(signal.SIGTERM, termination)
    try:
        _run()
    except (KeyboardInterrupt, typer.Abort) as stopped:
        if (bug := _bug_behind(stopped)) is not None and not termination.asked:
            raise bug from None
        word = "ended by SIGTERM" if termination.asked else "interrupted"
        say(f"cxr: {word}; run the same command again to go on")
        sys.exit(_TERMINATED if termination.asked else _INTERRUPTED)
    except SystemExit as exit_:
        # Processes that share a training were interrupted in its place, and have said so.
        if exit_.code == _INTERRUPTED and termination.asked:
            sys.exit(_TERMINATED)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _bug_behind(stopped: BaseException) -> EOFError | None:
    """What ended the program if nobody did: typer takes any end of a file for Ctrl-C."""
    ended = stopped.__cause__
    if not isinstance(ended, EOFError) or isinstance(ended.__context__, KeyboardInterrupt):
        return None  # the second came of cleaning up after Ctrl-C
    return ended


@contextmanager
def _local_words(words: list[str]) -> Iterator[list[str]]:
    """The command line with local folders for what lies in object stores; these cost nothing."""
    if not any(map(addresses_in, words)):
        yield words
        return
    from data_prep.contracts.mirror import remote_folders

    with remote_folders(words, say) as local:
        yield local


def _run() -> None:
    try:
        _refuse_intruders()
        with _local_words(sys.argv[1:]) as words:
            # Not standalone: usage errors, too, become one line.
            status = build_app()(words, standalone_mode=False) or 0
        if status == _INTERRUPTED:  # typer turns Ctrl-C into this code, and says nothing
            raise KeyboardInterrupt
        sys.exit(status)
    except InputError as error:
        say("cxr: " + " ".join(_with_advice(error).split("\n")))
        sys.exit(2)
    except TyperException as error:
        say("cxr: " + _usage_line(error))
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        if error.errno not in _MACHINE_REFUSES:
            raise
        say(f"cxr: {error.filename or 'writing'}: {error.strerror}; put that right and run again")
        sys.exit(2)


if __name__ == "__main__":
    main()
