"""Kinds of folders that the commands make, and objects that are opened from them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from cxr_compare.data_prep.base.errors import InputError, Remedy
from cxr_compare.data_prep.base.files import folder_lock, is_work_file

KindName = Literal[
    "data set",
    "run",
    "export",
    "predictions",
    "report",
    "report on several findings",
    "report on classes",
    "phantom",
    "table of folds",
    "set of overlays",
]
State = Literal["new", "interrupted", "finished", "foreign"]
REPORT_MARKER = "answer.json"
"""Record of a report folder."""
OF_REPORT = frozenset(
    {
        REPORT_MARKER,
        "report.html",
        *(f"{name}.parquet" for name in ("figures", "groups", "lesions", "decisions", "curves")),
        *("figures.csv", "decisions.csv"),
        *(
            "table.tex",
            "table.md",
            "figures",
            "overlays",
            "systems",
        ),
    }
)
"""Files of a report."""
OF_REPORTS = frozenset(
    {
        "answers.json",
        "report.html",
        "findings.svg",
        "figures.csv",
        "macro.csv",
        "systems",
    }
)
"""Files of a report on several findings, beside one folder for each."""
_OF_CLASSES = frozenset(
    {
        *("report.html", "classes.csv", "calls.csv", "table.tex", "table.md"),
        *("figures", "systems"),
    }
)


class FolderKind(NamedTuple):
    """A kind of folder that a command makes.

    Attributes:
        record: File that is written last, and names the digests of all else.
        command: Command that makes it.
        begun: File by which a folder that is not finished is recognised, whatever else it holds.
        files: Names by which one without such a file is recognised if it holds no others.
    """

    name: KindName
    record: str
    command: str
    begun: str = ""
    files: frozenset[str] = frozenset()

    @property
    def with_article(self) -> str:
        """Name of the kind with its article, such as "a run", for a sentence."""
        article = {"predictions": "", "export": "an "}.get(self.name, "a ")
        return f"{article}{self.name}"


_KINDS = (
    FolderKind("data set", "dataset.json", "prepare", "decoded.jsonl"),
    FolderKind(
        "run",
        "run.json",
        "train",
        "config.toml",
        frozenset({"checkpoints", "seen.parquet", "started.json"}),
    ),
    FolderKind("export", "export.json", "export"),
    FolderKind("predictions", "predictions.json", "predict", "unfinished.json"),
    FolderKind("report", REPORT_MARKER, "compare", files=OF_REPORT),
    FolderKind("report on several findings", "answers.json", "compare", files=OF_REPORTS),
    FolderKind("report on classes", "classes.json", "compare", files=_OF_CLASSES),
    FolderKind("phantom", "synth.json", "synth", "synth.started.json"),
    FolderKind("table of folds", "folds.json", "folds", files=frozenset({"folds.csv"})),
    FolderKind("set of overlays", "overlays.json", "overlay"),
)


_WITHOUT_BEGINNING = ("predictions", "phantom")
"""Kinds of which a finished folder lacks the file by which one that was begun is recognised."""


def folder_state(folder: Path, name: KindName, further: Collection[str] = ()) -> State:
    """Return whether a folder of a kind is finished, interrupted, new or of something else.

    `further` are names that it may hold beside those of its kind.
    """
    kind = _kind(name)
    if (folder / kind.record).is_file():
        return "finished"
    if kind.begun and (folder / kind.begun).is_file():
        return "interrupted"
    if _foreign_name(folder, kind, further) is not None:
        return "foreign"
    is_new = not folder.exists() or all(map(is_work_file, folder.iterdir()))
    return "new" if is_new else "interrupted"


def require_writable(
    folder: Path, name: KindName, further: Collection[str] = (), *, overwrite: bool = False
) -> None:
    """Refuse a folder that holds something else, or that is finished and not to be replaced.

    What a command left in a finished folder that was killed behind its record is removed.
    """
    state = folder_state(folder, name, further)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file stands where a folder is needed")
    if state == "finished" and not overwrite:
        with suppress(InputError), folder_lock(folder):  # it may be read-only, or in use
            if name in _WITHOUT_BEGINNING:
                (folder / _kind(name).begun).unlink(missing_ok=True)
        article = "" if name == "predictions" else "a "
        anew = Remedy("it shall be replaced", {"overwrite": True})
        raise InputError(
            f"{folder}: holds {article}finished {name}; choose another folder",
            [anew] if _kind(name).command == "compare" else [],
        )
    # A folder that is to be replaced may hold nothing that is not replaced.
    other = _foreign_name(folder, _kind(name), further)
    if state == "foreign" or (state == "finished" and other):
        raise InputError(
            f"{folder}: holds '{other}', which no {name} has; choose another folder (out)"
        )


def _kind(name: KindName) -> FolderKind:
    return next(kind for kind in _KINDS if kind.name == name)


def _foreign_name(folder: Path, kind: FolderKind, further: Collection[str]) -> str | None:
    """Return the first name in a folder that no folder of a kind has."""
    if folder.exists() and not folder.is_dir():
        return folder.name
    names_of_kind = {kind.record, kind.begun, *kind.files, *further}
    paths = sorted(folder.iterdir()) if folder.exists() else ()
    others = (
        path.name for path in paths if path.name not in names_of_kind and not is_work_file(path)
    )
    return next(others, None)


def folder_kind(folder: Path) -> FolderKind | None:
    """Return the kind of a finished folder that a ``cxr`` command made; None for any other."""
    return next((kind for kind in _KINDS if (folder / kind.record).is_file()), None)


def unfinished_kind(folder: Path) -> FolderKind | None:
    """Return the kind of a folder that a command began and did not finish; None for any other."""
    if folder_kind(folder) is not None or not folder.is_dir():
        return None
    reports = {path.name for path in folder.iterdir() if _is_report(path)}
    begun = (
        kind
        for kind in _KINDS
        if folder_state(folder, kind.name, reports if kind.record == "answers.json" else ())
        == "interrupted"
    )
    return next(begun, None)


def _is_report(folder: Path) -> bool:
    return folder.is_dir() and folder_state(folder, "report") in ("finished", "interrupted")


def require_folder(folder: Path, name: KindName) -> None:
    """Refuse a path that is no complete folder of a kind, and say which command makes one."""
    required = _kind(name)
    if (folder / required.record).is_file():
        return
    actual = folder_kind(folder)
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
    elif actual is not None:
        problem = f"is {actual.with_article}, not {required.with_article}"
    else:
        problem = f"holds no {required.record}, so it is no complete {name} folder"
    raise InputError(
        f"{folder}: {problem}; cxr {required.command} makes one, and completes one that it began"
    )


class OpenedFromFolder:
    """Base class of objects that ``open`` reads from a folder; they stand wherever a path does."""

    def __fspath__(self) -> str:
        """Return the folder."""
        folder = getattr(self, "folder", None)
        if folder is None:
            name = type(self).__name__
            raise InputError(f"{name}: was written into no folder; write it, and give the folder")
        return str(folder)
