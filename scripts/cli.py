"""The `cxr` command. Options, arguments and help of each command follow from its function."""

from __future__ import annotations

import inspect
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import cyclopts
from cyclopts import App, CycloptsError, Group

from cxr_compare.data_prep.contracts.disk_space import disk_errors
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.command_list import (
    MAIN_OPTIONS,
    all_commands,
    command_function,
    command_groups,
    first_sentence,
)
from cxr_compare.scripts.configuration_options import key_advice
from cxr_compare.scripts.console import emit, emit_json, next_step, printing, say
from cxr_compare.scripts.next_steps import next_steps
from cxr_compare.scripts.parameters import Parameter, description, parameters_of

# Names of commands in other programs, by the command of cxr that does the same.
_SYNONYMS = {
    "compare": ("report", "evaluate", "eval", "test"),
    "check": ("audit",),
    "serve": ("web", "app"),
    "train": ("fit",),
}
_BUG = 3
_INTERRUPTED = 130
_TERMINATED = 143
_ARGUMENTS = Group.create_default_arguments()
_FIRST_OPTIONS = Group("Options", sort_key=1)
_MORE_OPTIONS = Group("More", sort_key=2)


def _versions() -> str:
    """Return the versions of what runs, as they are installed: nothing heavy is imported."""
    own = metadata.version("cxr-compare")
    versions = [f"cxr-compare {own}", f"Python {platform.python_version()}"]
    for package in ("torch", "torchvision"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} is not installed")
    return ", ".join(versions)


def build_app(called: str | None = None) -> App:
    """Build the application with all commands of `cxr`.

    The module of the command `called`, such as ``import``, is imported alone. If it is no command,
    the first sentence of each is shown. None imports all modules.
    """
    app = App(
        name="cxr",
        help="Detector or classifier: which finds the disease better on your chest X-rays, and how "
        "sure?\n\nResearch use only, not a medical device.",
        help_format="plaintext",
        version=_versions,
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    groups = command_groups()
    options = Group("Options", sort_key=len(groups))
    app.register_install_completion_command(group=options)
    app["--help"].group = app["--version"].group = options
    lists_commands = called is None or called not in map(command_name, all_commands())
    for place, (title, names) in enumerate(groups.items()):
        group = Group(title, sort_key=place)
        for position, function_name in enumerate(names):
            name = command_name(function_name)
            function = None
            text = ""
            if called in (None, name):
                try:
                    function = command_function(function_name)
                    text = help_text(function)
                except InputError as error:  # of an added command
                    if called is not None:
                        raise
                    text = str(error)
            elif lists_commands:
                text = first_sentence(function_name)
            app.command(
                App(
                    name=name,
                    default_command=None if function is None else cyclopts_command(function),
                    help=text,
                    group=group,
                    sort_key=position,
                    synonym=_SYNONYMS.get(name),
                )
            )
    return app


def help_text(function: Callable[..., Any]) -> str:
    """Return the description of a command with its examples, each paragraph on one line."""
    body, examples = description(function)
    paragraphs = [" ".join(paragraph.split()) for paragraph in body.split("\n\n")]
    return "\n\n".join([*paragraphs, *(f"Example: {example}" for example in examples)])


def cyclopts_command(function: Callable[..., Any]) -> Callable[..., int]:
    """Return a function from which cyclopts makes a command of the command line.

    It has the parameters of the command's Python function and the option ``--json``. It prints the
    result and returns the exit status.
    """
    parameters = parameters_of(function)
    positional = [parameter for parameter in parameters if parameter.positional]
    takes_list = bool(positional) and positional[-1].several and not positional[-1].variadic

    def command(*arguments: Any, **options: Any) -> int:
        values = list(arguments)
        if takes_list and len(values) >= len(positional):
            n_single = len(positional) - 1
            values[n_single:] = [values[n_single:]]
        return run_command(function, *values, **options)

    first = MAIN_OPTIONS.get(function.__name__)
    declared = [_declared(parameter, first) for parameter in parameters]
    as_json = cyclopts.Parameter(
        name="--json",
        negative=(),
        show_default=False,
        help="Print the result as JSON.",
        group=_FIRST_OPTIONS if first is None else _MORE_OPTIONS,
    )
    declared.append(
        inspect.Parameter(
            "as_json",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, as_json],
        )
    )
    command.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in declared}
    return command


def _declared(parameter: Parameter, first: Sequence[str] | None) -> inspect.Parameter:
    """Return a parameter as cyclopts reads it; options beside those in `first` come after More."""
    facts = parameter.argument
    annotation: Any = parameter.type
    default = parameter.default
    if parameter.several and not parameter.positional:
        annotation = list[annotation]
        default = inspect.Parameter.empty if parameter.is_required else None
    if default is None:
        annotation = annotation | None
    if parameter.positional:
        group = _ARGUMENTS
    elif first is None or parameter.name in first:
        group = _FIRST_OPTIONS
    else:
        group = _MORE_OPTIONS
    if parameter.positional and parameter.several:
        default = inspect.Parameter.empty  # required or none at all
    option = cyclopts.Parameter(
        name=parameter.option if facts.option or not parameter.positional else None,
        negative=parameter.option.replace("--", "--no-") if default is True else (),
        help=_option_help(parameter),
        metavar=facts.metavar,
        group=group,
        required=parameter.is_required and not parameter.variadic,
        show_default=not isinstance(default, bool) and default not in (None, ""),
        completer=None if facts.completions is None else _completer(facts.completions),
        allow_leading_hyphen=parameter.type in (int, float),
        consume_multiple=facts.takes_words,
    )
    return inspect.Parameter(
        parameter.name, _kind(parameter), default=default, annotation=Annotated[annotation, option]
    )


