"""Parameters that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from cxr_compare.data_prep.base.errors import InputError, as_typed, role_columns

Named = tuple[str | None, Path]
# What Python may give, beside what the words of a command line become.
if TYPE_CHECKING:
    from cxr_compare.serving.run import Run

    AnyPath = str | os.PathLike[str]
    AnyPaths = AnyPath | Sequence[AnyPath]
    Texts = str | Sequence[str]
    AnyColumns = str | Sequence[str] | Mapping[str, str | Sequence[str]]
    AnySettings = str | Sequence[str] | Mapping[str, Any]
    AnyTargets = str | Sequence[str] | Mapping[str, Sequence[str]]
    Sides = int | Sequence[int]
else:
    AnyPath = AnyPaths = Path
    Texts = AnyColumns = AnySettings = AnyTargets = list[str]
    Sides = list[int]
DataFolder = Annotated[AnyPath, Parameter(help="Data set of cxr prepare.")]
Settings = Annotated[
    AnySettings | None,
    Parameter(
        name="--set",
        help="Replace a key of the configuration, such as training.epochs=20; cxr configs NAME "
        "shows every key.",
    ),
]
Policy = Annotated[
    str | None,
    Parameter(
        help="Rule that chooses the threshold on validation images, such as max_f1 (by default), "
        "sensitivity>=0.95 or threshold=0.5."
    ),
]
Engine = Annotated[
    Literal["local", "ray"],
    Parameter(help="ray computes on the Ray cluster of RAY_ADDRESS, or on one of this machine."),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], Parameter(help="auto takes a GPU if there is one.")
]
# The text of a label may hold a comma, too.
_BETWEEN_ROLES = re.compile(r",(?=means:|[\w.:]+[^,]*=|\[|$)")


def roles_of(columns: AnyColumns | None) -> tuple[str, ...]:
    """Return roles of columns as ROLE=COLUMN; commas may stand between them."""
    if isinstance(columns, Mapping):
        return tuple(f"{role}={column}" for role, column in role_columns(columns))
    texts = [columns] if isinstance(columns, str) else columns or ()
    roles: list[str] = []
    for part in (part for text in texts for part in _BETWEEN_ROLES.split(text) if part):
        if roles and roles[-1].startswith("means:") and "=" not in roles[-1]:
            roles[-1] += f",{part}"
        else:
            roles.append(part)
    return tuple(roles)


def comma_parts(argument: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the parts of texts with commas between them."""
    texts = [argument] if isinstance(argument, str) else argument or ()
    return tuple(part.strip() for text in texts for part in str(text).split(",") if part.strip())


def as_given(_: Any, tokens: Sequence[Any]) -> str:
    """Return a word of the command line as it is, for an argument that Python gives otherwise."""
    return str(tokens[0].value)


def require_engine(engine: str) -> None:
    """Refuse a name that is none of an engine, which Python may give."""
    if engine not in ("local", "ray"):
        raise InputError(f"{as_typed({'engine': engine})}: is none; choose local or ray")


def is_run(path: Path) -> bool:
    """Return whether a folder holds a run or an export."""
    return any((path / marker).is_file() for marker in ("run.json", "export.json"))


def run_names(arguments: Sequence[AnyPath]) -> list[tuple[str | None, Path]]:
    """Read ``PATH`` and ``NAME=PATH``; a folder of runs stands for its runs."""
    runs: list[tuple[str | None, Path]] = []
    for word in map(str, arguments):
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            runs += _runs_inside(Path(word)) or [(None, Path(word))]
        else:
            runs.append((name, Path(path)))
    return runs


def _runs_inside(folder: Path) -> list[tuple[str | None, Path]]:
    """Return the runs of a folder by the names of theirs; none of a run, and of other folders."""
    if is_run(folder) or not folder.is_dir():
        return []
    runs = [path for path in sorted(folder.iterdir()) if is_run(path)]
    begun = [path for path in sorted(folder.glob("*/config.toml")) if path.parent not in runs]
    if runs and begun:
        raise InputError(
            f"{begun[0].parent}: this training has not ended; the same cxr train goes on, or give "
            "the others one by one"
        )
    return [(path.name, path) for path in runs]


def open_runs(runs: Sequence[Named], *, policy: str | None, device: str) -> list[Run]:
    """Open runs and exports by name, each with a colour and a symbol."""
    from cxr_compare.evaluation.overlays.colours import marks_of
    from cxr_compare.serving.run import Run

    opened = [Run.open(path, name=name, policy=policy, device=device) for name, path in runs]
    names = [run.name for run in opened]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two systems are called '{name}'; write NAME=PATH")
    marks = marks_of(names)
    for run in opened:
        run.mark = marks[run.name]
    return opened
