"""The kinds of folders: what messages call each, what marks it, what it holds, what makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KindName = Literal[
    "data set", "pixels", "split", "audit", "run", "export", "predictions", "decision", "report",
    "phantom", "table of folds", "reader study", "monitor", "sweep", "learning curve",
]  # fmt: skip


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder, or a part of a folder that a command makes on its own."""

    name: KindName  # in messages
    command: str  # makes it, or makes it again
    marker: str = ""  # the file that is written last; empty for a part of another folder
    begun: tuple[str, ...] = ()  # names of which an unfinished one holds at least one
    # The kinds of its files: JSON records (`data_prep.contracts.records`), tables
    # (`data_prep.contracts.schemas`), and others by the names that checksums know them by.
    files: tuple[str, ...] = ()

    @property
    def is_part(self) -> bool:
        """Whether it lies in a folder of another kind."""
        return not self.marker

    @property
    def command_line(self) -> str:
        """The command that makes it, as users type it."""
        return f"cxr {self.command}"

    @property
    def with_article(self) -> str:
        """Its name as part of a sentence."""
        article = {"predictions": "", "export": "an "}.get(self.name, "a ")
        return f"{article}{self.name}"


FOLDER_KINDS = (
    FolderKind(
        "data set",
        command="prepare",
        marker="dataset.json",
        begun=(".prepare", "images.parquet"),
        files=(
            "images", "findings", "boxes", "box_coverage", "decode", "excluded", "dataset",
            "settings",
        ),
    ),
    FolderKind("pixels", command="prepare", files=("pixels", "pixel_index")),
    FolderKind("split", command="split", files=("split",)),
    FolderKind("audit", command="check", files=("audit", "near_duplicates")),
    FolderKind(
        "run",
        command="train",
        marker="run.json",
        begun=("config.toml", "checkpoints"),
        files=(
            "run", "started_run", "model", "preprocess", "guard", "seen", "weights", "checkpoint",
            "config",
        ),
    ),
    FolderKind(
        "export", command="export", marker="export.json", files=("export", "card", "graph")
    ),
    FolderKind(
        "predictions",
        command="predict",
        marker="predictions.json",
        begun=("unfinished.json", "predicted_images.parquet"),
        files=(
            "predictions", "unfinished_predictions", "predicted_images", "scores",
            "predicted_boxes", "maps",
        ),
    ),
    FolderKind("decision", command="tune", files=("decision",)),
    FolderKind(
        "report",
        command="compare",
        marker="metrics.json",
        begun=("decisions.parquet",),
        files=("metrics", "decisions", "result"),
    ),
    FolderKind(
        "phantom",
        command="synth",
        marker="synth.json",
        begun=("synth.started.json",),
        files=("synth",),
    ),
    FolderKind("table of folds", command="folds", marker="folds.json", files=("folds",)),
    FolderKind("reader study", command="readers", marker="readers.json", files=("readers",)),
    FolderKind("monitor", command="monitor", marker="monitor.json", files=("monitor",)),
    FolderKind(
        "sweep",
        command="sweep",
        marker="sweep.json",
        begun=("sweep.started.json",),
        files=("sweep", "sweep_started"),
    ),
    FolderKind(
        "learning curve",
        command="curve",
        marker="curve.html",
        begun=("curve.started.json",),
        files=("curve", "curve_started"),
    ),
)  # fmt: skip
"""Every kind; of two that fit a folder, the first counts."""


def kind_holding(file_kind: str) -> FolderKind | None:
    """Return the kind of folder that holds files of a kind; None where no kind does.

    Example:
        >>> kind_holding("guard").command_line
        'cxr train'
    """
    return next((kind for kind in FOLDER_KINDS if file_kind in kind.files), None)