def _kind(parameter: Parameter) -> Any:
    """Return how cyclopts takes the value: by position, by option or both."""
    if not parameter.positional:
        return inspect.Parameter.KEYWORD_ONLY
    if parameter.several:  # the values may stand before and after options
        return inspect.Parameter.VAR_POSITIONAL
    if parameter.argument.option:
        return inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter.POSITIONAL_ONLY


def _completer(names: Callable[[], list[str]]) -> Callable[[Any], list[str]]:
    """Return a function that offers names to the shell, whatever was typed before."""
    return lambda context: names()


def _option_help(parameter: Parameter) -> str:
    """Return the help of a parameter with the limits of its value."""
    text = parameter.help
    if parameter.several and not parameter.positional and not parameter.argument.takes_words:
        text += " May be repeated."
    if parameter.argument.minimum is not None:
        text += f" [at least {parameter.argument.minimum:g}]"
    if parameter.argument.maximum is not None:
        text += f" [at most {parameter.argument.maximum:g}]"
    return text


def run_command(
    function: Callable[..., Any], *arguments: Any, as_json: bool = False, **options: Any
) -> int:
    """Run a command as the shell does, print its result, and return the exit status."""
    with printing("json" if as_json else "text"):
        result = function(*arguments, **options, progress=True)
    if result is None:
        return 0
    if getattr(result, "printed", False):
        return int(result.exit_status)
    piped = getattr(result, "piped", False)
    if (text := str(result)) and not (piped and as_json):
        (emit if piped else say)(text)
    folder = getattr(result, "folder", None)
    steps = getattr(result, "next_steps", None)
    if steps is None and folder is not None:
        steps = next_steps(folder, options.get("data"))
    next_step(*(steps or ()))
    if as_json:
        to_json = getattr(result, "to_json", None) or result.to_dict  # of records, and others
        emit_json(to_json())
    return int(getattr(result, "exit_status", 0))


def _usage_line(error: CycloptsError) -> str:
    """Return a wrong option or argument as one line that says where help is."""
    program = " ".join(["cxr", *(error.command_chain or ())])
    message = str(error)
    unknown = [word for word in error.unused_tokens or () if word.startswith("--")]
    if isinstance(error, cyclopts.UnknownOptionError):
        unknown = [error.token.keyword or error.token.value]
    advice = [_advice_on_key(error.command_chain, word.partition("=")[0]) for word in unknown]
    if any(advice):
        message = next(filter(None, advice))
    elif isinstance(error, cyclopts.UnknownCommandError):
        message = message.partition(" Available commands:")[0]
    elif isinstance(error, cyclopts.UnusedCliTokensError):
        message = f"Unexpected argument: {' '.join(error.unused_tokens or ())}."
    elif isinstance(error, cyclopts.MissingArgumentError) and error.argument and not error.keyword:
        message = _missing(error.argument, message)
    return " ".join(f"{message} See '{program} --help'.".split())


def _missing(argument: cyclopts.Argument, message: str) -> str:
    """Return what is missing and what it means, or the option that was probably misspelt."""
    suggestion = message.partition(" Did you mean ")[2]
    if suggestion:
        return f"{argument.name} is missing; did you mean {suggestion}"
    meaning = (argument.parameter.help or "").partition(". ")[0].rstrip(".")
    return f"{argument.name} is missing ({meaning})."


def _advice_on_key(command_chain: Sequence[str] | None, option: str) -> str | None:
    """Return how to set the key of a configuration that was written as an option, if it is one."""
    names = [name for name in all_commands() if command_name(name) in (command_chain or ())]
    if not names:
        return None
    advice = key_advice(command_function(names[0]), option, from_python=False)
    return advice and f"{advice}."


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
    """Run the command line and end the process with its exit status.

    The status is 0 for success, 1 if the command found a problem, 2 for wrong input, 3 for a bug in
    cxr (with a traceback), 130 after Ctrl-C and 143 after SIGTERM. Python's own status for a bug
    would be 1, so that a check that crashes would look like one that found a problem.
    """
    try:
        _main()
    except Exception:  # noqa: BLE001 - it is shown
        traceback.print_exc()
        sys.exit(_BUG)


def _main() -> None:
    """Run `cxr`, and end as a signal asks."""
    termination = _Termination()
    before = signal.signal(signal.SIGTERM, termination)
    try:
        _run()
    except (KeyboardInterrupt, EOFError) as stopped:
        interrupted = isinstance(stopped, KeyboardInterrupt)
        # Cleaning up after Ctrl-C may meet a pipe whose other process has ended.
        if not interrupted and not isinstance(stopped.__context__, KeyboardInterrupt):
            raise
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


def _run() -> None:
    words = sys.argv[1:] or ["--help"]
    called = words[0]
    if called == "__complete":  # the shell asks for values of the command that follows
        called = words[1]
    if called in map(command_name, all_commands()):
        # Imported here: its locks would take a tenth of the time of cxr --help.
        from cxr_compare.data_prep.contracts.temporary_folders import use_private_temporary_folder

        use_private_temporary_folder()
    try:
        with disk_errors(Path("/dev/stdout")):
            installs = called == "--install-completion"
            status = build_app(None if installs else called)(words) or 0
            sys.stdout.flush()
        sys.exit(status)
    except InputError as error:
        say("cxr: " + " ".join(str(error).split("\n")))
        told = error.full_disk and os.environ.get(InputError.variable)
        sys.exit(int(told or 2))
    except CycloptsError as error:
        say("cxr: " + _usage_line(error))
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(141)


if __name__ == "__main__":
    main()
