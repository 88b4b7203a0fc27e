"""The parameters of a command, read from its signature and its docstring.

A command is one typed function. Its parameters give the options of the command line
(`scripts/cli.py`), the reference page, and the checks of each call (`scripts/runner.py`). Facts
that a type cannot express are in an `Argument` inside ``Annotated``; the description of a parameter
is in the docstring.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from numbers import Real
from operator import or_
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    Protocol,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.folder_kinds import KindName
from cxr_compare.data_prep.contracts.own_parts import part_name
from cxr_compare.data_prep.store.identify_folder import require_kind

_STORE_ADDRESS = re.compile("[a-z][a-z0-9]+:/")  # a Path keeps one slash of two
_COLLECTIONS = (list, Sequence, Mapping, dict, tuple)


class HasFolder(Protocol):
    """Interface of an object that was read from a folder or written to one, like a data set."""

    @property
    def folder(self) -> Path | None:
        """Folder of the object; None if the object exists in memory only."""


AnyPath: TypeAlias = str | Path | HasFolder
"""A path as a command accepts it. The decorator makes it a `Path`; `as_path` tells mypy so."""


@dataclass(frozen=True)
class Argument:
    """Facts about a parameter of a command that its type does not tell.

    An object of this class is the metadata of an ``Annotated`` type.

    Attributes:
        folder_kind: Kind of folder that the path must be, such as a data set; it must be complete.
            None for any path or another value.
        read: Function that makes the value from the texts of the command line, or from an object
            that Python passes. It raises ValueError with the reason if it cannot.
        write: Function that makes the texts of the command line from a value. It is needed if
            `read` accepts nested values.
        minimum: Smallest value that is allowed.
        maximum: Largest value that is allowed.
        metavar: Placeholder of the value in the help.
        completions: Function that returns the values that the shell offers as completions.
        option: Name on the command line if it differs from that of the parameter, such as
            ``--from``. A positional parameter with a name can also be given by this option.
        takes_words: True for an option that takes all words up to the next option, as a shell makes
            them of a pattern such as ``out/part-*``.
        help: Description of an option that several commands share. The docstring of a command takes
            precedence.
    """

    folder_kind: KindName | None = None
    read: Callable[[Any], Any] | None = None
    write: Callable[[Any], list[str]] | None = None
    minimum: float | None = None
    maximum: float | None = None
    metavar: str | None = None
    completions: Callable[[], list[str]] | None = None
    option: str = ""
    takes_words: bool = False
    help: str = ""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a `cxr` command, as the command line and the reference present it.

    Attributes:
        type: Type without None and without metadata; for a list, the type of its items.
        default: Default value; `inspect.Parameter.empty` if a value is required.
        positional: True if the value is given by position, False for an option.
        variadic: True if the parameter takes all remaining positional values.
        several: True if the parameter takes any number of values, of which `type` is the type of
            one.
        argument: Facts that the type does not tell, such as limits and the kind of folder.
        help: Description from the docstring of the command, or else that of `argument`.
    """

    name: str
    type: Any
    default: Any
    positional: bool
    variadic: bool
    several: bool
    argument: Argument
    help: str

    @property
    def option(self) -> str:
        """Name of the option on the command line, with its dashes."""
        return self.argument.option or "--" + self.name.strip("_").replace("_", "-")

    @property
    def is_required(self) -> bool:
        """True if the parameter has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def choices(self) -> tuple[str, ...]:
        """Values of a ``Literal`` type; empty for any other type."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()


@overload
def as_path(value: None) -> None: ...


@overload
def as_path(value: AnyPath) -> Path: ...


