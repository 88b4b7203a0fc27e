"""The systems that a command is given: ``PATH``, ``NAME=PATH``, seeds of one system, or values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias, TypeVar

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.options import split_name
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path

if TYPE_CHECKING:
    from cxr_compare.data_prep.store.predictions import Predictions

_Member = TypeVar("_Member")


def is_values(value: Any) -> bool:
    """Return True for values in memory, such as an array or a frame, False for a path or a run.

    Example:
        >>> is_values([0.1, 0.9]), is_values("out/run"), is_values(["out/a", "out/b"])
        (True, False, False)
    """
    if names_path(value):
        return False
    if isinstance(value, Sequence):
        if len(value) > 1 and all(map(_is_number_text, value)):
            return True
        return len(value) > 0 and not any(names_path(item) for item in value)
    return True


def _is_number_text(value: Any) -> bool:
    """Return True for a text of a number, such as ``0.900``, which is a score and no file."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def names_path(value: Any) -> bool:
    """Return True for a text, a path, or an object with a folder, such as an opened run.

    Example:
        >>> names_path("labels.csv"), names_path(["p1", "p2"])
        (True, False)
    """
    return isinstance(value, str | Path) or hasattr(value, "folder")


def values_caption(value: Any) -> str:
    """Return a short description of values in memory, for a record or a message.

    Example:
        >>> values_caption([0.1, 0.9])
        '<list of 2>'
    """
    kind = type(value).__name__
    try:
        return f"<{kind} of {len(value)}>"
    except TypeError:
        return f"<{kind}>"


def _split_seeds(system: str) -> tuple[str | None, list[Path]]:
    """Split ``NAME=PATH,PATH``, several training seeds of one system; a bare path is one.

    Example:
        >>> _split_seeds("A=out/a,out/b"), _split_seeds("out/a")
        (('A', [PosixPath('out/a'), PosixPath('out/b')]), (None, [PosixPath('out/a')]))
    """
    name, path = split_name(system)
    each = str(path).split(",") if name and not path.exists() else [str(path)]
    if not all(each):
        raise InputError(f"{system}: expected NAME=PATH,PATH of several training seeds")
    return name, [Path(one) for one in each]


class SystemPaths(NamedTuple):
    """A system to compare: one model, or the same model trained with several random seeds.

    `name` None takes the name of the first folder of `paths`, which are trainings, exports or
    predictions, one for each random seed.
    """

    name: str | None
    paths: list[Path]


@dataclass(frozen=True)
class GivenValues:
    """Scores or boxes of a detector or classifier that Python passes as array, frame or list."""

    value: Any

    def __str__(self) -> str:
        return values_caption(self.value)


class GivenSystem(NamedTuple):
    """A system to compare, as the user gives it: paths, predictions or values in memory.

    A system is a model, or the same model trained with several random seeds, each a member.
    """

    name: str | None
    members: list[Path | Predictions | GivenValues]

    @property
    def paths(self) -> list[Path]:
        """Those `members` that are folders or files."""
        return [member for member in self.members if isinstance(member, Path)]


SystemsGiven: TypeAlias = (
    AnyPath | Sequence[AnyPath | SystemPaths] | Mapping[str, AnyPath | Sequence[AnyPath]]
)
"""Systems as texts ``NAME=PATH``, paths or opened folders, or by name; several paths are seeds."""


def read_systems(value: SystemsGiven) -> list[SystemPaths]:
    """Read systems from texts or from a mapping; objects of class `SystemPaths` stay unchanged.

    A text is ``NAME=PATH[,PATH...]`` or ``PATH``; a path may be an opened object with a ``folder``.
    Several paths of a system are trainings with different random seeds.

    Example:
        >>> read_systems(["A=out/a,out/b"]) == read_systems({"A": ["out/a", Path("out/b")]})
        True
    """
    if isinstance(value, Mapping):
        return [SystemPaths(name, _folders(source)) for name, source in value.items()]
    words: Any = value
    if isinstance(value, str | Path) or hasattr(value, "folder"):
        words = [value]
    return [_read_system(word) for word in words]


