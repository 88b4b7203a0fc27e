"""The `cxr` command. Options, arguments and help of each command follow from its function."""

from __future__ import annotations

import ast
import inspect
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cxr_compare.data_prep.contracts.disk_space import disk_errors
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.temporary_folders import use_private_temporary_folder
from cxr_compare.data_prep.store.identify_folder import WrongFolderError
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.command_list import COMMAND_GROUPS, COMMANDS
from cxr_compare.scripts.configuration_options import refuse_configuration_words
from cxr_compare.scripts.console import emit, emit_json, next_step, printing, say
from cxr_compare.scripts.missing_options import missing_options_message
from cxr_compare.scripts.next_steps import next_steps
from cxr_compare.scripts.parameters import Parameter, description, parameters_of

# Names of commands in other programs, and the command of cxr that does the same.
_MEANT = dict.fromkeys(("report", "evaluate", "eval", "test"), "compare") | {
    "audit": "check",
    "web": "serve",
    "app": "serve",
    "fit": "train",
}
COMMANDS_FOLDER = Path(__file__).with_name("commands")
_BUG = 3
_INTERRUPTED = 130
_TERMINATED = 143
# What typer raises of options that do not fit: the class below Exception, which is one of click in
# older releases of typer and one of its own in newer ones.
_TyperError: type[Exception] = typer.BadParameter.__mro__[-4]
# rich alone takes 0.2 s to import
_PLAIN: dict[str, Any] = {"pretty_exceptions_enable": False, "rich_markup_mode": None}


def command_function(name: str) -> Callable[..., Any]:
    """Return the Python function of a command of `cxr`.

    Args:
        name: Name of the function, such as ``tune`` or ``import_predictions``.

    Returns:
        The function, such as `cxr_compare.tune`. Its module is imported now.
    """
    function: Callable[..., Any] = getattr(
        import_module(f"cxr_compare.scripts.commands.{name}"), name
    )
    return function