def as_path(value: AnyPath | None) -> Path | None:
    """Return the path that an argument names; None stays None.

    An argument may be a text, a path or an object with a folder. Inside a command the arguments are
    paths already; there the call only informs type checkers.

    Args:
        value: Text, path or object with a folder; None stays None.

    Returns:
        The path; that of its folder for an object.

    Raises:
        InputError: The object has no folder, or none yet because it exists in memory only.

    Example:
        >>> as_path("out/run")
        PosixPath('out/run')
    """
    if value is None or isinstance(value, Path):
        return value
    type_name = type(value).__name__
    if not isinstance(value, str) and not hasattr(value, "folder"):
        raise InputError(f"expected the path of a folder or file, got a value of type {type_name}")
    path = value if isinstance(value, str) else value.folder
    if path is None:
        raise InputError(f"{type_name}: was written into no folder; write it, and give the folder")
    return Path(path)


@cache
def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Return the parameters of a command in the order of its signature.

    Example:
        >>> def count(*, images: int = 3):
        ...     '''Count.
        ...
        ...     Args:
        ...         images: How many images.
        ...     '''
        >>> [(parameter.option, parameter.help) for parameter in parameters_of(count)]
        [('--images', 'How many images.')]
    """
    function = inspect.unwrap(function)
    types = declared_types(function)
    descriptions = _described_arguments(function)
    signature = inspect.signature(function)
    return tuple(
        _parameter(declared, types[name], descriptions.get(name, ""))
        for name, declared in signature.parameters.items()
    )


def _parameter(declared: inspect.Parameter, declared_type: Any, description: str) -> Parameter:
    value_type = _without_none(declared_type)
    argument = Argument()
    if get_origin(value_type) is Annotated:
        value_type, *metadata = get_args(value_type)
        for item in metadata:
            argument = item if isinstance(item, Argument) else argument
    members = union_members(value_type)
    collections = [member for member in members if get_origin(member) in _COLLECTIONS]
    variadic = declared.kind is inspect.Parameter.VAR_POSITIONAL
    if argument.read is not None:
        word_type: Any = str
    elif collections:
        word_type = _command_line_type(get_args(collections[0])[0])
    else:
        word_type = _command_line_type(value_type)
    return Parameter(
        name=declared.name,
        type=word_type,
        default=declared.default,
        positional=declared.kind is not inspect.Parameter.KEYWORD_ONLY,
        variadic=variadic,
        several=bool(collections) or variadic,
        argument=argument,
        help=description or argument.help,
    )


def declared_types(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the declared type of each parameter of a function, by name.

    The type of the return value is left out, because importing it takes long.

    The types have the metadata of ``Annotated``.
    """
    annotations = {
        name: annotation
        for name, annotation in function.__annotations__.items()
        if name != "return"
    }
    without_return = SimpleNamespace(__annotations__=annotations)
    return get_type_hints(without_return, function.__globals__, include_extras=True)


def union_members(declared_type: Any) -> tuple[Any, ...]:
    """Return the types of a union without None; any other type alone."""
    if get_origin(declared_type) not in (Union, UnionType):
        return (declared_type,)
    return tuple(member for member in get_args(declared_type) if member is not NoneType)


def _without_none(declared_type: Any) -> Any:
    """Return the type ``X`` of ``X | None``; any other type as it is."""
    members = union_members(declared_type)
    return members[0] if len(members) == 1 else declared_type


def _command_line_type(declared_type: Any) -> Any:
    """Return the type that a text of the command line becomes; for `AnyPath` that is a path."""
    members = union_members(declared_type)
    return Path if Path in members else members[0]


def without_metadata(declared_type: Any) -> Any:
    """Return a type without the metadata of `Annotated`, as a user reads it.

    Example:
        >>> without_metadata(Annotated[int, Argument(minimum=1)])
        <class 'int'>
    """
    if get_origin(declared_type) is Annotated:
        return without_metadata(get_args(declared_type)[0])
    if get_origin(declared_type) in (Union, UnionType):
        members = [without_metadata(member) for member in get_args(declared_type)]
        return reduce(or_, members)
    return declared_type