def _read_system(word: AnyPath | SystemPaths) -> SystemPaths:
    """Read one system: a text with seeds, a path, an opened object, or a system, which stays."""
    if isinstance(word, SystemPaths):
        return word
    if hasattr(word, "folder"):
        return SystemPaths(None, [as_path(word)])
    return SystemPaths(*_split_seeds(str(word)))


def _folders(source: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """Return the folder of a text, a path, predictions or a run, or of several of them."""
    if isinstance(source, Sequence) and not isinstance(source, str):
        return [as_path(one) for one in source]
    return [as_path(source)]


Systems = Annotated[SystemsGiven, Argument(read=read_systems)]


def read_compared(value: Any) -> list[GivenSystem]:
    """Read systems to compare: texts of the command line, or a mapping from name to path or values.

    A text is ``NAME=PATH[,PATH...]``. Raises InputError if values in memory have no name, or there
    are no values.

    Example:
        >>> [(name, [str(m) for m in members]) for name, members in read_compared(
        ...     {"A": "out/a", "B": [0.1, 0.9]})]
        [('A', ['out/a']), ('B', ['<list of 2>'])]
    """
    from cxr_compare.evaluation.compare import check_names

    if isinstance(value, Mapping):
        check_names(value)
        systems = [GivenSystem(name, _members(source)) for name, source in value.items()]
        for system in systems:
            if not system.members:
                raise InputError(f"{system.name}: is empty; give its scores or boxes")
        return systems
    if isinstance(value, Sequence) and all(isinstance(one, GivenSystem) for one in value):
        return list(value)
    several = isinstance(value, Sequence) and not isinstance(value, str)
    for one in value if several else [value]:
        if not names_path(one) and not isinstance(one, SystemPaths):
            raise InputError(
                f"compare: {values_caption(one)} has no name; give scores and boxes by the names "
                'of their systems, such as {"A": scores}'
            )
    systems = [GivenSystem(name, [*paths]) for name, paths in read_systems(value)]
    check_names(system.name for system in systems if system.name)
    return systems


def _members(source: Any) -> list[Path | Predictions | GivenValues]:
    if isinstance(source, list | tuple) and source and all(map(_is_one_seed, source)):
        return [GivenValues(scores) for scores in source]  # of several training seeds
    if is_values(source):
        return [GivenValues(source)]
    if isinstance(source, Sequence) and not isinstance(source, str):
        return [member for one in source for member in _members(one)]
    if getattr(source, "tables", None):  # predictions in memory
        return [source]
    return [as_path(source)]


def _is_one_seed(value: Any) -> bool:
    """Return True for a frame, and for an array, Series or tensor of several numbers, ``(N,)``."""
    if hasattr(value, "columns"):
        return True
    return getattr(value, "ndim", None) == 1 and len(value) > 1


def compared_words(value: Any) -> list[str]:
    """Return systems to compare as words of the command line, ``NAME=PATH[,PATH...]`` or ``PATH``.

    Values in memory are described in place of a path, such as ``<list of 2>``.
    """
    texts = [(name, ",".join(map(str, members))) for name, members in read_compared(value)]
    return [text if name is None else f"{name}={text}" for name, text in texts]


ComparedSystems = Annotated[
    SystemsGiven | Mapping[str, Any], Argument(read=read_compared, write=compared_words)
]


def same_name(name: str, first: object, second: object) -> InputError:
    """Return the error on two systems that would have one name; each is shown as it was given."""
    return InputError(
        f"compare: two systems have one name, '{name}': {first} and {second}; give each its own: "
        "NAME=PATH"
    )


def seeds_to_join(
    opened: Mapping[str, Sequence[_Member]],
) -> tuple[str, list[tuple[_Member, ...]]]:
    """Return the name of the system that joins all, and the members of each of its seeds.

    Raises InputError if the systems have different numbers of seeds, or one has the name of the
    joint system.
    """
    name = " + ".join(opened)
    counts = {system: len(members) for system, members in opened.items()}
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{system} {count}" for system, count in counts.items())
        raise InputError(f"compare --both: joins seed by seed; give all systems as many ({each})")
    if name in opened:
        raise InputError(f"compare --both: a system is called {name} already; rename it")
    return name, list(zip(*opened.values(), strict=True))
