"""Kinds of folders that the commands make, with the file that marks each as complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KindName = Literal[
    "data set",
    "run",
    "export",
    "predictions",
    "report",
    "phantom",
    "table of folds",
]
"""Name of a kind of folder, as messages call it."""


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that a command of ``cxr`` writes, such as a data set, a run or a report.

    Attributes:
        command: Subcommand of `cxr` that makes the folder, such as ``prepare``.
        marker: Name of the file that is written last and marks the folder as complete, such as
            ``dataset.json``.
        first_files: Names of files by which an unfinished folder is recognised: it contains at
            least one of them.
    """

    name: KindName
    command: str
    marker: str
    first_files: tuple[str, ...] = ()

    @property
    def command_line(self) -> str:
        """Command that makes the folder, as users type it, such as ``cxr prepare``."""
        return f"cxr {self.command}"

    @property
    def with_article(self) -> str:
        """Name of the kind with its article, such as "a run", for a sentence."""
        article = {"predictions": "", "export": "an "}.get(self.name, "a ")
        return f"{article}{self.name}"


FOLDER_KINDS = (
    FolderKind(
        "data set",
        command="prepare",
        marker="dataset.json",
        first_files=(".prepare", "images.parquet"),
    ),
    FolderKind(
        "run",
        command="train",
        marker="run.json",
        first_files=("config.toml", "checkpoints"),
    ),
    FolderKind("export", command="export", marker="export.json"),
    FolderKind(
        "predictions",
        command="predict",
        marker="predictions.json",
        first_files=("unfinished.json", "predicted_images.parquet"),
    ),
    FolderKind(
        "report",
        command="compare",
        marker="answer.json",
        first_files=("decisions.parquet",),
    ),
    FolderKind(
        "phantom",
        command="synth",
        marker="synth.json",
        first_files=("synth.started.json",),
    ),
    FolderKind("table of folds", command="folds", marker="folds.csv"),
)
"""All kinds. If a folder matches two of them, the first counts."""