def read_value(parameter: Parameter, value: Any) -> Any:
    """Check the value of a parameter, and return it in the form that the command takes.

    Texts that name folders become paths; a parameter that takes several values becomes a list or a
    tuple; None stays None. Raises InputError if a folder is of the wrong kind, or a value cannot be
    read, is out of range or is not among the choices.
    """
    if value is None:
        return None
    if parameter.argument.read is not None:
        try:
            return parameter.argument.read(value)
        except InputError:
            raise
        except ValueError as error:
            texts = ",".join(texts_of(value))
            raise InputError(f"{parameter.option} {texts}: {error}") from None
    if not parameter.several:
        return _read_item(parameter, value)
    # One size, one policy or one folder is a list of one.
    is_collection = isinstance(value, Iterable) and not isinstance(value, str)
    if not is_collection or hasattr(value, "folder"):
        value = [value]
    items = [_read_item(parameter, item) for item in value]
    return tuple(items) if isinstance(value, tuple) else items


def _read_item(parameter: Parameter, value: Any) -> Any:
    option = parameter.option
    argument = parameter.argument
    if parameter.type is str and not isinstance(value, str):
        if not isinstance(value, Real | os.PathLike):
            kind = type(value).__name__
            raise InputError(f"{option}: expected a text, got a value of type {kind}")
        value = str(value)
    if parameter.type is Path:
        try:
            value = as_path(value)
        except InputError as error:
            raise InputError(f"{option}: {error}") from None
        if _STORE_ADDRESS.match(str(value)):
            address = str(value).replace(":/", "://", 1)
            raise InputError(f"{address}: mount it, or copy it to a disk first")
        if argument.folder_kind is not None:
            require_kind(value, argument.folder_kind)
    if parameter.choices and value not in parameter.choices:
        raise InputError(f"{option} {value}: is none of {', '.join(parameter.choices)}")
    if argument.minimum is not None and value < argument.minimum:
        raise InputError(f"{option} {value}: must be at least {argument.minimum:g}")
    if argument.maximum is not None and value > argument.maximum:
        raise InputError(f"{option} {value}: must be at most {argument.maximum:g}")
    return value


def texts_of(value: Any) -> list[str]:
    """Return a value as the texts that stand for it on a command line.

    A list or mapping has one text for each item; None has none.

    Example:
        >>> texts_of({"training": {"epochs": 2}}), texts_of([3, "a"]), texts_of(None)
        (['training.epochs=2'], ['3', 'a'], [])
    """
    if value is None:
        return []
    if isinstance(value, Mapping):
        texts = []
        for key, item in value.items():
            if isinstance(item, Mapping):
                texts += [f"{key}.{text}" for text in texts_of(item)]
        for key, item in value.items():
            if not isinstance(item, Mapping):
                texts.append(f"{key}={','.join(texts_of(item))}")
        return texts
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [text for item in value for text in texts_of(item)]
    if hasattr(value, "columns"):
        return ["DataFrame"]
    return [str(getattr(value, "folder", part_name(value)))]


def description(function: Callable[..., Any]) -> tuple[str, list[str]]:
    """Return a command's docstring before its sections, and the command lines of its examples."""
    text = inspect.getdoc(function) or ""
    body = text.partition("\nArgs:\n")[0].strip()
    paragraphs = _section(function, "Example").split("\n\n")
    examples = [" ".join(paragraph.split()) for paragraph in paragraphs]
    return body, [example for example in examples if example]


def _described_arguments(function: Callable[..., Any]) -> dict[str, str]:
    """Return the description of each parameter in the docstring's section ``Args``."""
    descriptions: dict[str, str] = {}
    name = ""
    for line in _section(function, "Args").splitlines():
        text = line.strip()
        begins_parameter = line.startswith("    ") and not line.startswith("     ")
        if begins_parameter and ": " in text:
            name, _, text = text.partition(": ")
            name = name.lstrip("*")
        descriptions[name] = f"{descriptions.get(name, '')} {text}".strip()
    return descriptions


def _section(function: Callable[..., Any], title: str) -> str:
    """Return the indented lines below a title of a Google docstring."""
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
