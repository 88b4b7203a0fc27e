"""The runner: what all commands share, so that a command is one typed function with one docstring.

`command` turns a function into what `cxr_compare` exports; `scripts/cli.py` derives the command
from the same signature and docstring. Of each call the runner checks the arguments, names a wrong
folder before anything heavy is imported, brings folders from object stores and sends what was made,
and keeps the record of what was asked, which every folder stores.
"""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, reduce, wraps
from operator import or_
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from cxr_compare.data_prep.contracts.disk_space import disk_errors
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.contracts.kinds import KindName
from cxr_compare.data_prep.contracts.locks import remove_leftovers
from cxr_compare.data_prep.contracts.notebook import ShownAsText, html_lines, html_records
from cxr_compare.data_prep.contracts.provenance import recorded_command
from cxr_compare.data_prep.store.folder_kinds import require_kind
from cxr_compare.data_prep.work.local_copies import local_folders
from cxr_compare.data_prep.work.store_addresses import find_store_addresses, with_store_addresses
from cxr_compare.scripts import console

P = ParamSpec("P")
R = TypeVar("R")


class HasFolder(Protocol):
    """An object that was read from a folder or written into one, such as a data set or a run."""

    @property
    def folder(self) -> Path | None:
        """The folder."""


AnyPath: TypeAlias = str | Path | HasFolder
"""A path as a command accepts it; `command` makes a `Path` of it, and `as_path` tells mypy so."""


@dataclass(frozen=True)
class Argument:
    """What a parameter's type does not say; the metadata of an ``Annotated`` type."""

    kind: KindName | None = None  # the folder must be a complete one of this kind
    # Makes the value from words of the command line, or from what Python hands over; of words that
    # it cannot read it raises ValueError, which says what is wrong with them.
    read: Callable[[Any], Any] | None = None
    # Makes words of the command line from a value, where `read` takes nested ones.
    write: Callable[[Any], list[str]] | None = None
    least: float | None = None  # smallest value
    most: float | None = None  # largest value
    metavar: str | None = None  # what stands for the value in the help
    names: Callable[[], list[str]] | None = None  # offered by the shell's completion
    option: str = ""  # its name on the command line, where that is one of Python's own words
    # Its description, where the docstring has none: of options that many commands share.
    words: str = ""


@dataclass(frozen=True, repr=False)
class Outcome(ShownAsText):
    """What a command found or wrote, where no noun of its own holds it; it prints its text."""

    text: str  # what the terminal shows
    payload: Any = None  # what ``--json`` prints, where no file holds it
    file: Path | None = None  # the JSON that marks the folder complete, called as its kind
    page: Path | None = None  # what to look at
    next_steps: tuple[str, ...] = ()  # commands that usually follow
    exit_status: int = 0  # 1 where the work found a problem
    piped: bool = False  # whether the text is the result, for another program to read

    def __post_init__(self) -> None:
        if self.page is not None and not self.next_steps:
            viewer = " in a browser" if self.page.suffix == ".html" else ""
            step = f"open {shlex.quote(str(self.page))}{viewer}"
            object.__setattr__(self, "next_steps", (step,))

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        rows = self.payload
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            return html_records(rows)
        return html_lines(self.text)

    def to_dict(self) -> Any:
        """The content of the file, or what was found."""
        return self.payload if self.file is None else read_json(self.file, self.file.stem)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a command, as the command line, the reference and the checks need it."""

    name: str  # of the function's parameter
    type: Any  # without ``None`` and metadata; of a list, that of its items
    default: Any  # `inspect.Parameter.empty` where it must be given
    positional: bool  # given by its position; all others are options
    variadic: bool  # takes the rest of what is given by position
    several: bool  # takes any number of values
    argument: Argument  # what the type does not say
    words: str  # its description

    @property
    def option(self) -> str:
        """The option's name on the command line."""
        return self.argument.option or "--" + self.name.strip("_").replace("_", "-")

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a ``Literal``; empty of any other type."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()


@overload
def as_path(value: None) -> None: ...


@overload
def as_path(value: AnyPath) -> Path: ...


