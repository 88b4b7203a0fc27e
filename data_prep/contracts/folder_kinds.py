"""Kinds of folders that the commands make, with the file that marks each as complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KindName = Literal[
    "data set",
    "pixels",
    "split",
    "audit",
    "run",
    "export",
    "predictions",
    "decision",
    "report",
    "phantom",
    "table of folds",
    "shard of a data set",
    "shard of predictions",
]
"""Name of a kind of folder, as messages call it."""


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that a command of ``cxr`` writes, such as a data set, a run or a report.

    A part of such a folder that another command writes, such as the result of ``cxr check`` in a
    data set folder, has an object of this class, too.

    Attributes:
        name: Name of the kind in messages, such as ``data set``.
        command: Subcommand of `cxr` that makes the folder, such as ``prepare``.
        marker: Name of the file that is written last and marks the folder as complete, such as
            ``dataset.json``; empty for a part of another folder.
        first_files: Names of files by which an unfinished folder is recognised: it contains at
            least one of them.
        files: Names of the kinds of files in the folder, such as ``dataset`` for ``dataset.json``
            or ``images`` for the images table. Error messages use them to name the command that
            makes a damaged file again.
    """

    name: KindName
    command: str
    marker: str = ""
    first_files: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def is_part(self) -> bool:
        """True for a part of a folder of another kind, such as a split in a data set."""
        return not self.marker

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
        files=(
            "images",
            "findings",
            "boxes",
            "box_coverage",
            "decode",
            "excluded",
            "dataset",
            "settings",
        ),
    ),
    FolderKind("pixels", command="prepare", files=("pixel_index",)),
    FolderKind("split", command="split", files=("split",)),
    FolderKind("audit", command="check", files=("audit", "near_duplicates")),
    FolderKind(
        "run",
        command="train",
        marker="run.json",
        first_files=("config.toml", "checkpoints"),
        files=(
            "run",
            "started_run",
            "model",
            "preprocess",
            "guard",
            "seen",
            "weights",
            "checkpoint",
            "config",
        ),
    ),
    FolderKind("export", command="export", marker="export.json", files=("export", "card", "graph")),
    FolderKind(
        "predictions",
        command="predict",
        marker="predictions.json",
        first_files=("unfinished.json", "predicted_images.parquet"),
        files=(
            "predictions",
            "unfinished_predictions",
            "predicted_images",
            "scores",
            "predicted_boxes",
            "maps",
        ),
    ),
    FolderKind("decision", command="tune", files=("decision",)),
    FolderKind(
        "report",
        command="compare",
        marker="answer.json",
        first_files=("decisions.parquet",),
        files=("answer", "figures", "tests", "groups", "decisions", "curves"),
    ),
    FolderKind(
        "phantom",
        command="synth",
        marker="synth.json",
        first_files=("synth.started.json",),
        files=("synth",),
    ),
    FolderKind("table of folds", command="folds", marker="folds.json", files=("folds",)),
    FolderKind(
        "shard of a data set",
        command="prepare",
        marker="dataset_shard.json",
        files=("dataset_shard",),
    ),
    FolderKind(
        "shard of predictions",
        command="predict",
        marker="predictions_shard.json",
        files=("predictions_shard",),
    ),
)
"""All kinds. If a folder matches two of them, the first counts."""


def kind_of_file(file_kind: str) -> FolderKind | None:
    """Return the kind of folder that contains files of a given kind.

    Args:
        file_kind: Name of the kind of a JSON file, a table or another file, such as ``guard``, the
            out-of-distribution check of a training run.

    Returns:
        The kind of folder; None if the file belongs to no kind of folder.

    Example:
        >>> kind_of_file("guard").command_line
        'cxr train'
    """
    return next((kind for kind in FOLDER_KINDS if file_kind in kind.files), None)
