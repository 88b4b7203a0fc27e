"""Kinds of folders that the commands make, and objects that are opened from them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from cxr_compare.data_prep.base.errors import InputError

KindName = Literal[
    "data set", "run", "export", "predictions", "report", "phantom", "table of folds"
]
REPORT_MARKER = "answer.json"
"""File that marks a report folder complete."""


class FolderKind(NamedTuple):
    """A kind of folder: the file that marks it complete, the command that makes it."""

    name: KindName
    marker: str
    command: str
    first_files: tuple[str, ...] = ()  # by any of which one that was begun is recognised

    @property
    def with_article(self) -> str:
        """Name of the kind with its article, such as "a run", for a sentence."""
        article = {"predictions": "", "export": "an "}.get(self.name, "a ")
        return f"{article}{self.name}"


_KINDS = (
    FolderKind("data set", "dataset.json", "prepare", ("decoded.jsonl", "images.parquet")),
    FolderKind("run", "run.json", "train", ("config.toml", "checkpoints")),
    FolderKind("export", "export.json", "export"),
    FolderKind("predictions", "predictions.json", "predict", ("unfinished.json",)),
    FolderKind("report", REPORT_MARKER, "compare", ("decisions.parquet",)),
    FolderKind("phantom", "synth.json", "synth", ("synth.started.json",)),
    FolderKind("table of folds", "folds.csv", "folds"),
)


def folder_kind(folder: Path) -> FolderKind | None:
    """Return the kind of a complete folder that a ``cxr`` command made; None for any other."""
    return next((kind for kind in _KINDS if (folder / kind.marker).is_file()), None)


def unfinished_kind(folder: Path) -> FolderKind | None:
    """Return the kind of a folder that a command began and did not complete; None for any other."""
    begun = [k for k in _KINDS if any((folder / name).exists() for name in k.first_files)]
    return begun[0] if begun and folder_kind(folder) is None else None


def require_folder(folder: Path, name: KindName) -> None:
    """Refuse a path that is no complete folder of a kind, and say which command makes one."""
    required = next(kind for kind in _KINDS if kind.name == name)
    if (folder / required.marker).is_file():
        return
    actual = folder_kind(folder)
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
    elif actual is not None:
        problem = f"is {actual.with_article}, not {required.with_article}"
    else:
        problem = f"holds no {required.marker}, so it is no complete {name} folder"
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