def _show_version(asked: bool) -> None:
    """Say what runs, by what is installed: nothing heavy is imported for it."""
    if not asked:
        return
    own = metadata.version("cxr-compare")
    versions = [f"cxr-compare {own}", f"Python {platform.python_version()}"]
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
    """The group of commands; typer's own flags are off, as none of them is left to be checked.

    It would import pydantic to check them, which takes a third of the time of a command's help.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        for param in params:
            if param.default is None and getattr(param, "is_flag", False):
                param.default = False
        return params

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command; suggest ours for a name that other programs use."""
        if args[0] in _MEANT:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{_MEANT[args[0]]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands by group, each on a line of 80 columns."""
        for title, names in COMMAND_GROUPS.items():
            with formatter.section(title):
                commands = [command_name(name) for name in names]
                lines = [
                    (command, self.commands[command].get_short_help_str()) for command in commands
                ]
                formatter.write_dl(lines, col_spacing=10 - max(map(len, commands)))


class _Command(TyperCommand):
    """A command whose module is imported when it is called, or its help is asked for."""

    @property
    def _function_name(self) -> str:
        return next(command for command in COMMANDS if command_name(command) == self.name)

    def make_context(self, info_name: Any, args: Any, *rest: Any, **options: Any) -> Any:
        words = [*args]
        function = command_function(self._function_name)
        app = typer.Typer(add_completion=False, **_PLAIN)
        app.command(self.name)(typer_command(function))
        try:
            # typer removes the words that it has read from the list
            return get_command(app).make_context(info_name, [*words], *rest, **options)
        except _TyperError as error:
            _explain(error, function, words)
            raise

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first paragraph of the docstring without importing the module."""
        name = self._function_name
        tree = ast.parse((COMMANDS_FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
        function = next(node for node in functions if node.name == name)
        return (ast.get_docstring(function) or "").partition("\n\n")[0]


def _explain(error: Exception, function: Callable[..., Any], words: list[str]) -> None:
    """Refuse words that typer cannot read with the command that the user probably means.

    Raises:
        InputError: A required option or argument is missing, or an option is a key of a
            configuration.
    """
    if hasattr(error, "option_name"):  # there is no such option
        refuse_configuration_words(function, words)
    elif type(error).__name__ == "MissingParameter":
        missing = getattr(getattr(error, "param", None), "name", None)
        message = missing_options_message(function, words, missing)
        if message is not None:
            raise InputError(message)


def build_app() -> typer.Typer:
    """Build the typer application with all commands of `cxr`."""
    app = typer.Typer(
        name="cxr",
        cls=_Program,
        context_settings={"help_option_names": ["-h", "--help"]},
        **_PLAIN,
    )
    app.callback()(_program)
    for name in COMMANDS:
        app.command(command_name(name), cls=_Command)(lambda: None)
    return app


def typer_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function from which typer makes a command of the command line.

    It has the parameters and the docstring of the command's Python function, and the option
    ``--json``. It prints the result and returns the exit status.

    Args:
        function: Function of the command, such as `train`.
    """
    parameters = parameters_of(function)

    also_options = [p for p in parameters if p.positional and p.argument.option]

    def command(**words: Any) -> int:
        values = {name: value for name, value in words.items() if value not in (None, [])}
        for p in also_options:
            named = values.pop(_option_name(p), None)
            if named is not None and p.name in values:
                raise typer.BadParameter(
                    f"{p.option} {named}: was given by position already; give it once"
                )
            if named is not None:
                values[p.name] = named
        positional = [item for p in parameters if p.variadic for item in values.pop(p.name, [])]
        return run_command(function, *positional, **values)

    kind = inspect.Parameter.KEYWORD_ONLY
    declared = []
    for p in parameters:  # typer takes None for a list that is not given
        default = None if p.several and not p.is_required else p.default
        declared.append(inspect.Parameter(p.name, kind, default=default, annotation=_annotation(p)))
    for p in also_options:
        value_type: Any = p.type | None
        option: Any = Annotated[value_type, typer.Option(p.option, help=p.help)]
        declared.append(inspect.Parameter(_option_name(p), kind, default=None, annotation=option))
    as_json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
    declared.append(inspect.Parameter("as_json", kind, default=False, annotation=as_json))
    body, examples = description(function)
    command.__name__ = function.__name__
    command.__doc__ = "\n\n".join([body, *(f"Example: {example}" for example in examples)])
    command.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in declared}
    return command


def _option_name(parameter: Parameter) -> str:
    """Return the internal name of the option that is another way to give a positional value."""
    return f"{parameter.name}_as_option"


def _annotation(parameter: Parameter) -> Any:
    argument = parameter.argument
    repeated = parameter.several and not parameter.positional
    text = parameter.help
    if repeated:
        text += " May be repeated."
    shared: dict[str, Any] = {"help": text, "metavar": argument.metavar}
    if parameter.type in (int, float):
        shared |= {"min": argument.minimum, "max": argument.maximum}
    if argument.completions is not None:
        shared["autocompletion"] = argument.completions
    kind: Any = parameter.type
    if parameter.several:
        # typer takes no list of choices
        kind = list[str if parameter.choices else kind]  # type: ignore[misc]
    if parameter.default is None or (parameter.several and not parameter.is_required):
        kind = kind | None
    if parameter.positional:
        return Annotated[kind, typer.Argument(**shared)]
    name = parameter.option
    if parameter.type is bool and parameter.default:
        name = f"{name}/{name.replace('--', '--no-')}"
    return Annotated[kind, typer.Option(name, **shared)]


def run_command(
    function: Callable[..., Any], *arguments: Any, as_json: bool = False, **options: Any
) -> int:
    """Run a command as the shell does, and print its result.

    Args:
        function: Function of the command.
        *arguments: Positional arguments of the command.
        as_json: True prints the result as JSON.
        **options: Options of the command, by parameter name.

    Returns:
        The exit status.
    """
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
        emit_json(result.to_dict())
    return int(getattr(result, "exit_status", 0))


def _usage_line(error: Exception) -> str:
    """Return a wrong option or argument as one line that says where help is."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "cxr"
    return " ".join(f"{message} See '{command} --help'.".split())


def _with_advice(error: InputError) -> str:
    """Return the message; for a folder of unknown origin also which download it looks like."""
    if isinstance(error, WrongFolderError) and error.foreign:
        from cxr_compare.data_prep.formats.registry import describe_raw_download

        if raw := describe_raw_download(error.folder):
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
    """Run the command line and end the process with its exit status.

    The status is 0 for success, 1 if the command found a problem, 2 for wrong input, 3 for a bug in
    cxr (with a traceback), 130 after Ctrl-C and 143 after SIGTERM. Python's own status for a bug
    would be 1, so that a `cxr monitor` that crashes would look like one that found a change.
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
        use_private_temporary_folder()
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
    """Return the error behind an abort that nobody asked for: typer takes each EOF for Ctrl-C."""
    ended = stopped.__cause__
    if not isinstance(ended, EOFError) or isinstance(ended.__context__, KeyboardInterrupt):
        return None  # the second came of cleaning up after Ctrl-C
    return ended


def _run() -> None:
    try:
        with disk_errors(Path("/dev/stdout")):
            # Not standalone: usage errors, too, become one line.
            status = build_app()(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
            sys.stdout.flush()
        if status == _INTERRUPTED:  # typer turns Ctrl-C into this code, and says nothing
            raise KeyboardInterrupt
        sys.exit(status)
    except InputError as error:
        say("cxr: " + " ".join(_with_advice(error).split("\n")))
        told = error.full_disk and os.environ.get(InputError.variable)
        sys.exit(int(told or 2))
    except _TyperError as error:
        say("cxr: " + _usage_line(error))
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(141)


if __name__ == "__main__":
    main()