def as_path(value: AnyPath | None) -> Path | None:
    """Return the path that an argument names; None stays None.

    The arguments of a command are paths already: there the call tells type checkers so.

    Raises:
        InputError: The value is an object that lies in no folder yet.

    Example:
        >>> as_path("out/run")
        PosixPath('out/run')
    """
    if value is None or isinstance(value, Path):
        return value
    path = value if isinstance(value, str) else value.folder
    if path is None:
        kind = type(value).__name__
        raise InputError(f"{kind}: was written into no folder; write it, and give the folder")
    return Path(path)


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a command: its arguments are checked before it is entered.

    Paths may be texts or anything with a ``folder``. A command says nothing from Python, unless the
    keyword ``progress`` is true.

    Raises:
        InputError: A folder is of another kind, a value is out of its range, or none of the
            choices.
    """
    signature = inspect.signature(function)
    types = _declared_types(function)

    @wraps(function)
    def run(*args: Any, progress: bool = False, **keywords: Any) -> R:
        bound = signature.bind(*args, **keywords)
        bound.apply_defaults()
        record = with_store_addresses(command_line(run, bound.arguments))
        with (
            console.silent(not progress),
            recorded_command(record),
            _at_hand(bound.arguments) as given,
        ):
            for parameter in parameters_of(function):
                bound.arguments[parameter.name] = _checked(parameter, given[parameter.name])
            result = function(*bound.args, **bound.kwargs)
            if (folder := bound.arguments.get("out")) is not None:
                # A command that finds its folder complete writes nothing, and takes no lock.
                remove_leftovers(Path(folder))
            return result

    keyword = inspect.Parameter(
        "progress", inspect.Parameter.KEYWORD_ONLY, default=False, annotation="bool"
    )
    # With types in the place of their names, for whoever asks for help in a notebook.
    shown_parameters = [
        parameter.replace(annotation=_without_metadata(types[name]))
        for name, parameter in signature.parameters.items()
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*shown_parameters, keyword]
    )
    return run  # type: ignore[return-value]


@contextmanager
def _at_hand(arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The arguments with local folders for those in object stores, which cost nothing else.

    A full disk met in the block is named: that of the output, of an input, or what libraries fill.
    """
    named = [getattr(value, "folder", value) for value in arguments.values()]
    named += [os.environ.get("TMPDIR", "/tmp"), "/dev/shm", os.environ.get("HOME")]  # noqa: S108
    places = [Path(path) for path in (arguments.get("out"), *named) if isinstance(path, str | Path)]
    with disk_errors(*places):
        if not find_store_addresses(dict(arguments)):
            yield arguments
            return
        with local_folders(arguments, console.say) as local:
            yield local


@cache
def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The parameters of a command in the order of its signature."""
    function = inspect.unwrap(function)
    hints = _declared_types(function)
    described = _described_arguments(function)
    parameters = []
    for name, declared in inspect.signature(function).parameters.items():
        hint, argument = _without_none(hints[name]), Argument()
        if get_origin(hint) is Annotated:
            hint, *extras = get_args(hint)
            argument = next((e for e in extras[::-1] if isinstance(e, Argument)), argument)
        members = _members(hint)
        listed = [member for member in members if get_origin(member) in _LISTS]
        several = bool(listed) or declared.kind is inspect.Parameter.VAR_POSITIONAL
        if argument.read is not None:
            kind: Any = str
        else:
            kind = _command_line_type(get_args(listed[0])[0] if listed else hint)
        parameters.append(
            Parameter(
                name=name,
                type=kind,
                default=declared.default,
                positional=declared.kind is not inspect.Parameter.KEYWORD_ONLY,
                variadic=declared.kind is inspect.Parameter.VAR_POSITIONAL,
                several=several,
                argument=argument,
                words=described.get(name) or argument.words,
            )
        )
    return tuple(parameters)


_LISTS = (list, Sequence, Mapping, dict, tuple)


def _declared_types(function: Callable[..., Any]) -> dict[str, Any]:
    """The type of each parameter; what is returned is heavy to import, so it is left out."""
    declared_types = SimpleNamespace(
        __annotations__={n: a for n, a in function.__annotations__.items() if n != "return"}
    )
    return get_type_hints(declared_types, function.__globals__, include_extras=True)


def _members(hint: Any) -> tuple[Any, ...]:
    """The types of a union without None; another type alone."""
    if get_origin(hint) not in (Union, UnionType):
        return (hint,)
    return tuple(member for member in get_args(hint) if member is not NoneType)


def _without_none(hint: Any) -> Any:
    """The type ``X`` of ``X | None``; any other type as it is."""
    members = _members(hint)
    return members[0] if len(members) == 1 else hint


def _command_line_type(hint: Any) -> Any:
    """The type that a word of the command line becomes: of `AnyPath` a path."""
    members = _members(hint)
    return Path if Path in members else members[0]


def _without_metadata(hint: Any) -> Any:
    """A type as users read it, without what `Annotated` adds for the runner."""
    if get_origin(hint) is Annotated:
        return _without_metadata(get_args(hint)[0])
    members = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, (_without_metadata(member) for member in members))
    return hint


def _checked(parameter: Parameter, value: Any) -> Any:
    """A value as the command takes it."""
    if value is None:
        return None
    if parameter.argument.read is not None:
        try:
            return parameter.argument.read(value)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{parameter.option} {','.join(_words(value))}: {error}") from None
    if parameter.several:
        # One size, one policy or one folder is a list of one.
        listed = isinstance(value, Iterable) and not isinstance(value, str)
        alone = not listed or hasattr(value, "folder")
        items = [_checked_item(parameter, item) for item in ([value] if alone else value)]
        return tuple(items) if isinstance(value, tuple) else items
    return _checked_item(parameter, value)


def _checked_item(parameter: Parameter, value: Any) -> Any:
    option, argument = parameter.option, parameter.argument
    if parameter.type is Path:
        value = as_path(value)
        if argument.kind is not None:
            require_kind(value, argument.kind)
    if parameter.choices and value not in parameter.choices:
        raise InputError(f"{option} {value}: is none of {', '.join(parameter.choices)}")
    for limit, beyond, word in (
        (argument.least, lambda end: value < end, "at least"),
        (argument.most, lambda end: value > end, "at most"),
    ):
        if limit is not None and beyond(limit):
            raise InputError(f"{option} {value}: must be {word} {limit:g}")
    return value


def command_line(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """The command that asks the same: what a folder records, also of a call from Python."""
    words = ["cxr", command_name(function.__name__)]
    options: list[str] = []
    for parameter in parameters_of(function):
        value = arguments[parameter.name]
        if parameter.positional:
            words += (parameter.argument.write or _words)(value)
        elif value is None or _is_default(value, parameter.default):
            continue
        elif isinstance(value, bool):
            options.append(parameter.option if value else parameter.option.replace("--", "--no-"))
        else:
            texts = (parameter.argument.write or _words)(value)
            options += [word for text in texts for word in (parameter.option, text)]
    return shlex.join([*words, *options])


def _is_default(value: Any, default: Any) -> bool:
    """Return True for the default; arrays and frames, which compare item by item, never are."""
    return not hasattr(value, "shape") and bool(value == default)


def _words(value: Any) -> list[str]:
    """A value as words of a command line."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        nested = [(key, item) for key, item in value.items() if isinstance(item, Mapping)]
        inner = [f"{key}.{word}" for key, item in nested for word in _words(item)]
        plain = [(key, item) for key, item in value.items() if not isinstance(item, Mapping)]
        return [*inner, *(f"{key}={','.join(_words(item))}" for key, item in plain)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [word for item in value for word in _words(item)]
    return ["DataFrame" if hasattr(value, "columns") else str(getattr(value, "folder", value))]


def command_name(command: str) -> str:
    """Return the name of a command on the command line; usually the name of its function.

    `import` is a keyword of Python, and `cxr_compare.configs` is a package.

    Example:
        >>> command_name("list_configs"), command_name("train")
        ('configs', 'train')
    """
    return {"import_predictions": "import", "list_configs": "configs"}.get(command, command)


def _described_arguments(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring's section ``Args`` says of each parameter."""
    described: dict[str, str] = {}
    name = ""
    for line in _section(function, "Args").splitlines():
        text = line.strip()
        if line.startswith("    ") and not line.startswith("     ") and ": " in text:
            name, _, text = text.partition(": ")
            name = name.lstrip("*")
        described[name] = f"{described.get(name, '')} {text}".strip()
    return described


def description(function: Callable[..., Any]) -> tuple[str, list[str]]:
    """What a command does, in paragraphs, and its examples of a command."""
    text = inspect.getdoc(function) or ""
    body = text.partition("\nArgs:\n")[0].strip()
    examples = [" ".join(part.split()) for part in _section(function, "Example").split("\n\n")]
    return body, [example for example in examples if example]


def _section(function: Callable[..., Any], title: str) -> str:
    """The indented lines below a title of a Google docstring."""
    lines: list[str] = []
    inside = False
    for line in (inspect.getdoc(function) or "").splitlines():
        if line == f"{title}:":
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        elif inside:
            lines.append(line)
    return "\n".join(lines)
